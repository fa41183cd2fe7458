# SPDX-License-Identifier: Apache-2.0
# Measures by itself (bench/results.hpp); needs root, and the example that is built where ngtcp2 is.
if(TARGET example_quic_server)
  add_executable(bench_quic quic_bench.cpp)
  target_link_libraries(bench_quic PRIVATE cowire_options cowire::base)
  target_include_directories(bench_quic PRIVATE "${PROJECT_SOURCE_DIR}")
  target_compile_definitions(bench_quic PRIVATE SERVER="$<TARGET_FILE:example_quic_server>")
  add_dependencies(bench_quic example_quic_server)
endif()

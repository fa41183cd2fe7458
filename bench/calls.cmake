# SPDX-License-Identifier: Apache-2.0
# Measures by itself (bench/results.hpp).
if(TARGET cowire::c)
  add_executable(bench_calls calls_bench.cpp)
  target_link_libraries(bench_calls PRIVATE cowire_options cowire::async cowire::c)
  target_include_directories(bench_calls PRIVATE "${PROJECT_SOURCE_DIR}")
endif()

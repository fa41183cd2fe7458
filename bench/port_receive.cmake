# SPDX-License-Identifier: Apache-2.0
# Measures by itself (bench/results.hpp); needs root.
add_executable(bench_port_receive port_receive_bench.cpp)
target_link_libraries(bench_port_receive PRIVATE cowire_options cowire::async)
target_include_directories(bench_port_receive PRIVATE "${PROJECT_SOURCE_DIR}")

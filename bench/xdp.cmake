# SPDX-License-Identifier: Apache-2.0
cowire_bench(tx SOURCES tx_bench.cpp DEPENDS cowire::xdp)

# Not a benchmark by itself: what callgrind counts the instructions of.
add_executable(bench_tx_instructions tx_instructions.cpp)
target_link_libraries(bench_tx_instructions PRIVATE cowire_options cowire::xdp)
target_include_directories(bench_tx_instructions PRIVATE "${PROJECT_SOURCE_DIR}")

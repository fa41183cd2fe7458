# SPDX-License-Identifier: Apache-2.0
cowire_bench(tx SOURCES tx_bench.cpp DEPENDS cowire::xdp)

# Measures by itself (bench/results.hpp).
add_executable(bench_tx_cores tx_cores_bench.cpp)
target_link_libraries(bench_tx_cores PRIVATE cowire_options cowire::xdp)
target_include_directories(bench_tx_cores PRIVATE "${PROJECT_SOURCE_DIR}")

# Not a benchmark by itself: what callgrind counts the instructions of. Optimised builds only.
add_executable(bench_tx_instructions tx_instructions.cpp)
target_link_libraries(bench_tx_instructions PRIVATE cowire_options cowire::xdp)
target_include_directories(bench_tx_instructions PRIVATE "${PROJECT_SOURCE_DIR}")
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  add_test(NAME tx_instructions COMMAND "${Python3_EXECUTABLE}" -B
    "${PROJECT_SOURCE_DIR}/scripts/lib/instructions.py" $<TARGET_FILE:bench_tx_instructions>)
  set_tests_properties(tx_instructions PROPERTIES LABELS instructions TIMEOUT 120 SKIP_RETURN_CODE 77)
endif()

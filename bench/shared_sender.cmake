# SPDX-License-Identifier: Apache-2.0
# Not a benchmark by itself: what callgrind counts the instructions of, as bench_tx_instructions.
add_executable(bench_sender_instructions sender_instructions.cpp)
target_link_libraries(bench_sender_instructions PRIVATE cowire_options cowire::async)
target_include_directories(bench_sender_instructions PRIVATE "${PROJECT_SOURCE_DIR}")
if(TARGET cowire::c)
  target_link_libraries(bench_sender_instructions PRIVATE cowire::c)
  target_compile_definitions(bench_sender_instructions PRIVATE COWIRE_BENCH_C=1)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  add_test(NAME sender_instructions COMMAND "${Python3_EXECUTABLE}" -B
    "${PROJECT_SOURCE_DIR}/scripts/lib/sender_instructions.py" $<TARGET_FILE:bench_sender_instructions>)
  set_tests_properties(sender_instructions PROPERTIES LABELS instructions TIMEOUT 300 SKIP_RETURN_CODE 77)
endif()

cowire_bench(shared_sender SOURCES shared_sender_bench.cpp DEPENDS cowire::async)
if(COWIRE_BOOST_INCLUDE_DIR)
  target_include_directories(bench_shared_sender SYSTEM PRIVATE "${COWIRE_BOOST_INCLUDE_DIR}")
  target_compile_definitions(bench_shared_sender PRIVATE COWIRE_BENCH_BOOST=1)
endif()

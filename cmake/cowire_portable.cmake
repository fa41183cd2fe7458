# SPDX-License-Identifier: Apache-2.0
# Instead of all else: what needs no library but GoogleTest (whose sources Debian has), for processors that the build
# machine's is not. That is base, the look-ups and the TX core with their unit tests, and ctest runs them in an
# emulator (presets aarch64 and x86-64).
include(CTest)
find_package(Threads REQUIRED)
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
file(MAKE_DIRECTORY "${PROJECT_BINARY_DIR}/include")
file(CREATE_LINK "${PROJECT_SOURCE_DIR}" "${PROJECT_BINARY_DIR}/include/cowire" SYMBOLIC)

set(GOOGLETEST_SOURCES /usr/src/googletest CACHE PATH "GoogleTest's sources (package googletest)")
set(BUILD_GMOCK OFF CACHE BOOL "" FORCE)
set(INSTALL_GTEST OFF CACHE BOOL "" FORCE)
add_subdirectory("${GOOGLETEST_SOURCES}" googletest EXCLUDE_FROM_ALL)

add_library(cowire_portable STATIC
  base/address.cpp base/assert.cpp base/checksum.cpp base/doorbell.cpp base/error.cpp base/forked.cpp base/reason.cpp
  base/version.cpp
  route/epoch.cpp route/lpm.cpp route/multipath_hash.cpp route/publisher.cpp
  route/detail/lpm_pool.cpp
  xdp/frame_pool.cpp xdp/tracked_flows.cpp xdp/tx_core.cpp xdp/umem.cpp xdp/work_bell.cpp
  xdp/detail/flow_cache.cpp xdp/detail/frame_runs.cpp xdp/detail/run_writer.cpp xdp/detail/tx_engine.cpp
  xdp/detail/tx_port.cpp)
target_include_directories(cowire_portable PUBLIC "${PROJECT_BINARY_DIR}/include" "${PROJECT_SOURCE_DIR}")
target_compile_options(cowire_portable PUBLIC -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion
  -Wold-style-cast
  # As in cowire_module.cmake: gcc 12 warns falsely of what it makes of standard containers.
  $<$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>:-Wno-restrict;-Wno-stringop-overflow;-Wno-stringop-overread;-Wno-array-bounds>
  $<$<BOOL:${COWIRE_WERROR}>:-Werror>)
target_link_libraries(cowire_portable PUBLIC Threads::Threads)

# Not frame_pool: an emulator cannot run itself anew, as death tests do.
foreach(test base/address base/checksum base/doorbell base/error base/reason base/spsc_ring route/lpm route/epoch
    xdp/flow_cache xdp/flow_cache_stress xdp/frame_runs xdp/frame_writer xdp/tx_core xdp/tx_core_stress
    xdp/umem xdp/work_bell)
  cmake_path(GET test FILENAME name)
  add_executable(test_${name} tests/${test}_test.cpp)
  target_link_libraries(test_${name} PRIVATE cowire_portable gtest_main)
  add_test(NAME ${name} COMMAND test_${name})
  # An emulator is twenty times as slow.
  set_tests_properties(${name} PROPERTIES LABELS unit TIMEOUT 600
    ENVIRONMENT "COWIRE_STRESS_CHANGES=20000;COWIRE_STRESS_DATAGRAMS=3000")
endforeach()

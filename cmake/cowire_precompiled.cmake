# SPDX-License-Identifier: Apache-2.0
# cowire_precompiled(target): compiles a library's or a program's sources with Asio and the standard library already
# parsed, which is a second or more of each source that includes Asio. Sources still include what they use: the clang
# preset and the verification of headers compile without.
#
# Two headers, since libraries are compiled with -fPIC and programs with -fPIE; that of programs has GoogleTest too.

if(NOT COWIRE_PRECOMPILE)
  function(cowire_precompiled)
  endfunction()
  return()
endif()

# ccache refuses precompiled headers unless it may trust that they do not depend on the time or on macros it cannot see.
if(CMAKE_CXX_COMPILER_LAUNCHER MATCHES "(^|/)ccache$")
  list(PREPEND CMAKE_CXX_COMPILER_LAUNCHER env CCACHE_SLOPPINESS=pch_defines,time_macros)
endif()

function(cowire_precompiled_owner name position_independence)
  add_library(${name} OBJECT EXCLUDE_FROM_ALL "${CMAKE_CURRENT_LIST_DIR}/precompiled.cpp")
  target_link_libraries(${name} PRIVATE cowire_options cowire_asio ${ARGN})
  target_include_directories(${name} PRIVATE "${COWIRE_INCLUDE_DIR}")
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${name} PRIVATE ${position_independence})
  target_precompile_headers(${name} PRIVATE
    <cowire/ring/asio.hpp> <asio/io_context.hpp> <asio/steady_timer.hpp>
    <algorithm> <array> <atomic> <bit> <chrono> <cstdio> <cstdlib> <cstring> <deque> <filesystem> <fstream> <functional>
    <iostream> <map> <memory> <mutex> <optional> <random> <set> <span> <sstream> <string> <thread> <tuple>
    <unordered_map> <utility> <variant> <vector>
    $<$<BOOL:${ARGN}>:<gtest/gtest.h$<ANGLE-R>>)
  # ccache takes no precompiled header of clang's that holds the time when it was made.
  target_compile_options(${name} PRIVATE $<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>)
endfunction()

cowire_precompiled_owner(cowire_precompiled_libraries -fPIC)
if(COWIRE_BUILD_TESTS)
  find_package(GTest REQUIRED)
  cowire_precompiled_owner(cowire_precompiled_programs -fPIE GTest::gtest)
endif()

function(cowire_precompiled target)
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "EXECUTABLE")
    set(owner cowire_precompiled_programs)
  else()
    set(owner cowire_precompiled_libraries)
  endif()
  if(TARGET ${owner})
    # The compiler refuses a header that was parsed with other macros.
    target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:cowire_asio>)
    target_precompile_headers(${target} REUSE_FROM ${owner})
    # ccache preprocesses what it does not know; this keeps it from parsing the header again.
    target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>
      $<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>)
  endif()
endfunction()

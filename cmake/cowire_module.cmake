# SPDX-License-Identifier: Apache-2.0
# How a folder becomes a library: cowire_module(route SOURCES ... DEPENDS cowire::base ... PRIVATE ... [PRECOMPILED]).
# PRECOMPILED: its sources are mostly users of Asio (cowire_precompiled.cmake).
#
# `#include <cowire/route/lpm.hpp>` is the only include form, in the tree and installed. In the tree it is
# reached through a link in the build folder, <build>/include/cowire -> the source folder.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

set(COWIRE_INCLUDE_DIR "${PROJECT_BINARY_DIR}/include")
file(MAKE_DIRECTORY "${COWIRE_INCLUDE_DIR}")
file(CREATE_LINK "${PROJECT_SOURCE_DIR}" "${COWIRE_INCLUDE_DIR}/cowire" SYMBOLIC)

# What every target of this project is compiled with; not part of the exported interface.
add_library(cowire_options INTERFACE)
target_compile_options(cowire_options INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wnon-virtual-dtor -Wold-style-cast
  -fno-omit-frame-pointer
  # clang takes names of sources that are compiled together for hidden ones (cowire_unity.cmake).
  $<$<NOT:$<AND:$<BOOL:${COWIRE_UNITY}>,$<CXX_COMPILER_ID:Clang>>>:-Wshadow>
  # gcc 12 warns falsely of what it makes of std::string's members at -O3 (GCC bugs 105329, 105651).
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>,$<CONFIG:Release>>:-Wno-restrict;-Wno-stringop-overflow;-Wno-stringop-overread;-Wno-array-bounds>
  $<$<BOOL:${COWIRE_WERROR}>:-Werror>)
if(COWIRE_SANITIZE)
  target_compile_options(cowire_options INTERFACE -fsanitize=${COWIRE_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(cowire_options INTERFACE -fsanitize=${COWIRE_SANITIZE})
  target_compile_definitions(cowire_options INTERFACE COWIRE_DEBUG_CHECKS=1)
  # What tests ask for: each compiler has names of its own.
  if(COWIRE_SANITIZE STREQUAL "thread")
    target_compile_definitions(cowire_options INTERFACE COWIRE_THREAD_SANITIZER=1)
  else()
    target_compile_definitions(cowire_options INTERFACE COWIRE_ADDRESS_SANITIZER=1)
  endif()
  if(COWIRE_SANITIZE MATCHES "address" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # In tests AddressSanitizer mostly sees what these see at each access, and they cost more to compile than all the
    # rest. The library's own sources have them (docs/testing.md).
    target_compile_options(cowire_options INTERFACE
      $<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:-fno-sanitize=null,alignment,object-size,vptr>)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # gcc 12 warns falsely of what its own instrumentation adds: inside Asio's futures, and of every fence.
    target_compile_options(cowire_options INTERFACE -Wno-maybe-uninitialized)
    if(COWIRE_SANITIZE MATCHES "thread")
      target_compile_options(cowire_options INTERFACE -Wno-tsan)
    endif()
  endif()
elseif(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_BUILD_TYPE STREQUAL "Debug")
  # With -Og it takes a lambda without members that Asio keeps for uninitialised.
  target_compile_options(cowire_options INTERFACE -Wno-maybe-uninitialized)
endif()

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
# Each becomes the target PkgConfig::<name>; the installed package repeats the list (cowire_install.cmake).
set(COWIRE_PKG_CONFIG_REQUIREMENTS liburing>=2.3 libbpf>=1.1 libxdp>=1.3 libmnl>=1.0.4)
foreach(requirement IN LISTS COWIRE_PKG_CONFIG_REQUIREMENTS)
  string(REGEX MATCH "^[^>]+" name "${requirement}")
  pkg_check_modules(${name} REQUIRED IMPORTED_TARGET ${requirement})
endforeach()

# Standalone Asio, header only. Its configuration macros change the layout of its classes, so they are part of
# our public interface and set in this one place (docs/decisions.md).
add_library(cowire_asio INTERFACE)
target_compile_definitions(cowire_asio INTERFACE ASIO_STANDALONE ASIO_NO_DEPRECATED
  ASIO_HAS_STD_ALIGNED_ALLOC=1 $<$<CXX_COMPILER_ID:Clang>:ASIO_HAS_CO_AWAIT=1>)
target_link_libraries(cowire_asio INTERFACE Threads::Threads)
set_target_properties(cowire_asio PROPERTIES EXPORT_NAME asio)

include(cowire_precompiled)
include(cowire_unity)

function(cowire_module name)
  cmake_parse_arguments(arg "PRECOMPILED" "" "HEADERS;SOURCES;DEPENDS;PRIVATE" ${ARGN})
  set(target cowire_${name})
  if(arg_SOURCES)
    add_library(${target} STATIC ${arg_SOURCES})
    set(scope PUBLIC)
    target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:cowire_options> ${arg_PRIVATE})
    if(arg_PRECOMPILED)
      cowire_precompiled(${target})
    endif()
    cowire_unity(${target})
  else()
    add_library(${target} INTERFACE)
    set(scope INTERFACE)
  endif()
  add_library(cowire::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name} VERIFY_INTERFACE_HEADER_SETS ON)
  list(TRANSFORM arg_HEADERS PREPEND "${COWIRE_INCLUDE_DIR}/cowire/${name}/")
  target_sources(${target} ${scope} FILE_SET HEADERS BASE_DIRS "${COWIRE_INCLUDE_DIR}" FILES ${arg_HEADERS})
  target_compile_features(${target} ${scope} cxx_std_20)
  target_link_libraries(${target} ${scope} ${arg_DEPENDS})
  set_property(GLOBAL APPEND PROPERTY COWIRE_MODULES ${target})
endfunction()

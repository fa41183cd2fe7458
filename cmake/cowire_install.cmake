# SPDX-License-Identifier: Apache-2.0
# The installed package: find_package(cowire CONFIG) with one target a room (cowire::base … cowire::async) and
# cowire::cowire for all of them, the pkg-config file cowire.pc, and the `cowire` command.
# A detail/ header that a public one includes must be in its module's HEADERS, or it would be missing here
# (tests/package compiles every installed header).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

get_property(cowire_modules GLOBAL PROPERTY COWIRE_MODULES)
add_library(cowire_all INTERFACE)
add_library(cowire::cowire ALIAS cowire_all)
set_target_properties(cowire_all PROPERTIES EXPORT_NAME cowire)
target_link_libraries(cowire_all INTERFACE ${cowire_modules})
target_sources(cowire_all INTERFACE FILE_SET HEADERS BASE_DIRS "${COWIRE_INCLUDE_DIR}"
  FILES "${COWIRE_INCLUDE_DIR}/cowire/cowire.hpp")
set_target_properties(cowire_all PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
if(NOT COWIRE_INSTALL)
  return()
endif()

install(TARGETS ${cowire_modules} EXPORT cowire_targets
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(TARGETS cowire_asio EXPORT cowire_targets)
install(TARGETS cowire_all EXPORT cowire_targets FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
if(COWIRE_BUILD_C)
  install(TARGETS cowire_c EXPORT cowire_targets LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
  install(FILES "${PROJECT_SOURCE_DIR}/c/cowire.h" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
endif()
if(COWIRE_BUILD_CLI)
  install(TARGETS cowire_cli RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
  install(FILES "${PROJECT_SOURCE_DIR}/cli/completion.bash"
    DESTINATION "${CMAKE_INSTALL_DATADIR}/bash-completion/completions" RENAME cowire)
endif()

set(cowire_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/cowire")
install(EXPORT cowire_targets NAMESPACE cowire:: DESTINATION "${cowire_package_dir}")
configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/cowire-config.cmake.in"
  "${PROJECT_BINARY_DIR}/cowire-config.cmake" INSTALL_DESTINATION "${cowire_package_dir}")
# Before 1.0 a minor version may break its users.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/cowire-config-version.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/cowire-config.cmake" "${PROJECT_BINARY_DIR}/cowire-config-version.cmake"
  DESTINATION "${cowire_package_dir}")

# cowire.pc says in its own words what the exported targets say; all of it is taken from them.
set(cowire_pc_libs "")
foreach(module IN LISTS cowire_modules)
  get_target_property(type ${module} TYPE)
  if(type STREQUAL "STATIC_LIBRARY")
    string(PREPEND cowire_pc_libs "-l${module} ")  # Users before what they use.
  endif()
endforeach()
get_target_property(cowire_pc_definitions cowire_asio INTERFACE_COMPILE_DEFINITIONS)
list(FILTER cowire_pc_definitions EXCLUDE REGEX "^\\$<")
list(TRANSFORM cowire_pc_definitions PREPEND "-D")
list(JOIN cowire_pc_definitions " " cowire_pc_definitions)
list(JOIN COWIRE_PKG_CONFIG_REQUIREMENTS ", " cowire_pc_requirements)
string(REPLACE ">=" " >= " cowire_pc_requirements "${cowire_pc_requirements}")
cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig"
  OUTPUT_VARIABLE cowire_pc_prefix)
configure_file("${CMAKE_CURRENT_LIST_DIR}/cowire.pc.in" "${PROJECT_BINARY_DIR}/cowire.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/cowire.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

if(COWIRE_BUILD_C)
  configure_file("${CMAKE_CURRENT_LIST_DIR}/cowire-c.pc.in" "${PROJECT_BINARY_DIR}/cowire-c.pc" @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/cowire-c.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
endif()

# SPDX-License-Identifier: Apache-2.0
# Peers that may be missing: liburcu (package liburcu-dev) for epoch, DPDK's rte_fib (libdpdk-dev) for lpm.
pkg_check_modules(liburcu_qsbr IMPORTED_TARGET liburcu-qsbr)
pkg_check_modules(libdpdk IMPORTED_TARGET libdpdk)

cowire_bench(lpm SOURCES lpm_bench.cpp DEPENDS cowire::route)
if(libdpdk_FOUND)
  target_sources(bench_lpm PRIVATE lpm_bench_dpdk.cpp)
  set_source_files_properties(lpm_bench_dpdk.cpp PROPERTIES
    COMPILE_DEFINITIONS ALLOW_EXPERIMENTAL_API
    COMPILE_OPTIONS "-mssse3;-Wno-pedantic;-Wno-old-style-cast")
  target_link_libraries(bench_lpm PRIVATE PkgConfig::libdpdk)
  target_compile_definitions(bench_lpm PRIVATE COWIRE_BENCH_DPDK=1)
endif()

cowire_bench(output_rules SOURCES output_rules_bench.cpp DEPENDS cowire::route)
cowire_bench(convergence SOURCES convergence_bench.cpp DEPENDS cowire::route)

cowire_bench(epoch SOURCES epoch_bench.cpp DEPENDS cowire::route)
if(liburcu_qsbr_FOUND)
  target_link_libraries(bench_epoch PRIVATE PkgConfig::liburcu_qsbr)
  target_compile_definitions(bench_epoch PRIVATE COWIRE_BENCH_URCU=1)
endif()

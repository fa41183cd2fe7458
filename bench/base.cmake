# SPDX-License-Identifier: Apache-2.0
# Boost (libboost-dev) is only a peer to compare with.
find_path(COWIRE_BOOST_INCLUDE_DIR boost/lockfree/spsc_queue.hpp)

cowire_bench(spsc SOURCES spsc_bench.cpp DEPENDS cowire::base)
if(COWIRE_BOOST_INCLUDE_DIR)
  target_include_directories(bench_spsc SYSTEM PRIVATE "${COWIRE_BOOST_INCLUDE_DIR}")
  target_compile_definitions(bench_spsc PRIVATE COWIRE_BENCH_BOOST=1)
endif()

cowire_bench(checksum SOURCES checksum_bench.cpp DEPENDS cowire::base)

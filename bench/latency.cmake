# SPDX-License-Identifier: Apache-2.0
find_package(GTest REQUIRED)  # The namespaces of the tests need its header.
cowire_bench(latency SOURCES latency_bench.cpp DEPENDS cowire::async GTest::gtest)

# SPDX-License-Identifier: Apache-2.0
find_package(GTest REQUIRED)  # The namespaces of the tests need its header.
cowire_bench(follow SOURCES follow_bench.cpp DEPENDS cowire::async GTest::gtest)
cowire_bench(path_change SOURCES path_change_bench.cpp DEPENDS cowire::async GTest::gtest)

# SPDX-License-Identifier: Apache-2.0
cowire_bench(latency SOURCES latency_bench.cpp DEPENDS cowire::async)

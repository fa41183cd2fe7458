# SPDX-License-Identifier: Apache-2.0
cowire_bench(tx SOURCES tx_bench.cpp DEPENDS cowire::xdp)

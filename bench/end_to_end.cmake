# SPDX-License-Identifier: Apache-2.0
cowire_bench(end_to_end SOURCES end_to_end_bench.cpp DEPENDS cowire::xdp PkgConfig::libbpf)

// SPDX-License-Identifier: Apache-2.0
/// What every contender of lpm_bench implements, at the cost of one virtual call for all of them.
#pragma once

#include "bench/route_table.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace cowire::bench {

class lookup_table {
 public:
  virtual ~lookup_table() = default;
  virtual void lookup_batch(const std::uint32_t* keys, std::uint32_t* values,
                            std::size_t count) = 0;
  virtual std::uint32_t lookup(std::uint32_t key) = 0;
  virtual std::size_t bytes() = 0;
};

/// DPDK's rte_fib as DIR24_8 with 4-byte next hops; only where DPDK was found.
std::unique_ptr<lookup_table> make_rte_fib(const std::vector<table_route>& table);
/// DPDK's rte_lpm. Adding a rule walks all rules of its length: for small tables only.
std::unique_ptr<lookup_table> make_rte_lpm(const std::vector<table_route>& table);

}  // namespace cowire::bench

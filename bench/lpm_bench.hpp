// SPDX-License-Identifier: Apache-2.0
/// What every contender of lpm_bench implements, at the cost of one virtual call for all of them.
#pragma once

#include "bench/route_table.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
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

/// An IPv6 address as it lies in a packet.
using raw_address6 = std::array<std::uint8_t, 16>;

[[nodiscard]] inline raw_address6 raw_address(std::uint64_t first_64_bits) noexcept {
  raw_address6 raw{};
  const std::uint64_t swapped = __builtin_bswap64(first_64_bits);
  std::memcpy(raw.data(), &swapped, sizeof swapped);
  return raw;
}

class lookup_table6 {
 public:
  virtual ~lookup_table6() = default;
  /// At most 64.
  virtual void lookup_batch(const raw_address6* keys, std::uint32_t* values, std::size_t count) = 0;
};

/// DPDK's rte_fib6 as a trie with 4-byte next hops; `wide`: with AVX-512, null where it has none.
std::unique_ptr<lookup_table6> make_rte_fib6(const std::vector<table_route6>& table, bool wide);
/// DPDK's rte_fib as DIR24_8 with 4-byte next hops; only where DPDK was found.
std::unique_ptr<lookup_table> make_rte_fib(const std::vector<table_route>& table);
/// DPDK's rte_lpm. Adding a rule walks all rules of its length: for small tables only.
std::unique_ptr<lookup_table> make_rte_lpm(const std::vector<table_route>& table);

}  // namespace cowire::bench

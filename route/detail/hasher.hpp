// SPDX-License-Identifier: Apache-2.0
/// Mixes numbers into one, for hash tables: of no use against somebody who chooses the numbers to
/// collide.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/netlink/message.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace cowire::detail {

class hasher {
 public:
  void add(std::uint64_t value) noexcept {
    state_ = (state_ ^ value) * 0x9e3779b97f4a7c15u;
    state_ ^= state_ >> 29;
  }
  void add(const std::optional<ip_address>& address) noexcept {
    add(address ? std::hash<ip_address>{}(*address) : 1);
  }
  [[nodiscard]] std::size_t result() const noexcept { return state_; }

 private:
  std::uint64_t state_ = 0;
};

/// What tells most routes apart: metric, next hops, preferred source.
inline void add_ways(hasher& to, const netlink::route& route) noexcept {
  to.add(std::uint64_t{route.priority} << 32 | route.nexthop_id);
  to.add(route.preferred_source);
  for (const netlink::next_hop& hop : route.next_hops) {
    to.add(std::uint64_t{hop.index} << 32 | hop.weight << 8 | hop.flags);
    to.add(hop.gateway);
  }
}

}  // namespace cowire::detail

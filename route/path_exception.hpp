// SPDX-License-Identifier: Apache-2.0
/// What the kernel has learned about the way to one destination beyond its routes: a path MTU, a
/// redirect. In the kernel an exception belongs to the next hop that the datagram took (IPv4
/// fib_nh_exception in net/ipv4/route.c, IPv6 rt6_exception in net/ipv6/route.c); no notification
/// tells of it, only the answer to RTM_GETROUTE about that very destination.
///
/// A path MTU is applied to whichever next hop: where it does not hold it only leaves more to the
/// kernel. A redirect is applied to the next hop alone of which the kernel has said so; where it
/// has not been asked about the one that a decision leads to, the decision is left to it.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/netlink/message.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

namespace cowire {

/// The next hop that exceptions hang on, as the routes name it. Two routes share one where the
/// kernel has them share it: IPv4 routes that differ in nothing but destination and TOS (fib_info),
/// and those over one nexthop object.
struct exception_owner {
  netlink::route route;          ///< Without what does not count; empty for a nexthop object.
  std::uint32_t nexthop_id = 0;  ///< The object itself, not a group that it is in. 0 = none.
  std::uint32_t interface_index = 0;
  std::optional<ip_address> gateway;
  friend bool operator==(const exception_owner&, const exception_owner&) = default;
};

struct path_exception {
  struct answer {
    exception_owner owner;
    bool redirected = false;
    std::optional<ip_address> gateway;  ///< If redirected; unset = the destination is on-link.
    friend bool operator==(const answer&, const answer&) = default;
  };

  std::uint32_t mtu = 0;    ///< 0 = none learned.
  bool mtu_locked = false;  ///< Below net.ipv4.route.min_pmtu: the kernel sends without DF.
  /// Some next hop is redirected; then decisions over one that `answers` does not have divert.
  bool redirected = false;
  /// A redirect may have ended or changed; all decisions divert until the kernel was asked.
  bool doubtful = false;
  std::vector<answer> answers;
  std::chrono::steady_clock::time_point expires = std::chrono::steady_clock::time_point::max();
  friend bool operator==(const path_exception&, const path_exception&) = default;
};

}  // namespace cowire

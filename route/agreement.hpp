// SPDX-License-Identifier: Apache-2.0
/// Whether the kernel, asked the same, answers as resolve() does: the one definition of "they
/// agree", for the truth audit, `cowire route show` and the tests.
///
/// The kernel's answer does not show everything, and some of what it shows is of another route:
/// IPv4 tells the table only once rules are configured, an answer over a nexthop object is cached
/// per object (with the type, the metrics and the IPv6 table of whichever route was asked first),
/// and which member of several it takes may be secret. That is left out here, nothing else.
///
/// Pure functions: data in, verdict out. Any thread, as long as nobody changes the mirror.
#pragma once

#include <cowire/netlink/request.hpp>
#include <cowire/netlink/request_socket.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/resolve.hpp>

#include <cstdint>
#include <string>

namespace cowire {

/// The same question to the kernel as `asked` is to resolve() with route_question::get_route.
[[nodiscard]] netlink::route_query query_of(const flow& asked);

struct agreement {
  std::string path;  ///< In what all but the MTU differs, for people; "" = in nothing.
  bool same_mtu = true;
  /// Of the whole path, in bytes; over the device that the kernel's answer names.
  std::uint32_t mtu = 0, kernel_mtu = 0;

  [[nodiscard]] bool agrees() const noexcept { return path.empty() && same_mtu; }
  /// Everything that differs, for people and logs; "" = agrees().
  [[nodiscard]] std::string text() const;
};

/// Our answer beside the kernel's to query_of(asked). A path MTU of ours that was learnt from the
/// network may be smaller: it only leaves longer datagrams to the kernel.
[[nodiscard]] agreement compare_answers(const mirror& state, const flow& asked,
                                        const resolution& ours,
                                        const netlink::route_answer& kernel);

/// Beside the kernel's answer to the same question with `fib_match`: in what the matched route
/// differs, for people; "" = in nothing.
[[nodiscard]] std::string match_disagreement(const mirror& state, const flow& asked,
                                             const resolution& ours,
                                             const netlink::route_answer& kernel);

/// Whether the answer to `fib_match` tells of the route that was matched. Over an IPv6 nexthop
/// object it tells of whichever route filled its cache.
[[nodiscard]] bool match_is_told(const resolution& ours) noexcept;

/// Whether nobody is to ask the kernel about this datagram: it decides whatever we know, or it is
/// to a group. A question about an IPv4 group is remembered with the next hop, and may give other
/// programs' unicast datagrams the TTL of multicast (rt_cache_route() in net/ipv4/route.c caches
/// one answer for all routes that share a fib_info; seen on 6.1, 6.18 and 7.3).
[[nodiscard]] bool is_left_to_kernel(const resolution& ours) noexcept;

/// Whether the neighbour that the datagram would go to has no link-layer address, as far as is
/// known. Then the kernel sends it; and what that does to the choice of a member (INCOMPLETE
/// neighbours are passed over, net/ipv4/fib_semantics.c) it tells nobody.
[[nodiscard]] bool next_hop_is_unresolved(const mirror& state, const flow& asked,
                                          const resolution& ours);

/// The member that the kernel's answer names; null = it is none that ours may take.
[[nodiscard]] const path_member* member_of(const resolution& ours, const netlink::next_hop& hop);

}  // namespace cowire

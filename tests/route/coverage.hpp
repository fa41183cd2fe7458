// SPDX-License-Identifier: Apache-2.0
/// What random worlds have to offer for their comparison to mean something, and what was seen.
#pragma once

#include "frame_oracle.hpp"
#include "group_oracle.hpp"
#include "inventor.hpp"

#include <cowire/netlink/request_socket.hpp>
#include <cowire/route/resolve.hpp>

#include <cstddef>
#include <map>
#include <string>

namespace cowire::testing {

struct coverage {
  std::size_t members_v4 = 0, members_v6 = 0;  ///< The very member of a multipath route.
  std::size_t groups_v4 = 0, groups_v6 = 0;    ///< Over a nexthop object.
  std::size_t buckets_v4 = 0, buckets_v6 = 0;  ///< Over a resilient group.
  std::size_t source_specific = 0;
  std::size_t custom_tables = 0, rejected_v4 = 0, rejected_v6 = 0;
  std::size_t redirected_v4 = 0, redirected_v6 = 0;  ///< To another gateway than the route's.
  std::size_t path_mtus_v4 = 0, path_mtus_v6 = 0;
  // By sockets.
  std::size_t mapped = 0;        ///< A destination, to an AF_INET6 socket.
  std::size_t plain_v6 = 0;      ///< With or without a scope id that means nothing.
  std::size_t scoped = 0;        ///< With a scope id, from a socket that is not bound.
  std::size_t bound_scoped = 0;  ///< From one that is bound to that device.
  std::size_t bound = 0;         ///< Link-local, without one, from a socket that is bound.
  std::size_t unscoped = 0;      ///< And from one that is not.

  // To groups, by sockets that send.
  std::size_t group_frames_v4 = 0, group_frames_v6 = 0;  ///< That left.
  std::size_t copies_v4 = 0, copies_v6 = 0;              ///< That members here heard.
  std::size_t silenced = 0;                              ///< That they did not, for want of loop.

  // By published hops, beside sockets that send.
  std::size_t frames_v4 = 0, frames_v6 = 0;  ///< Frames that were compared.
  std::size_t by_xor = 0, by_lacp = 0;       ///< By a slave of such a bond.
  std::size_t by_other_slave = 0;            ///< By another one than the first, of all bonds.
  std::size_t in_tunnels = 0, over_vlan = 0, over_bond = 0, over_vrf = 0;  ///< And of those.

  /// An answer of ours that was compared with the kernel's.
  void count(const resolution& answer, const netlink::route_answer& kernel, bool v4);
  /// A question to a socket.
  void count_socket(const asked_flow& query);
  /// A datagram of which the frame was compared.
  void count_frame(const mirror& state, const frame_question& asked);
  /// A datagram to a group.
  void count_group(const group_oracle::answer& kernel, const flow& question);
  /// Whether nothing that worlds of this kind should have is missing.
  [[nodiscard]] bool complete(flavour kind) const;
  [[nodiscard]] std::string text() const;
};

struct tally {
  std::size_t worlds = 0, asked = 0;
  coverage seen;
  std::map<std::string, std::size_t> diverted[2];  ///< By view and reason.
  std::size_t looked_up = 0;                       ///< In what was published.
  std::map<std::string, std::size_t> compiled;     ///< By the reason of a hop that diverts.
  std::size_t given_up = 0;                  ///< Rounds in which the world moved while frames left.
  std::map<std::string, std::string> first;  ///< By reason: what a follower left first.
};

}  // namespace cowire::testing

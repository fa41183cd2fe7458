// SPDX-License-Identifier: Apache-2.0
/// From "datagrams over this device to this neighbour" to the bytes in front of a payload.
///
/// The one place that knows frame layouts and which devices the fast path can imitate.
///
/// The IPv6 flow label is 0: the kernel's automatic label is a keyed hash that nobody outside can
/// compute, and its value carries no meaning for the receiver. IPv4 datagrams have DF set and
/// identification 0 (RFC 6864).
#pragma once

#include <cowire/base/reason.hpp>
#include <cowire/route/forwarding_table.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/outer_flows.hpp>
#include <cowire/route/port_ranges.hpp>
#include <cowire/route/restrictions.hpp>

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace cowire::detail {

/// What identifies a hop whatever its MAC address, device state or socket: its bytes may change,
/// this does not.
struct hop_key {
  std::uint32_t interface_index = 0;  ///< The route's output device.
  ip_family family = ip_family::v4;   ///< Of the datagram; the next hop's may differ.
  std::optional<ip_address>
      next_hop;            ///< Gateway or destination; unset: any of many on-link destinations.
  bool multicast = false;  ///< To groups; where next_hop is unset, at the MAC address of each.
  ip_address source;
  std::uint8_t tos = 0, hop_limit = 0;
  std::uint32_t route_mtu = 0;  ///< 0 = the device's.
  bool needs_identification = false;
  bool outside_prefixes = false;  ///< The user keeps tunnels from this destination.
  bool tracked = false;           ///< Leaves only while connection tracking has an entry,
  std::optional<port_filter> untracked_ports{};  ///< but what goes to these ports.
  bool outer_tracked = false;                    ///< Where `tracked`: and for its outer headers.
  /// Why ports that `ports` does not pass are diverted; unset: none is for that.
  std::optional<divert_reason> closed_because{};
  port_filter ports{};
  friend auto operator<=>(const hop_key&, const hop_key&) = default;
};

using egress_slots = std::map<std::uint32_t, egress_slot>;

/// What serves the datagrams of a hop_key: one hop, or one for each slave of a bond that a rule
/// chooses from by what differs between them.
struct built_hop {
  hop only;                 ///< Where `slaves` is empty.
  std::vector<hop> slaves;  ///< At least two.
  slave_rule rule;
  /// Of a hop that diverts as neighbour_unresolved: which neighbour.
  std::optional<neighbour_key> unresolved{};

  built_hop(const hop& one) : only(one) {}
  built_hop(std::vector<hop> several, const slave_rule& by)
      : only(several.front()), slaves(std::move(several)), rule(by) {}
  /// The hop of one datagram.
  [[nodiscard]] const hop& of(const slave_terms& terms) const noexcept {
    return slaves.empty() ? only : slaves[rule.hash(terms) % slaves.size()];
  }
};

/// What keeps tunnels from the fast path although it could serve them; null = nothing does.
struct tunnel_limits {
  const std::set<ip_prefix>* quarantined = nullptr;  ///< No tunnel to a remote address in these.
  const route_restrictions* restrictions = nullptr;
  outer_flows* numbers = nullptr;  ///< Of outer headers that are tracked.
};

/// As the mirror and the sockets are now; a divert hop where the fast path cannot serve it. The
/// device `gone` (ifindex, 0 = none) is taken for one that is not there any more.
[[nodiscard]] built_hop build_hop(const mirror& state, const egress_slots& slots,
                                  const hop_key& key, const tunnel_limits& limits = {},
                                  std::uint32_t gone = 0);
[[nodiscard]] hop divert_hop(divert_reason reason) noexcept;
/// Whether a hop over this device depends on the state of no other one.
[[nodiscard]] bool leaves_by_itself(const mirror& state, std::uint32_t index) noexcept;

}  // namespace cowire::detail

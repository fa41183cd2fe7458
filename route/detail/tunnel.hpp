// SPDX-License-Identifier: Apache-2.0
/// From a tunnel device to what gre/ builds its headers from, and to the route of its outer
/// datagrams.
#pragma once

#include <cowire/base/reason.hpp>
#include <cowire/gre/tunnel.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/mirror.hpp>

#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>
#include <vector>

namespace cowire::detail {

/// Whether a device of this kind puts packets into others.
[[nodiscard]] bool is_tunnel_kind(std::string_view kind) noexcept;

/// Whether datagrams through this device need no neighbour: a tunnel that carries IP packets to one
/// remote address.
[[nodiscard]] bool is_point_to_point_tunnel(const netlink::link& link) noexcept;

/// What the outer header of a tunnel's datagrams names as its payload: of a packet of this family.
[[nodiscard]] std::uint8_t outer_protocol_of(const netlink::link& link, ip_family carried) noexcept;

/// The parameters of a tunnel that the fast path can build, or why it cannot.
[[nodiscard]] std::variant<gre::tunnel, divert_reason> tunnel_of(const netlink::link& link);

/// Where a tunnel's outer datagrams go.
struct underlay {
  std::uint32_t interface_index = 0;
  ip_address next_hop;
  ip_address source;
  std::uint32_t mtu = 0;  ///< Of the outer route; the device may have a smaller one.
};

/// What the tunnel driver asks with: the tunnel's mark, bound device and addresses, for uid 0.
/// `packet` is what the tunnel carries. Unset: its local address is not this host's.
[[nodiscard]] std::optional<flow> outer_flow_of(const mirror& state, const netlink::link& link,
                                                const gre::tunnel& through,
                                                const gre::inner_packet& packet);

/// As the tunnel driver looks it up. `tables` are those that rules may lead to; null = all.
[[nodiscard]] std::variant<underlay, divert_reason> underlay_of(
    const mirror& state, const netlink::link& link, const gre::tunnel& through,
    const gre::inner_packet& packet, const std::vector<std::uint32_t>* tables = nullptr);

}  // namespace cowire::detail

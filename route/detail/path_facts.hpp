// SPDX-License-Identifier: Apache-2.0
/// What a decision and its output device say about the datagram itself: largest size, TTL,
/// fragmentation.
#pragma once

#include <cowire/route/detail/decision.hpp>
#include <cowire/route/detail/header_template.hpp>

#include <cstdint>
#include <optional>

namespace cowire::detail {

struct path_facts {
  std::uint32_t mtu = 0;  ///< Effective, the device's included.
  std::uint32_t route_mtu =
      0;  ///< Route metric or learned path MTU; 0 = the device's alone counts.
  std::uint8_t hop_limit = 0;
  bool needs_identification =
      false;  ///< DF would be off: the kernel chooses the IP identification.
};

[[nodiscard]] path_facts path_facts_of(const mirror& state, const decision& decided,
                                       std::uint32_t interface_index, const ip_prefix& region,
                                       const flow_class& cls);

/// Where datagrams to a group go on Ethernet (RFC 1112, 6.4; RFC 2464, 7).
[[nodiscard]] mac_address group_mac(const ip_address& group) noexcept;
/// Whether a neighbour entry of a group says just that, as those that the kernel makes without a
/// word; others, an administrator's, count.
[[nodiscard]] bool is_groups_own(const netlink::neighbour& entry) noexcept;
/// Whether that is where datagrams to `destination` go: it is a group, and no neighbour entry says
/// something else.
[[nodiscard]] bool has_group_mac(const mirror& state, std::uint32_t index,
                                 const ip_address& destination) noexcept;

/// The hop that carries `member`'s share of a decision without error or divert; unset where it has
/// no source address.
[[nodiscard]] std::optional<hop_key> hop_key_of(const mirror& state, const decision& decided,
                                                const path_member& member, const flow_class& cls,
                                                const ip_prefix& region);

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// Which device's AF_XDP socket frames for another device leave by.
#pragma once

#include <cowire/base/reason.hpp>
#include <cowire/netlink/message.hpp>
#include <cowire/route/mirror.hpp>

#include <cstdint>
#include <optional>

namespace cowire {

/// Where frames for a device really leave.
struct egress_choice {
  std::optional<divert_reason> divert;
  std::uint32_t interface_index = 0;  ///< The device whose AF_XDP socket sends.
  std::optional<netlink::vlan_info> tag;
};

/// Ethernet devices serve themselves, a VLAN device is a tag on the device below, a macvlan that
/// does not bridge is another address on it, an active-backup bond is its active slave. Everything
/// else is diverted, tunnels too: their outer datagrams have a route and an egress of their own.
[[nodiscard]] egress_choice egress_of(const mirror& state, std::uint32_t interface_index);

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// Which device's AF_XDP socket frames for another device leave by.
#pragma once

#include <cowire/base/reason.hpp>
#include <cowire/netlink/message.hpp>
#include <cowire/route/mirror.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace cowire {

/// Where frames for a device really leave.
struct egress_choice {
  std::optional<divert_reason> divert;
  std::uint32_t interface_index = 0;  ///< The device whose AF_XDP socket sends, or such a bond.
  std::optional<netlink::vlan_info> tag;
  /// Of a bond that hashes frames: the slaves among which it chooses (detail/bond.hpp).
  std::vector<std::uint32_t> slaves;
  /// Before such a bond the kernel may have hashed the packet, with a secret, for a queueing
  /// discipline or for one of several transmit queues, and kept that hash.
  bool hashed = false;

  /// The devices one of which sends. Of this object's lifetime.
  [[nodiscard]] std::span<const std::uint32_t> senders() const noexcept {
    if (slaves.empty()) return {&interface_index, 1};
    return slaves;
  }
};

/// Whether a device is a bond that chooses among its slaves by a hash of the frame (balance-xor,
/// 802.3ad).
[[nodiscard]] bool hashes_frames(const netlink::link& link) noexcept;

/// Ethernet devices serve themselves, a VLAN device is a tag on the device below, a macvlan that
/// does not bridge is another address on it, a bond is one of its slaves. Everything else is
/// diverted, tunnels too: their outer datagrams have a route and an egress of their own.
[[nodiscard]] egress_choice egress_of(const mirror& state, std::uint32_t interface_index);

}  // namespace cowire

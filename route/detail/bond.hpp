// SPDX-License-Identifier: Apache-2.0
/// Which slave of a bond the kernel gives a frame to, where that is arithmetic on the frame.
///
/// In the modes balance-xor and 802.3ad it is usable[H(frame) % usable.size()]: the slaves that can
/// transmit in the order of enslaving, and a hash of the frame's first bytes without any seed.
///
/// Source: drivers/net/bonding/bond_main.c (bond_xmit_hash, bond_update_slave_arr,
/// bond_slave_can_tx), alike from 6.1 to 7.3.
#pragma once

#include <cowire/base/reason.hpp>
#include <cowire/route/forwarding_table.hpp>
#include <cowire/route/mirror.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

namespace cowire::detail {

/// The slaves (ifindex) that carry frames now, of a bond for which hashes_frames() holds; never
/// none.
[[nodiscard]] std::variant<divert_reason, std::vector<std::uint32_t>> usable_slaves(
    const mirror& state, const mirror::device& bond);

/// A frame without its VLAN tag, which the kernel hands over beside it, and what its datagram is.
struct bond_frame {
  std::span<const std::byte> bytes;  ///< From the Ethernet header on, all headers.
  std::uint16_t tag = 0;             ///< The VLAN tag's 16 bits, 0 = none.
  bool tunnelled = false;  ///< The datagram is not what the Ethernet header is followed by.
  bool to_group = false;   ///< The last bytes of the destination's MAC address are the group's: 0.
  bool hashed = false;     ///< egress_choice::hashed.
  ip_address source;       ///< Of the datagram; destination and ports are not known yet.
};

/// How the slave follows from a datagram's destination and ports, or which one it is: a rule that
/// looks at nothing.
[[nodiscard]] std::variant<divert_reason, slave_rule> slave_rule_of(std::uint8_t policy,
                                                                    const bond_frame& frame);

}  // namespace cowire::detail

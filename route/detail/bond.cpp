// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/header_size.hpp>
#include <cowire/route/detail/bond.hpp>
#include <cowire/route/detail/cover.hpp>
#include <cowire/route/egress_choice.hpp>

#include <linux/if_bonding.h>
#include <linux/if_ether.h>

namespace cowire {

bool hashes_frames(const netlink::link& link) noexcept {
  const auto* bond = std::get_if<netlink::bond_info>(&link.info);
  return bond != nullptr && (bond->mode == BOND_MODE_XOR || bond->mode == BOND_MODE_8023AD);
}

namespace detail {
namespace {

std::uint32_t byte_at(std::span<const std::byte> bytes, std::size_t at) noexcept {
  return std::to_integer<std::uint32_t>(bytes[at]);
}
std::uint32_t big_endian_24(std::span<const std::byte> bytes, std::size_t at) noexcept {
  return byte_at(bytes, at) << 16 | byte_at(bytes, at + 1) << 8 | byte_at(bytes, at + 2);
}

std::uint32_t ethertype_of(std::span<const std::byte> frame) noexcept {
  return byte_at(frame, 12) << 8 | byte_at(frame, 13);
}
/// drivers/net/bonding/bond_main.c, bond_eth_hash: last bytes of both addresses, and the type.
std::uint32_t ethernet_hash(std::span<const std::byte> frame) noexcept {
  return byte_at(frame, 5) ^ byte_at(frame, 11) ^ ethertype_of(frame);
}
/// drivers/net/bonding/bond_main.c, bond_vlan_srcmac_hash.
std::uint32_t vlan_source_hash(const bond_frame& frame) noexcept {
  return frame.tag ^ big_endian_24(frame.bytes, 6) ^ big_endian_24(frame.bytes, 9);
}

/// Both addresses of the first IP header.
std::uint32_t outer_addresses(std::span<const std::byte> frame) noexcept {
  const bool v6 = ethertype_of(frame) == ETH_P_IPV6;
  const std::size_t size = v6 ? 16 : 4;
  const auto first = frame.subspan(header_size::ethernet + (v6 ? 8 : 12));
  return fold_address(first.first(size)) ^ fold_address(first.subspan(size, size));
}

/// bond_slave_can_tx, and for 802.3ad what bond_update_slave_arr asks besides
/// (drivers/net/bonding/bond_main.c).
bool can_transmit(const mirror::device& slave, const netlink::bond_info& bond) {
  if (!slave.up() || !has_carrier(slave.link) || !slave.link.bond_slave) return false;
  const netlink::bond_slave_info& port = *slave.link.bond_slave;
  return port.mii_status == 0 && port.state == 0 &&
         (bond.mode != BOND_MODE_8023AD || port.aggregator_id == bond.aggregator_id);
}

}  // namespace

std::variant<divert_reason, std::vector<std::uint32_t>> usable_slaves(const mirror& state,
                                                                      const mirror::device& bond) {
  if (!bond.slaves) return divert_reason::bond_unsettled;
  std::vector<std::uint32_t> usable;
  for (const std::uint32_t index : *bond.slaves) {
    const mirror::device* slave = state.find_device(index);
    if (slave == nullptr) return divert_reason::bond_unsettled;
    if (can_transmit(*slave, std::get<netlink::bond_info>(bond.link.info))) usable.push_back(index);
  }
  if (usable.empty()) return divert_reason::egress_down;
  return usable;
}

std::variant<divert_reason, slave_rule> slave_rule_of(std::uint8_t policy,
                                                      const bond_frame& frame) {
  const std::uint32_t ethernet = ethernet_hash(frame.bytes);
  switch (policy) {
    case BOND_XMIT_POLICY_LAYER2:
      return slave_rule{.constant = ethernet, .by_last_byte = frame.to_group};
    case BOND_XMIT_POLICY_VLAN_SRCMAC:
      return slave_rule{.constant = vlan_source_hash(frame)};
    case BOND_XMIT_POLICY_LAYER23:
      if (frame.tunnelled)
        return slave_rule{.constant = ethernet ^ outer_addresses(frame.bytes), .mixed = true};
      [[fallthrough]];
    case BOND_XMIT_POLICY_ENCAP23:  // The innermost addresses are the datagram's.
      return slave_rule{.constant = ethernet ^ fold_address(frame.source),
                        .mixed = true,
                        .by_destination = true,
                        .by_last_byte = frame.to_group};
    case BOND_XMIT_POLICY_LAYER34:
      // The protocols of tunnels have no ports.
      if (frame.tunnelled)
        return slave_rule{
            .constant = outer_addresses(frame.bytes), .mixed = true, .without_lowest_bit = true};
      break;
    case BOND_XMIT_POLICY_ENCAP34:
      // Where the frame has a hash already, that is taken: what came through a tunnel, IPv6 with
      // its automatic flow label, and what was hashed on its way here. It is made with a secret.
      if (frame.tunnelled || !frame.source.is_v4() || frame.hashed)
        return divert_reason::bond_policy;
      break;
    default:
      return divert_reason::bond_policy;
  }
  return slave_rule{.constant = fold_address(frame.source),
                    .mixed = true,
                    .by_destination = true,
                    .by_ports = true,
                    .without_lowest_bit = true};
}

}  // namespace detail
}  // namespace cowire

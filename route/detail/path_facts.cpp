// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/path_facts.hpp>
#include <cowire/route/detail/tunnel.hpp>

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <algorithm>

namespace cowire::detail {

path_facts path_facts_of(const mirror& state, const decision& decided,
                         std::uint32_t interface_index, const ip_prefix& region,
                         const flow_class& cls) {
  const mirror_settings& settings = state.settings();
  const bool v4 = region.family() == ip_family::v4;
  const bool multicast = decided.type == RTN_MULTICAST;
  // Of a short route IPv4 takes nothing but the device (__mkroute_output in net/ipv4/route.c).
  const bool has_metrics =
      decided.entry != nullptr && !(multicast && v4 && decided.matched.length() < 4);
  const netlink::route_metrics metrics =
      has_metrics ? decided.entry->route.metrics : netlink::route_metrics{};
  path_facts facts;
  const mirror::device* device = state.find_device(interface_index);
  const std::uint32_t device_mtu = device != nullptr ? device->link.mtu : 0;
  facts.route_mtu = metrics.mtu;
  const auto own_mtu = settings.device_mtus_v6.find(interface_index);
  if (!v4 && metrics.mtu == 0 && own_mtu != settings.device_mtus_v6.end())
    facts.route_mtu = own_mtu->second;
  facts.mtu = std::min<std::uint32_t>(facts.route_mtu != 0 ? facts.route_mtu : device_mtu, 0xffff);
  const path_exception* const known =
      region.is_host() ? state.find_path_exception(region.address()) : nullptr;
  if (known != nullptr && known->mtu != 0) {
    facts.route_mtu = facts.route_mtu != 0 ? std::min(facts.route_mtu, known->mtu) : known->mtu;
    // It may have been learned by another next hop, over a device that takes more.
    facts.mtu = std::min(facts.mtu, known->mtu);
  }

  if (multicast) {
    facts.hop_limit = cls.multicast_ttl;
  } else if (cls.ttl != 0) {
    facts.hop_limit = cls.ttl;
  } else if (metrics.hop_limit != 0) {
    facts.hop_limit = static_cast<std::uint8_t>(metrics.hop_limit);
  } else if (v4) {
    facts.hop_limit = settings.ipv4_default_ttl;
  } else {
    const auto own = settings.device_hop_limits.find(interface_index);
    facts.hop_limit =
        own != settings.device_hop_limits.end() ? own->second : settings.ipv6_hop_limit;
  }
  const bool locked =
      (metrics.lock & 1u << RTAX_MTU) != 0 || (known != nullptr && known->mtu_locked);
  facts.needs_identification = v4 && (locked || settings.no_path_mtu_discovery);
  return facts;
}

std::optional<hop_key> hop_key_of(const mirror& state, const decision& decided,
                                  const path_member& member, const flow_class& cls,
                                  const ip_prefix& region) {
  if (!member.source) return std::nullopt;
  const path_facts facts = path_facts_of(state, decided, member.interface_index, region, cls);
  hop_key key;
  key.interface_index = member.interface_index;
  key.family = region.family();
  const mirror::device* device = state.find_device(member.interface_index);
  if (device != nullptr && is_point_to_point_tunnel(device->link))
    key.next_hop = std::nullopt;  // All destinations through it are one hop.
  else if (member.gateway)
    key.next_hop = member.gateway;
  else if (region.is_host() && !has_group_mac(state, member.interface_index, region.address()))
    key.next_hop = region.address();
  key.multicast = decided.type == RTN_MULTICAST;
  key.source = *member.source;
  key.tos = cls.tos;
  key.hop_limit = facts.hop_limit;
  key.route_mtu = facts.route_mtu;
  key.needs_identification = facts.needs_identification;
  return key;
}

mac_address group_mac(const ip_address& group) noexcept {
  const auto& bytes = group.bytes();
  if (group.is_v4())
    return {{0x01, 0x00, 0x5e, static_cast<std::uint8_t>(bytes[1] & 0x7f), bytes[2], bytes[3]}};
  return {{0x33, 0x33, bytes[12], bytes[13], bytes[14], bytes[15]}};
}

bool has_group_mac(const mirror& state, std::uint32_t index,
                   const ip_address& destination) noexcept {
  if (!destination.is_multicast()) return false;
  const netlink::neighbour* known = state.find_neighbour(index, destination);
  return known == nullptr || is_groups_own(*known);
}

bool is_groups_own(const netlink::neighbour& entry) noexcept {
  return (entry.state & NUD_NOARP) != 0 &&
         std::ranges::equal(entry.link_address, group_mac(entry.destination).bytes);
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/gre_flag.hpp>
#include <cowire/netlink/tunnel_kind.hpp>
#include <cowire/route/detail/tunnel.hpp>
#include <cowire/route/detail/vrf.hpp>
#include <cowire/route/resolve_by_search.hpp>

#include <linux/if_tunnel.h>
#include <linux/ip6_tunnel.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <utility>

namespace cowire::detail {
namespace {

/// Those that netlink/tunnel_kind.hpp does not describe.
constexpr std::array<std::string_view, 7> other_tunnel_kinds = {
    "ip6erspan", "vxlan", "geneve", "wireguard", "xfrm", "vti", "vti6"};

// Recursion and strict-route bits, which the kernel copies into the header.
constexpr std::uint16_t gre_copied_bits = 0x0f00;
// Set by the kernel once local and remote allow it to transmit (include/net/ip6_tunnel.h).
constexpr std::uint32_t ip6_can_transmit = 0x10000;

gre::tunnel shape_of(const netlink::tunnel_kind& kind) {
  gre::tunnel shape;
  shape.outer = kind.outer;
  shape.ethernet = kind.ethernet;
  if (!kind.gre) shape.carries = gre::carrier::ip;
  if (kind.outer == ip_family::v6)
    shape.tos_by = kind.gre ? gre::tos_rule::flag_plain : gre::tos_rule::flag_ecn;
  else
    shape.tos_by = kind.name == "sit" ? gre::tos_rule::one_inherits : gre::tos_rule::odd_inherits;
  return shape;
}

}  // namespace

bool is_tunnel_kind(std::string_view kind) noexcept {
  return netlink::find_tunnel_kind(kind) != nullptr ||
         std::ranges::find(other_tunnel_kinds, kind) != other_tunnel_kinds.end();
}

std::uint8_t outer_protocol_of(const netlink::link& link, ip_family carried) noexcept {
  const auto* kind = netlink::find_tunnel_kind(link.kind);
  if (kind == nullptr || kind->gre) return IPPROTO_GRE;
  return carried == ip_family::v4 ? IPPROTO_IPIP : IPPROTO_IPV6;
}

bool is_point_to_point_tunnel(const netlink::link& link) noexcept {
  const auto* info = std::get_if<netlink::tunnel_info>(&link.info);
  const auto* kind = netlink::find_tunnel_kind(link.kind);
  return info != nullptr && kind != nullptr && !kind->ethernet && !info->remote.is_unspecified();
}

std::variant<gre::tunnel, divert_reason> tunnel_of(const netlink::link& link) {
  const auto* kind = netlink::find_tunnel_kind(link.kind);
  const auto* info = std::get_if<netlink::tunnel_info>(&link.info);
  if (kind == nullptr || !kind->whole || info == nullptr) return divert_reason::tunnel;
  if (info->collect_metadata) return divert_reason::tunnel_external;
  if (link.lower_in_other_namespace) return divert_reason::tunnel_namespace;
  if (info->encapsulation_type != TUNNEL_ENCAP_NONE) return divert_reason::tunnel_encapsulation;
  if (info->remote.is_unspecified() || info->remote.is_multicast())
    return divert_reason::tunnel_without_remote;

  gre::tunnel made = shape_of(*kind);
  if (made.carries == gre::carrier::ip) {
    const auto admits = [&](std::uint8_t protocol) {
      return info->protocol == 0 || info->protocol == protocol;
    };
    // sit hands IPv4 to the rules of ipip.
    made.carries_ipv4 = link.kind != "sit" && admits(IPPROTO_IPIP);
    made.carries_ipv6 = link.kind != "ipip" && admits(IPPROTO_IPV6);
  } else {
    if ((info->output_flags & gre_flag::sequence) != 0) return divert_reason::tunnel_sequence;
    if ((info->output_flags & gre_copied_bits) != 0) return divert_reason::tunnel;
    if ((info->output_flags & gre_flag::key) != 0) made.key = info->output_key;
    made.checksum = (info->output_flags & gre_flag::checksum) != 0;
  }
  made.ttl = info->ttl;
  made.tos = info->tos;
  made.pmtu_discovery = info->pmtu_discovery;
  made.ignore_df = info->ignore_df;
  if (made.outer == ip_family::v4) return made;
  if ((info->flags & ip6_can_transmit) == 0 || info->local.is_unspecified())
    return divert_reason::tunnel_underlay;
  // The sender's mark would steer the outer route.
  if ((info->flags & IP6_TNL_F_USE_ORIG_FWMARK) != 0) return divert_reason::tunnel;
  // IP6_TNL_F_USE_ORIG_FLOWLABEL changes nothing: inner labels are 0 (header_template.hpp).
  const std::uint32_t flow_info = info->flow_info.host();
  made.tos = static_cast<std::uint8_t>(flow_info >> 20);
  made.flow_label = flow_info & 0xfffff;
  made.inherits_traffic_class = (info->flags & IP6_TNL_F_USE_ORIG_TCLASS) != 0;
  if ((info->flags & IP6_TNL_F_IGN_ENCAP_LIMIT) == 0) made.encap_limit = info->encap_limit;
  return made;
}

std::optional<flow> outer_flow_of(const mirror& state, const netlink::link& link,
                                  const gre::tunnel& through, const gre::inner_packet& packet) {
  const auto& info = std::get<netlink::tunnel_info>(link.info);
  flow outer;
  outer.destination = info.remote;
  if (!info.local.is_unspecified()) {
    // IPv6 wants an address, of the VRF of the tunnel's device (ip6_tnl_xmit_ctl() in
    // net/ipv6/ip6_tunnel.c).
    const bool is_here = through.outer == ip_family::v4
                             ? state.is_local_address(info.local)
                             : has_address_v6(state, info.local, vrf_of(state, info.link));
    if (!is_here) return std::nullopt;
    (through.outer == ip_family::v4 ? outer.cls.source_v4 : outer.cls.source_v6) = info.local;
  }
  outer.cls.mark = info.fwmark;
  outer.cls.tos = gre::routing_tos(through, packet);
  outer.cls.output_interface = info.link;
  // IPv4 ones ask in the VRF for any of its devices (ip_tunnel_init_flow()).
  const std::uint32_t vrf = through.outer == ip_family::v4 ? vrf_above(state, info.link) : 0;
  if (vrf != 0) outer.cls.output_interface = vrf;
  outer.cls.ip_protocol = through.carries == gre::carrier::gre ? IPPROTO_GRE
                          : packet.family == ip_family::v4     ? IPPROTO_IPIP
                                                               : IPPROTO_IPV6;
  return outer;
}

namespace {

bool has_shares_of_its_own(const resolution& route) {
  std::vector<std::uint32_t> takers;
  for (const path_share& share : route.shares) takers.push_back(share.member);
  std::ranges::sort(takers);
  return takers.size() == route.members.size() &&
         std::ranges::adjacent_find(takers) == takers.end();
}

/// Whether all datagrams through the tunnel take the member that is chosen for the outer flow. Over
/// IPv4 the hash of the inner flow counts, which holds a secret of the boot (ip_tunnel_xmit() in
/// net/ipv4/ip_tunnel.c). Over IPv6 the outer flow alone is hashed (ip6_tnl_xmit() in
/// net/ipv6/ip6_tunnel.c), with its label, and its key in the place of ports. Unless the traffic
/// class is inherited the answer is kept per CPU: on a host (not a router), one from a moment when
/// a gateway had failed, too.
bool takes_one_member(const mirror& state, const gre::tunnel& through, const resolution& route) {
  constexpr std::uint8_t policy_of_ports = 1;
  return through.outer == ip_family::v6 && route.choice_known && route.route &&
         route.route->nexthop_id == 0 && has_shares_of_its_own(route) && through.flow_label == 0 &&
         !(through.key && state.settings().multipath_v6.policy == policy_of_ports) &&
         (through.inherits_traffic_class || state.forwarding(ip_family::v6));
}

}  // namespace

std::variant<underlay, divert_reason> underlay_of(const mirror& state, const netlink::link& link,
                                                  const gre::tunnel& through,
                                                  const gre::inner_packet& packet,
                                                  const std::vector<std::uint32_t>* tables) {
  const auto outer = outer_flow_of(state, link, through, packet);
  if (!outer) return divert_reason::tunnel_underlay;
  const resolution route = resolve_by_search(state, *outer, route_question::outer, tables);
  if (route.error != 0) return divert_reason::tunnel_underlay;
  if (route.divert) return *route.divert;
  if (route.mtu_locked) return divert_reason::needs_identification;
  if (route.shares.size() > 1 && !takes_one_member(state, through, route))
    return divert_reason::tunnel_multipath;
  const path_member& member = route.members.at(route.chosen);
  if (!member.source || member.interface_index == link.index) return divert_reason::tunnel_underlay;
  return underlay{member.interface_index, member.gateway.value_or(outer->destination),
                  *member.source, route.mtu};
}

}  // namespace cowire::detail

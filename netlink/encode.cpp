// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/detail/constants.hpp>
#include <cowire/netlink/detail/link_info.hpp>
#include <cowire/netlink/detail/message_builder.hpp>

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netconf.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

namespace cowire::netlink {
namespace {

using namespace detail;

std::uint8_t family_number(ip_family family) noexcept {
  return family == ip_family::v4 ? AF_INET : AF_INET6;
}

std::uint16_t type_for(action what, std::uint16_t addition, std::uint16_t removal) noexcept {
  return what == action::add ? addition : removal;
}

// Old one-byte table fields hold 252 (RT_TABLE_COMPAT) for what only the attribute can say.
std::uint8_t short_table(std::uint32_t table) noexcept {
  return table < 256 ? static_cast<std::uint8_t>(table) : std::uint8_t{RT_TABLE_COMPAT};
}

template <class T>
void put_if(message_builder& to, std::uint16_t type, const std::optional<T>& value) {
  if (value) to.put(type, *value);
}

// ---- links ------------------------------------------------------------------------------------

std::vector<std::byte> write(const link& from) {
  ifinfomsg header{};
  header.ifi_type = from.hardware_type;
  header.ifi_index = static_cast<int>(from.index);
  header.ifi_flags = from.flags;
  message_builder to(type_for(from.action, RTM_NEWLINK, RTM_DELLINK), 0, 0, header);
  put_if_set(to, IFLA_IFNAME, from.name);
  to.put(IFLA_MTU, from.mtu);
  to.put(IFLA_OPERSTATE, from.operational_state);
  to.put(IFLA_GROUP, from.group);
  to.put(IFLA_CARRIER, std::uint8_t{from.carrier});
  put_if_set(to, IFLA_MASTER, from.master);
  put_if_set(to, IFLA_LINK, from.lower);
  if (from.lower_in_other_namespace) to.put(IFLA_LINK_NETNSID, std::int32_t{0});
  put_if_set(to, IFLA_ADDRESS, from.address);
  put_if_set(to, IFLA_BROADCAST, from.broadcast);
  put_link_info(to, from);
  return std::move(to).finish();
}

// ---- addresses --------------------------------------------------------------------------------

std::vector<std::byte> write(const address& from) {
  ifaddrmsg header{};
  header.ifa_family = family_number(from.local.family());
  header.ifa_prefixlen = from.prefix_length;
  header.ifa_flags = static_cast<std::uint8_t>(from.flags);
  header.ifa_scope = from.scope;
  header.ifa_index = from.index;
  message_builder to(type_for(from.action, RTM_NEWADDR, RTM_DELADDR), 0, 0, header);
  to.put(IFA_ADDRESS, from.peer);
  to.put(IFA_LOCAL, from.local);
  put_if_set(to, IFA_LABEL, from.label);
  to.put(IFA_FLAGS, from.flags);
  to.put(IFA_CACHEINFO, ifa_cacheinfo{from.preferred_s, from.valid_s, 0, 0});
  return std::move(to).finish();
}

// ---- routes -----------------------------------------------------------------------------------

void put_gateway(message_builder& to, ip_family family, const next_hop& hop) {
  if (hop.gateway && hop.gateway->family() == family) {
    to.put(RTA_GATEWAY, *hop.gateway);
  } else if (hop.gateway) {
    std::array<std::byte, 2 + 16> via{};
    const std::uint16_t number = family_number(hop.gateway->family());
    std::memcpy(via.data(), &number, sizeof number);
    std::memcpy(via.data() + sizeof number, hop.gateway->bytes().data(), hop.gateway->size());
    to.put(RTA_VIA, via.data(), sizeof number + hop.gateway->size());
  }
  if (hop.encapsulated) to.put(RTA_ENCAP_TYPE, std::uint16_t{0});
}

void put_multipath(message_builder& to, ip_family family, const route& from) {
  to.put_nested(RTA_MULTIPATH, [&] {
    for (const next_hop& hop : from.next_hops) {
      const std::size_t offset = to.begin(sizeof(rtnexthop));
      put_gateway(to, family, hop);
      rtnexthop header{};
      header.rtnh_len = static_cast<std::uint16_t>(to.size() - offset);
      header.rtnh_flags = static_cast<std::uint8_t>(hop.flags);
      header.rtnh_hops = static_cast<std::uint8_t>(hop.weight - 1);
      header.rtnh_ifindex = static_cast<int>(hop.index);
      to.write(offset, &header, sizeof header);
    }
  });
}

// A single path can be told in the route's own attributes only if its flags and weight can.
bool is_single_path(const route& r) {
  return r.next_hops.size() == 1 && r.next_hops[0].weight == 1 &&
         r.next_hops[0].flags == (r.flags & 0xff);
}

void put_metrics(message_builder& to, const route_metrics& metrics) {
  if (metrics == route_metrics{}) return;
  to.put_nested(RTA_METRICS, [&] {
    put_if_set(to, RTAX_LOCK, metrics.lock);
    put_if_set(to, RTAX_MTU, metrics.mtu);
    put_if_set(to, RTAX_ADVMSS, metrics.advmss);
    put_if_set(to, RTAX_HOPLIMIT, metrics.hop_limit);
    put_if_set(to, RTAX_FEATURES, metrics.features);
  });
}

void put_expiry(message_builder& to, std::uint32_t expires_s) {
  rta_cacheinfo info{};
  // One tick and not none: 0 means "never".
  info.rta_expires = expires_s == 0 ? 1 : static_cast<std::int32_t>(expires_s) * clock_ticks_per_s;
  to.put(RTA_CACHEINFO, info);
}

std::uint16_t flags_of(const placement& at) noexcept {
  return static_cast<std::uint16_t>(
      (at.replace ? NLM_F_REPLACE : 0) | (at.create ? NLM_F_CREATE : 0) |
      (at.exclusive ? NLM_F_EXCL : 0) | (at.append ? NLM_F_APPEND : 0));
}

std::vector<std::byte> write(const route& from) {
  const ip_family family = from.destination.family();
  rtmsg header{};
  header.rtm_family = family_number(family);
  header.rtm_dst_len = static_cast<std::uint8_t>(from.destination.length());
  header.rtm_src_len = static_cast<std::uint8_t>(from.source.length());
  header.rtm_tos = from.tos;
  header.rtm_table = short_table(from.table);
  header.rtm_protocol = from.protocol;
  header.rtm_scope = from.scope;
  header.rtm_type = from.type;
  header.rtm_flags = from.flags;
  message_builder to(type_for(from.action, RTM_NEWROUTE, RTM_DELROUTE), flags_of(from.placement), 0,
                     header);
  to.put(RTA_TABLE, from.table);
  if (from.destination.length() > 0) to.put(RTA_DST, from.destination.address());
  if (from.source.length() > 0) to.put(RTA_SRC, from.source.address());
  put_if_set(to, RTA_PRIORITY, from.priority);
  put_if(to, RTA_PREFSRC, from.preferred_source);
  put_if_set(to, RTA_NH_ID, from.nexthop_id);
  if (is_single_path(from)) {
    put_if_set(to, RTA_OIF, from.next_hops[0].index);
    put_gateway(to, family, from.next_hops[0]);
  } else if (!from.next_hops.empty()) {
    put_multipath(to, family, from);
  }
  put_metrics(to, from.metrics);
  put_if_set(to, RTA_PREF, from.preference);
  if (from.expires_s) put_expiry(to, *from.expires_s);
  put_if_set(to, RTA_MARK, from.mark);
  put_if(to, RTA_UID, from.uid);
  return std::move(to).finish();
}

// ---- rules ------------------------------------------------------------------------------------

void put_range(message_builder& to, std::uint16_t type,
               const std::optional<range<std::uint16_t>>& ports) {
  if (ports) to.put(type, fib_rule_port_range{ports->first, ports->last});
}

// Masks that say "whole" are left out: a kernel that lacks them refuses them.
void put_rule_selectors(message_builder& to, const rule& from) {
  put_if_set(to, FRA_IIFNAME, from.input_interface);
  put_if_set(to, FRA_OIFNAME, from.output_interface);
  if (from.mark != 0 || from.mark_mask != 0) {
    to.put(FRA_FWMARK, from.mark);
    to.put(FRA_FWMASK, from.mark_mask);
  }
  if (from.tunnel_id != 0) to.put(FRA_TUN_ID, std::uint64_t{__builtin_bswap64(from.tunnel_id)});
  if (from.l3mdev) to.put(FRA_L3MDEV, std::uint8_t{1});
  if (from.uid) to.put(FRA_UID_RANGE, fib_rule_uid_range{from.uid->first, from.uid->last});
  put_if_set(to, FRA_IP_PROTO, from.ip_protocol);
  put_range(to, FRA_SPORT_RANGE, from.source_port);
  put_range(to, FRA_DPORT_RANGE, from.destination_port);
  if (from.source_port_mask != 0xffff) to.put(fra_sport_mask, from.source_port_mask);
  if (from.destination_port_mask != 0xffff) to.put(fra_dport_mask, from.destination_port_mask);
  put_if(to, fra_dscp, from.dscp);
  if (from.dscp_mask != 0x3f) to.put(fra_dscp_mask, from.dscp_mask);
  if (from.flow_label) to.put(fra_flowlabel, be32::from_host(*from.flow_label));
  if (from.flow_label_mask != 0) to.put(fra_flowlabel_mask, be32::from_host(from.flow_label_mask));
}

std::vector<std::byte> write(const rule& from) {
  fib_rule_hdr header{};
  header.family = family_number(from.family);
  header.dst_len = from.to ? static_cast<std::uint8_t>(from.to->length()) : std::uint8_t{0};
  header.src_len = from.from ? static_cast<std::uint8_t>(from.from->length()) : std::uint8_t{0};
  header.tos = from.tos;
  header.table = short_table(from.table);
  header.action = from.kind;
  header.flags = (from.invert ? FIB_RULE_INVERT : 0u) |
                 (from.find_source ? FIB_RULE_FIND_SADDR : 0u) |
                 (from.input_detached ? FIB_RULE_IIF_DETACHED : 0u) |
                 (from.output_detached ? FIB_RULE_OIF_DETACHED : 0u);
  message_builder to(type_for(from.action, RTM_NEWRULE, RTM_DELRULE), 0, 0, header);
  to.put(FRA_TABLE, from.table);
  to.put(FRA_PRIORITY, from.priority);
  if (from.from) to.put(FRA_SRC, from.from->address());
  if (from.to) to.put(FRA_DST, from.to->address());
  put_rule_selectors(to, from);
  put_if_set(to, FRA_GOTO, from.goto_target);
  put_if(to, FRA_SUPPRESS_PREFIXLEN, from.suppress_prefix_length);
  put_if(to, FRA_SUPPRESS_IFGROUP, from.suppress_group);
  to.put(FRA_PROTOCOL, from.protocol);
  return std::move(to).finish();
}

// ---- neighbours, nexthops, netconf ------------------------------------------------------------

std::vector<std::byte> write(const neighbour& from) {
  ndmsg header{};
  header.ndm_family = family_number(from.destination.family());
  header.ndm_ifindex = static_cast<int>(from.index);
  header.ndm_state = from.state;
  header.ndm_flags = from.flags;
  header.ndm_type = from.type;
  message_builder to(type_for(from.action, RTM_NEWNEIGH, RTM_DELNEIGH), 0, 0, header);
  to.put(NDA_DST, from.destination);
  put_if_set(to, NDA_LLADDR, from.link_address);
  put_if_set(to, NDA_FLAGS_EXT, from.extended_flags);
  return std::move(to).finish();
}

void put_group(message_builder& to, const nexthop_object& from) {
  std::vector<nexthop_group_entry> entries;
  for (const auto& member : from.group)
    entries.push_back({member.id, static_cast<std::uint8_t>((member.weight - 1) & 0xff),
                       static_cast<std::uint8_t>((member.weight - 1) >> 8), 0});
  to.put(NHA_GROUP, entries.data(), entries.size() * sizeof entries[0]);
  to.put(NHA_GROUP_TYPE, from.group_type);
  if (from.resilient_buckets != 0)
    to.put_nested(NHA_RES_GROUP, [&] { to.put(NHA_RES_GROUP_BUCKETS, from.resilient_buckets); });
}

std::vector<std::byte> write(const nexthop_object& from) {
  nhmsg header{};
  header.nh_family = from.family_unspecified ? std::uint8_t{AF_UNSPEC} : family_number(from.family);
  header.nh_scope = from.scope;
  header.nh_protocol = from.protocol;
  header.nh_flags = from.flags;
  message_builder to(type_for(from.action, RTM_NEWNEXTHOP, RTM_DELNEXTHOP),
                     from.replace ? std::uint16_t{NLM_F_REPLACE} : std::uint16_t{0}, 0, header);
  to.put(NHA_ID, from.id);
  if (!from.group.empty()) put_group(to, from);
  put_if_set(to, NHA_OIF, from.index);
  put_if(to, NHA_GATEWAY, from.gateway);
  if (from.blackhole) to.put_flag(NHA_BLACKHOLE);
  if (from.fdb) to.put_flag(NHA_FDB);
  if (from.encapsulated) to.put(NHA_ENCAP_TYPE, std::uint16_t{0});
  return std::move(to).finish();
}

std::vector<std::byte> write(const nexthop_bucket& from) {
  message_builder to(type_for(from.action, RTM_NEWNEXTHOPBUCKET, RTM_DELNEXTHOPBUCKET), 0, 0,
                     nhmsg{});
  to.put(NHA_ID, from.group);
  to.put_nested(NHA_RES_BUCKET, [&] {
    to.put(NHA_RES_BUCKET_INDEX, from.index);
    to.put(NHA_RES_BUCKET_NH_ID, from.member);
  });
  return std::move(to).finish();
}

std::vector<std::byte> write(const netconf& from) {
  const netconfmsg header{family_number(from.family)};
  message_builder to(type_for(from.action, RTM_NEWNETCONF, RTM_DELNETCONF), 0, 0, header);
  to.put(NETCONFA_IFINDEX, from.index);
  if (from.forwarding) to.put(NETCONFA_FORWARDING, std::int32_t{*from.forwarding});
  if (from.ignore_routes_with_linkdown)
    to.put(NETCONFA_IGNORE_ROUTES_WITH_LINKDOWN, std::int32_t{*from.ignore_routes_with_linkdown});
  return std::move(to).finish();
}

}  // namespace

std::vector<std::byte> encode(const message& m) {
  return std::visit([](const auto& object) { return write(object); }, m);
}

}  // namespace cowire::netlink

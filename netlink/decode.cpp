// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/detail/attributes.hpp>
#include <cowire/netlink/detail/constants.hpp>

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/if_tunnel.h>
#include <linux/neighbour.h>
#include <linux/netconf.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <string_view>
#include <utility>

namespace cowire::netlink {
namespace {

using namespace detail;

// A message without its netlink header.
struct body {
  std::uint16_t type = 0;
  std::uint16_t flags = 0;
  byte_span bytes;

  [[nodiscard]] netlink::action action(std::uint16_t removal) const noexcept {
    return type == removal ? action::remove : action::add;
  }
};

std::optional<ip_family> family_from(unsigned value) noexcept {
  if (value == AF_INET) return ip_family::v4;
  if (value == AF_INET6) return ip_family::v6;
  return std::nullopt;
}

// An address attribute and a length from the header make a prefix.
std::optional<ip_prefix> prefix_from(const std::optional<ip_address>& address, ip_family family,
                                     unsigned length, std::error_code& ec) noexcept {
  if (length > ip_address::any(family).bits() || (length > 0 && !address)) {
    ec = error::malformed;
    return std::nullopt;
  }
  return ip_prefix{address.value_or(ip_address::any(family)), length};
}

// ---- links ------------------------------------------------------------------------------------

void read_vlan(byte_span bytes, vlan_info& to, std::error_code& ec) {
  for_each_attribute(bytes, ec, [&](const attribute& a) {
    switch (a.type) {
      case IFLA_VLAN_ID:
        return read(a, to.id, ec);
      case IFLA_VLAN_PROTOCOL:
        return read(a, to.protocol, ec);
      case IFLA_VLAN_EGRESS_QOS:
        to.has_egress_map = !a.payload.empty();
        return;
      case IFLA_VLAN_FLAGS: {
        ifla_vlan_flags flags{};
        read(a, flags, ec);
        to.flags = flags.flags;
        return;
      }
      default:
        return;
    }
  });
}

void read_vrf(byte_span bytes, vrf_info& to, std::error_code& ec) {
  for_each_attribute(bytes, ec, [&](const attribute& a) {
    if (a.type == IFLA_VRF_TABLE) read(a, to.table, ec);
  });
}

void read_bond(byte_span bytes, bond_info& to, std::error_code& ec) {
  for_each_attribute(bytes, ec, [&](const attribute& a) {
    switch (a.type) {
      case IFLA_BOND_MODE:
        return read(a, to.mode, ec);
      case IFLA_BOND_ACTIVE_SLAVE:
        return read(a, to.active_slave, ec);
      case IFLA_BOND_XMIT_HASH_POLICY:
        return read(a, to.xmit_hash_policy, ec);
      default:
        return;
    }
  });
}

void read_bond_slave(byte_span bytes, bond_slave_info& to, std::error_code& ec) {
  for_each_attribute(bytes, ec, [&](const attribute& a) {
    switch (a.type) {
      case IFLA_BOND_SLAVE_STATE:
        return read(a, to.state, ec);
      case IFLA_BOND_SLAVE_MII_STATUS:
        return read(a, to.mii_status, ec);
      case IFLA_BOND_SLAVE_AD_AGGREGATOR_ID:
        return read(a, to.aggregator_id, ec);
      default:
        return;
    }
  });
}

void read_macvlan(byte_span bytes, macvlan_info& to, std::error_code& ec) {
  for_each_attribute(bytes, ec, [&](const attribute& a) {
    if (a.type == IFLA_MACVLAN_MODE) read(a, to.mode, ec);
  });
}

// GRE's flag words are big endian on netlink.
void read_be16_flags(const attribute& a, std::uint16_t& to, std::error_code& ec) {
  be16 flags;
  read(a, flags, ec);
  to = flags.host();
}

void read_gre(byte_span bytes, ip_family family, tunnel_info& to, std::error_code& ec) {
  for_each_attribute(bytes, ec, [&](const attribute& a) {
    switch (a.type) {
      case IFLA_GRE_LINK:
        return read(a, to.link, ec);
      case IFLA_GRE_IFLAGS:
        return read_be16_flags(a, to.input_flags, ec);
      case IFLA_GRE_OFLAGS:
        return read_be16_flags(a, to.output_flags, ec);
      case IFLA_GRE_IKEY:
        return read(a, to.input_key, ec);
      case IFLA_GRE_OKEY:
        return read(a, to.output_key, ec);
      case IFLA_GRE_LOCAL:
        return read(a, family, to.local, ec);
      case IFLA_GRE_REMOTE:
        return read(a, family, to.remote, ec);
      case IFLA_GRE_TTL:
        return read(a, to.ttl, ec);
      case IFLA_GRE_TOS:
        return read(a, to.tos, ec);
      case IFLA_GRE_PMTUDISC:
        return read_flag<std::uint8_t>(a, to.pmtu_discovery, ec);
      case IFLA_GRE_IGNORE_DF:
        return read_flag<std::uint8_t>(a, to.ignore_df, ec);
      case IFLA_GRE_FWMARK:
        return read(a, to.fwmark, ec);
      case IFLA_GRE_ENCAP_TYPE:
        return read(a, to.encapsulation_type, ec);
      case IFLA_GRE_ENCAP_FLAGS:
        return read(a, to.encapsulation_flags, ec);
      case IFLA_GRE_ENCAP_SPORT:
        return read(a, to.encapsulation_source_port, ec);
      case IFLA_GRE_ENCAP_DPORT:
        return read(a, to.encapsulation_destination_port, ec);
      case IFLA_GRE_COLLECT_METADATA:
        to.collect_metadata = true;
        return;
      case IFLA_GRE_ENCAP_LIMIT:
        return read(a, to.encap_limit, ec);
      case IFLA_GRE_FLOWINFO:
        return read(a, to.flow_info, ec);
      case IFLA_GRE_FLAGS:
        return read(a, to.flags, ec);
      default:
        return;
    }
  });
}

void read_ip_tunnel(byte_span bytes, ip_family family, tunnel_info& to, std::error_code& ec) {
  for_each_attribute(bytes, ec, [&](const attribute& a) {
    switch (a.type) {
      case IFLA_IPTUN_LINK:
        return read(a, to.link, ec);
      case IFLA_IPTUN_LOCAL:
        return read(a, family, to.local, ec);
      case IFLA_IPTUN_REMOTE:
        return read(a, family, to.remote, ec);
      case IFLA_IPTUN_TTL:
        return read(a, to.ttl, ec);
      case IFLA_IPTUN_TOS:
        return read(a, to.tos, ec);
      case IFLA_IPTUN_PMTUDISC:
        return read_flag<std::uint8_t>(a, to.pmtu_discovery, ec);
      case IFLA_IPTUN_PROTO:
        return read(a, to.protocol, ec);
      case IFLA_IPTUN_FWMARK:
        return read(a, to.fwmark, ec);
      case IFLA_IPTUN_ENCAP_TYPE:
        return read(a, to.encapsulation_type, ec);
      case IFLA_IPTUN_ENCAP_FLAGS:
        return read(a, to.encapsulation_flags, ec);
      case IFLA_IPTUN_ENCAP_SPORT:
        return read(a, to.encapsulation_source_port, ec);
      case IFLA_IPTUN_ENCAP_DPORT:
        return read(a, to.encapsulation_destination_port, ec);
      case IFLA_IPTUN_COLLECT_METADATA:
        to.collect_metadata = true;
        return;
      case IFLA_IPTUN_ENCAP_LIMIT:
        return read(a, to.encap_limit, ec);
      case IFLA_IPTUN_FLOWINFO:
        return read(a, to.flow_info, ec);
      case IFLA_IPTUN_FLAGS:
        // The one attribute of two widths: sit has 16 bits, ip6tnl 32.
        if (a.payload.size() == sizeof(std::uint16_t)) {
          std::uint16_t flags = 0;
          read(a, flags, ec);
          to.flags = flags;
          return;
        }
        return read(a, to.flags, ec);
      default:
        return;
    }
  });
}

tunnel_info empty_tunnel(ip_family family) {
  tunnel_info info;
  info.local = info.remote = ip_address::any(family);
  return info;
}

void read_link_info(std::string_view kind, byte_span data, link& to, std::error_code& ec) {
  const auto outer_is_v6 = kind.starts_with("ip6");
  const auto family = outer_is_v6 ? ip_family::v6 : ip_family::v4;
  if (kind == "vlan") {
    read_vlan(data, to.info.emplace<vlan_info>(), ec);
  } else if (kind == "vrf") {
    read_vrf(data, to.info.emplace<vrf_info>(), ec);
  } else if (kind == "bond") {
    read_bond(data, to.info.emplace<bond_info>(), ec);
  } else if (kind == "macvlan") {
    read_macvlan(data, to.info.emplace<macvlan_info>(), ec);
  } else if (kind == "gre" || kind == "gretap" || kind == "erspan" || kind == "ip6gre" ||
             kind == "ip6gretap") {
    read_gre(data, family, to.info.emplace<tunnel_info>(empty_tunnel(family)), ec);
  } else if (kind == "ipip" || kind == "sit" || kind == "ip6tnl") {
    read_ip_tunnel(data, family, to.info.emplace<tunnel_info>(empty_tunnel(family)), ec);
  }
}

void read_linkinfo(byte_span bytes, link& to, std::error_code& ec) {
  byte_span data, slave_data;
  bool has_slave_data = false;
  for_each_attribute(bytes, ec, [&](const attribute& a) {
    switch (a.type) {
      case IFLA_INFO_KIND:
        return read(a, to.kind, ec);
      case IFLA_INFO_SLAVE_KIND:
        return read(a, to.slave_kind, ec);
      case IFLA_INFO_DATA:
        data = a.payload;
        return;
      case IFLA_INFO_SLAVE_DATA:
        slave_data = a.payload;
        has_slave_data = true;
        return;
      default:
        return;
    }
  });
  if (ec) return;
  read_link_info(to.kind, data, to, ec);
  if (!ec && to.slave_kind == "bond" && has_slave_data)
    read_bond_slave(slave_data, to.bond_slave.emplace(), ec);
}

std::optional<message> decode_link(body in, std::error_code& ec) {
  ifinfomsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  if (header.ifi_family != AF_UNSPEC) return std::nullopt;  // A bridge's or IPv6's partial view.

  link to;
  to.action = in.action(RTM_DELLINK);
  to.index = static_cast<std::uint32_t>(header.ifi_index);
  to.hardware_type = header.ifi_type;
  to.flags = header.ifi_flags;
  bool wireless_event = false;
  for_each_attribute(in.bytes, ec, [&](const attribute& a) {
    switch (a.type) {
      case IFLA_IFNAME:
        return read(a, to.name, ec);
      case IFLA_MTU:
        return read(a, to.mtu, ec);
      case IFLA_ADDRESS:
        return read(a, to.address, ec);
      case IFLA_BROADCAST:
        return read(a, to.broadcast, ec);
      case IFLA_MASTER:
        return read(a, to.master, ec);
      case IFLA_LINK:
        return read(a, to.lower, ec);
      case IFLA_LINK_NETNSID:
        to.lower_in_other_namespace = true;
        return;
      case IFLA_GROUP:
        return read(a, to.group, ec);
      case IFLA_OPERSTATE:
        return read(a, to.operational_state, ec);
      case IFLA_CARRIER:
        return read_flag<std::uint8_t>(a, to.carrier, ec);
      case IFLA_LINKINFO:
        return read_linkinfo(a.payload, to, ec);
      case IFLA_WIRELESS:
        wireless_event = true;
        return;
      default:  // Statistics, queue counts, XDP, ...: no bearing on what a sender does.
        if (a.type > ifla_tailroom) to.unknown.push_back(a.type);
        return;
    }
  });
  if (ec || wireless_event) return std::nullopt;  // The latter lacks everything but the name.
  return to;
}

// ---- addresses --------------------------------------------------------------------------------

std::optional<message> decode_address(body in, std::error_code& ec) {
  ifaddrmsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  const auto family = family_from(header.ifa_family);
  if (!family) return std::nullopt;

  address to;
  to.action = in.action(RTM_DELADDR);
  to.index = header.ifa_index;
  to.prefix_length = header.ifa_prefixlen;
  to.flags = header.ifa_flags;
  to.scope = header.ifa_scope;
  std::optional<ip_address> local, subnet;
  for_each_attribute(in.bytes, ec, [&](const attribute& a) {
    switch (a.type) {
      case IFA_ADDRESS:
        return read(a, *family, subnet, ec);
      case IFA_LOCAL:
        return read(a, *family, local, ec);
      case IFA_LABEL:
        return read(a, to.label, ec);
      case IFA_FLAGS:
        return read(a, to.flags, ec);
      case IFA_CACHEINFO: {
        ifa_cacheinfo info{};
        read(a, info, ec);
        to.preferred_s = info.ifa_prefered;
        to.valid_s = info.ifa_valid;
        return;
      }
      default:
        if (a.type > IFA_PROTO) to.unknown.push_back(a.type);
        return;
    }
  });
  if (ec) return std::nullopt;
  if ((!local && !subnet) || to.prefix_length > ip_address::any(*family).bits()) {
    ec = error::malformed;
    return std::nullopt;
  }
  to.local = local ? *local : *subnet;
  to.peer = subnet ? *subnet : *local;
  return to;
}

// ---- routes -----------------------------------------------------------------------------------

void read_via(const attribute& a, std::optional<ip_address>& to, std::error_code& ec) {
  byte_span bytes = a.payload;
  std::uint16_t family_number = 0;
  if (bytes.size() < sizeof family_number) {
    ec = error::malformed;
    return;
  }
  std::memcpy(&family_number, bytes.data(), sizeof family_number);
  const auto family = family_from(family_number);
  if (!family) {
    ec = error::malformed;
    return;
  }
  read({a.type, bytes.subspan(sizeof family_number)}, *family, to, ec);
}

// Attributes that a next hop has, whether alone or in RTA_MULTIPATH. False: not one of them.
bool read_next_hop_attribute(const attribute& a, ip_family family, next_hop& to,
                             std::error_code& ec) {
  switch (a.type) {
    case RTA_GATEWAY:
      read(a, family, to.gateway, ec);
      return true;
    case RTA_VIA:
      read_via(a, to.gateway, ec);
      return true;
    case RTA_ENCAP_TYPE:
    case RTA_ENCAP:
      to.encapsulated = true;
      return true;
    case RTA_FLOW:  // The realm: it labels, it does not decide.
    case RTA_PAD:
      return true;
    default:
      return false;
  }
}

void read_multipath(byte_span bytes, ip_family family, route& to, std::error_code& ec) {
  while (!bytes.empty() && !ec) {
    rtnexthop header;
    byte_span rest = bytes;
    if (!take(rest, header, ec)) return;
    if (header.rtnh_len < sizeof header || header.rtnh_len > bytes.size()) {
      ec = error::malformed;
      return;
    }
    next_hop& hop = to.next_hops.emplace_back();
    hop.index = static_cast<std::uint32_t>(header.rtnh_ifindex);
    hop.flags = header.rtnh_flags;
    hop.weight = header.rtnh_hops + 1u;
    const auto attributes = bytes.subspan(sizeof header, header.rtnh_len - sizeof header);
    for_each_attribute(attributes, ec, [&](const attribute& a) {
      if (!read_next_hop_attribute(a, family, hop, ec)) to.unknown.push_back(a.type);
    });
    bytes = after(bytes, header.rtnh_len);
  }
}

// Metrics above the last one known are reported as an unknown RTA_METRICS.
void read_metrics(byte_span bytes, route& to, std::error_code& ec) {
  for_each_attribute(bytes, ec, [&](const attribute& a) {
    switch (a.type) {
      case RTAX_LOCK:
        return read(a, to.metrics.lock, ec);
      case RTAX_MTU:
        return read(a, to.metrics.mtu, ec);
      case RTAX_HOPLIMIT:
        return read(a, to.metrics.hop_limit, ec);
      case RTAX_ADVMSS:
        return read(a, to.metrics.advmss, ec);
      case RTAX_FEATURES:
        return read(a, to.metrics.features, ec);
      default:  // The others are TCP's.
        if (a.type > RTAX_FASTOPEN_NO_COOKIE) to.unknown.push_back(RTA_METRICS);
        return;
    }
  });
}

void read_expiry(const attribute& a, std::optional<std::uint32_t>& to, std::error_code& ec) {
  rta_cacheinfo info{};
  read(a, info, ec);
  if (ec || info.rta_expires == 0) return;
  // Negative: expired, and not yet removed.
  to = info.rta_expires < 0 ? 0u : static_cast<std::uint32_t>(info.rta_expires / clock_ticks_per_s);
}

// What the attributes of a route say before header and attributes are put together.
struct route_parts {
  std::optional<ip_address> destination, source;
  next_hop single;
  bool has_multipath = false;
};

void read_route_attribute(const attribute& a, ip_family family, route& to, route_parts& parts,
                          std::error_code& ec) {
  if (read_next_hop_attribute(a, family, parts.single, ec)) return;
  switch (a.type) {
    case RTA_DST:
      return read(a, family, parts.destination, ec);
    case RTA_SRC:
      return read(a, family, parts.source, ec);
    case RTA_OIF:
      return read(a, parts.single.index, ec);
    case RTA_MULTIPATH:
      parts.has_multipath = true;
      return read_multipath(a.payload, family, to, ec);
    case RTA_TABLE:
      return read(a, to.table, ec);
    case RTA_PRIORITY:
      return read(a, to.priority, ec);
    case RTA_PREFSRC:
      return read(a, family, to.preferred_source, ec);
    case RTA_NH_ID:
      return read(a, to.nexthop_id, ec);
    case RTA_METRICS:
      return read_metrics(a.payload, to, ec);
    case RTA_PREF:
      return read(a, to.preference, ec);
    case RTA_CACHEINFO:
      return read_expiry(a, to.expires_s, ec);
    case RTA_MARK:
      return read(a, to.mark, ec);
    case RTA_UID:
      return read(a, to.uid, ec);
    default:
      to.unknown.push_back(a.type);
      return;
  }
}

std::optional<message> decode_route(body in, std::error_code& ec) {
  rtmsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  const auto family = family_from(header.rtm_family);
  if (!family) return std::nullopt;  // Multicast routing and MPLS share the message type.

  route to;
  to.action = in.action(RTM_DELROUTE);
  if (to.action == action::add)
    to.placement = {(in.flags & NLM_F_REPLACE) != 0, (in.flags & NLM_F_CREATE) != 0,
                    (in.flags & NLM_F_EXCL) != 0, (in.flags & NLM_F_APPEND) != 0};
  to.table = header.rtm_table;
  to.tos = header.rtm_tos;
  to.protocol = header.rtm_protocol;
  to.scope = header.rtm_scope;
  to.type = header.rtm_type;
  to.flags = header.rtm_flags;
  route_parts parts;
  for_each_attribute(in.bytes, ec,
                     [&](const attribute& a) { read_route_attribute(a, *family, to, parts, ec); });
  if (ec) return std::nullopt;
  const auto destination = prefix_from(parts.destination, *family, header.rtm_dst_len, ec);
  const auto source = prefix_from(parts.source, *family, header.rtm_src_len, ec);
  if (ec) return std::nullopt;
  to.destination = *destination;
  to.source = *source;
  if (!parts.has_multipath) {
    const bool only_nexthop_object = to.nexthop_id != 0 && parts.single == next_hop{};
    parts.single.flags = header.rtm_flags & 0xff;  // RTNH_F_* of a single path live there.
    if (!only_nexthop_object) to.next_hops.push_back(parts.single);
  }
  return to;
}

// ---- rules ------------------------------------------------------------------------------------

void read_range(const attribute& a, std::optional<range<std::uint16_t>>& to, std::error_code& ec) {
  fib_rule_port_range ports{};
  read(a, ports, ec);
  if (!ec) to = range<std::uint16_t>{ports.start, ports.end};
}

// Attributes that name traffic; false: not one of them.
bool read_rule_selector(const attribute& a, rule& to, std::error_code& ec) {
  switch (a.type) {
    case FRA_IIFNAME:
      return read(a, to.input_interface, ec), true;
    case FRA_OIFNAME:
      return read(a, to.output_interface, ec), true;
    case FRA_FWMARK:
      return read(a, to.mark, ec), true;
    case FRA_IP_PROTO:
      return read(a, to.ip_protocol, ec), true;
    case FRA_L3MDEV:
      return read_flag<std::uint8_t>(a, to.l3mdev, ec), true;
    case FRA_SPORT_RANGE:
      return read_range(a, to.source_port, ec), true;
    case FRA_DPORT_RANGE:
      return read_range(a, to.destination_port, ec), true;
    case fra_sport_mask:
      return read(a, to.source_port_mask, ec), true;
    case fra_dport_mask:
      return read(a, to.destination_port_mask, ec), true;
    case fra_dscp:
      return read(a, to.dscp, ec), true;
    case fra_dscp_mask:
      return read(a, to.dscp_mask, ec), true;
    case FRA_TUN_ID: {
      std::uint64_t big_endian = 0;
      read(a, big_endian, ec);
      to.tunnel_id = __builtin_bswap64(big_endian);
      return true;
    }
    case FRA_UID_RANGE: {
      fib_rule_uid_range uids{};
      read(a, uids, ec);
      to.uid = range<std::uint32_t>{uids.start, uids.end};
      return true;
    }
    case fra_flowlabel: {
      be32 label;
      read(a, label, ec);
      to.flow_label = label.host();
      return true;
    }
    case fra_flowlabel_mask: {
      be32 mask;
      read(a, mask, ec);
      to.flow_label_mask = mask.host();
      return true;
    }
    default:
      return false;
  }
}

// -1 is how the kernel writes "unset".
void read_suppressor(const attribute& a, std::optional<std::uint32_t>& to, std::error_code& ec) {
  std::uint32_t value = 0;
  read(a, value, ec);
  if (!ec && value != 0xffffffff) to = value;
}

struct rule_parts {
  std::optional<ip_address> from, to;
  std::optional<std::uint32_t> mark_mask;
};

void read_rule_attribute(const attribute& a, rule& to, rule_parts& parts, std::error_code& ec) {
  if (read_rule_selector(a, to, ec)) return;
  switch (a.type) {
    case FRA_SRC:
      return read(a, to.family, parts.from, ec);
    case FRA_DST:
      return read(a, to.family, parts.to, ec);
    case FRA_FWMASK:
      return read(a, parts.mark_mask, ec);
    case FRA_PRIORITY:
      return read(a, to.priority, ec);
    case FRA_TABLE:
      return read(a, to.table, ec);
    case FRA_GOTO:
      return read(a, to.goto_target, ec);
    case FRA_SUPPRESS_PREFIXLEN:
      return read_suppressor(a, to.suppress_prefix_length, ec);
    case FRA_SUPPRESS_IFGROUP:
      return read_suppressor(a, to.suppress_group, ec);
    case FRA_PROTOCOL:
      return read(a, to.protocol, ec);
    case FRA_FLOW:  // The realm: it labels, it does not decide.
    case FRA_PAD:
      return;
    default:
      to.unknown.push_back(a.type);
      return;
  }
}

std::optional<message> decode_rule(body in, std::error_code& ec) {
  fib_rule_hdr header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  const auto family = family_from(header.family);
  if (!family) return std::nullopt;

  rule to;
  to.action = in.action(RTM_DELRULE);
  to.family = *family;
  to.table = header.table;
  to.kind = header.action;
  to.tos = header.tos;
  to.invert = (header.flags & FIB_RULE_INVERT) != 0;
  to.find_source = (header.flags & FIB_RULE_FIND_SADDR) != 0;
  to.input_detached = (header.flags & FIB_RULE_IIF_DETACHED) != 0;
  to.output_detached = (header.flags & FIB_RULE_OIF_DETACHED) != 0;
  rule_parts parts;
  for_each_attribute(in.bytes, ec,
                     [&](const attribute& a) { read_rule_attribute(a, to, parts, ec); });
  if (ec) return std::nullopt;
  if (header.src_len > 0) to.from = prefix_from(parts.from, *family, header.src_len, ec);
  if (header.dst_len > 0) to.to = prefix_from(parts.to, *family, header.dst_len, ec);
  if (ec) return std::nullopt;
  // A mark without a mask is compared whole; the kernel always sends both.
  to.mark_mask = parts.mark_mask.value_or(to.mark != 0 ? 0xffffffff : 0);
  return to;
}

// ---- neighbours, nexthops, netconf ------------------------------------------------------------

std::optional<message> decode_neighbour(body in, std::error_code& ec) {
  ndmsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  const auto family = family_from(header.ndm_family);
  if (!family) return std::nullopt;  // Bridge forwarding entries share the message type.

  neighbour to;
  to.action = in.action(RTM_DELNEIGH);
  to.index = static_cast<std::uint32_t>(header.ndm_ifindex);
  to.state = header.ndm_state;
  to.flags = header.ndm_flags;
  to.type = header.ndm_type;
  std::optional<ip_address> destination;
  for_each_attribute(in.bytes, ec, [&](const attribute& a) {
    switch (a.type) {
      case NDA_DST:
        return read(a, *family, destination, ec);
      case NDA_LLADDR:
        return read(a, to.link_address, ec);
      case NDA_FLAGS_EXT:
        return read(a, to.extended_flags, ec);
      default:  // Ages, probe counts, who made it.
        if (a.type > NDA_NDM_FLAGS_MASK) to.unknown.push_back(a.type);
        return;
    }
  });
  if (!ec && !destination) ec = error::malformed;
  if (ec) return std::nullopt;
  to.destination = *destination;
  return to;
}

void read_group(const attribute& a, nexthop_object& to, std::error_code& ec) {
  byte_span bytes = a.payload;
  if (bytes.size() % sizeof(nexthop_group_entry) != 0) ec = error::malformed;
  while (!bytes.empty() && !ec) {
    nexthop_group_entry entry;
    if (!take(bytes, entry, ec)) return;
    to.group.push_back({entry.id, (entry.weight_high * 256u + entry.weight_low) + 1u});
  }
}

void read_resilience(byte_span bytes, nexthop_object& to, std::error_code& ec) {
  for_each_attribute(bytes, ec, [&](const attribute& a) {
    if (a.type == NHA_RES_GROUP_BUCKETS) read(a, to.resilient_buckets, ec);
  });
}

void read_nexthop_attribute(const attribute& a, std::optional<ip_family> family, nexthop_object& to,
                            std::error_code& ec) {
  switch (a.type) {
    case NHA_ID:
      return read(a, to.id, ec);
    case NHA_OIF:
      return read(a, to.index, ec);
    case NHA_GATEWAY:
      if (!family) {
        ec = error::malformed;
        return;
      }
      return read(a, *family, to.gateway, ec);
    case NHA_GROUP:
      return read_group(a, to, ec);
    case NHA_GROUP_TYPE:
      return read(a, to.group_type, ec);
    case NHA_RES_GROUP:
      return read_resilience(a.payload, to, ec);
    case NHA_BLACKHOLE:
      to.blackhole = true;
      return;
    case NHA_FDB:
      to.fdb = true;
      return;
    case NHA_ENCAP_TYPE:
    case NHA_ENCAP:
      to.encapsulated = true;
      return;
    default:  // Up to the last known one: filters of requests and statistics.
      if (a.type > nha_hw_stats_used) to.unknown.push_back(a.type);
      return;
  }
}

std::optional<message> decode_nexthop(body in, std::error_code& ec) {
  nhmsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  const auto family = family_from(header.nh_family);
  if (!family && header.nh_family != AF_UNSPEC) return std::nullopt;

  nexthop_object to;
  to.action = in.action(RTM_DELNEXTHOP);
  to.replace = to.action == action::add && (in.flags & NLM_F_REPLACE) != 0;
  to.family = family.value_or(ip_family::v4);
  to.family_unspecified = !family;
  to.flags = header.nh_flags;
  to.scope = header.nh_scope;
  to.protocol = header.nh_protocol;
  for_each_attribute(in.bytes, ec,
                     [&](const attribute& a) { read_nexthop_attribute(a, family, to, ec); });
  if (!ec && to.id == 0) ec = error::malformed;
  if (ec) return std::nullopt;
  return to;
}

std::optional<message> decode_nexthop_bucket(body in, std::error_code& ec) {
  nhmsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;

  nexthop_bucket to;
  to.action = in.action(RTM_DELNEXTHOPBUCKET);
  std::optional<std::uint16_t> index;
  for_each_attribute(in.bytes, ec, [&](const attribute& outer) {
    if (outer.type == NHA_ID) return read(outer, to.group, ec);
    if (outer.type != NHA_RES_BUCKET) return;
    for_each_attribute(outer.payload, ec, [&](const attribute& a) {
      if (a.type == NHA_RES_BUCKET_INDEX) read(a, index, ec);
      if (a.type == NHA_RES_BUCKET_NH_ID) read(a, to.member, ec);
    });
  });
  if (!ec && (to.group == 0 || !index || to.member == 0)) ec = error::malformed;
  if (ec) return std::nullopt;
  to.index = *index;
  return to;
}

std::optional<message> decode_netconf(body in, std::error_code& ec) {
  netconfmsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  const auto family = family_from(header.ncm_family);
  if (!family) return std::nullopt;

  netconf to;
  to.action = in.action(RTM_DELNETCONF);
  to.family = *family;
  std::optional<std::int32_t> index;
  for_each_attribute(in.bytes, ec, [&](const attribute& a) {
    bool value = false;
    switch (a.type) {
      case NETCONFA_IFINDEX:
        return read(a, index, ec);
      case NETCONFA_FORWARDING:
        read_flag<std::uint32_t>(a, value, ec);
        to.forwarding = value;
        return;
      case NETCONFA_IGNORE_ROUTES_WITH_LINKDOWN:
        read_flag<std::uint32_t>(a, value, ec);
        to.ignore_routes_with_linkdown = value;
        return;
      default:
        return;
    }
  });
  if (!ec && !index) ec = error::malformed;
  if (ec) return std::nullopt;
  to.index = *index;
  return to;
}

}  // namespace

bool envelope::dump_interrupted() const noexcept { return (flags & NLM_F_DUMP_INTR) != 0; }

std::optional<envelope> next_envelope(std::span<const std::byte>& datagram,
                                      std::error_code& ec) noexcept {
  ec.clear();
  if (datagram.empty()) return std::nullopt;
  nlmsghdr header;
  byte_span rest = datagram;
  if (!take(rest, header, ec)) return std::nullopt;
  if (header.nlmsg_len < sizeof header) {
    ec = error::malformed;
    return std::nullopt;
  }
  if (header.nlmsg_len > datagram.size()) {
    ec = error::truncated;
    return std::nullopt;
  }
  const envelope result{header.nlmsg_type, header.nlmsg_flags, header.nlmsg_seq, header.nlmsg_pid,
                        datagram.first(header.nlmsg_len)};
  datagram = after(datagram, header.nlmsg_len);
  return result;
}

std::optional<completion> decode_completion(const envelope& answer, std::error_code& ec) {
  ec.clear();
  if (answer.type != NLMSG_DONE && answer.type != NLMSG_ERROR) return std::nullopt;
  byte_span rest = after(answer.bytes, sizeof(nlmsghdr));
  std::int32_t negative_errno = 0;
  // An old kernel's NLMSG_DONE may lack its number.
  if (!(answer.type == NLMSG_DONE && rest.empty()) && !take(rest, negative_errno, ec))
    return std::nullopt;
  if (negative_errno > 0 || negative_errno < -4095) {  // The kernel's MAX_ERRNO.
    ec = error::malformed;
    return std::nullopt;
  }
  completion result{-negative_errno, {}};
  if ((answer.flags & NLM_F_ACK_TLVS) == 0) return result;
  if (answer.type == NLMSG_ERROR) {
    nlmsghdr refused;  // The request comes back, whole unless NETLINK_CAP_ACK or success cut it.
    if (!take(rest, refused, ec)) return std::nullopt;
    if ((answer.flags & NLM_F_CAPPED) == 0 && refused.nlmsg_len > sizeof refused)
      rest = after(rest, refused.nlmsg_len - sizeof refused);
  }
  for_each_attribute(rest, ec, [&](const attribute& a) {
    if (a.type == NLMSGERR_ATTR_MSG) read(a, result.diagnostic, ec);
  });
  if (ec) return std::nullopt;
  return result;
}

std::optional<message> decode(std::span<const std::byte> bytes, std::error_code& ec) {
  const auto whole = next_envelope(bytes, ec);
  if (!whole) {
    if (!ec) ec = error::truncated;
    return std::nullopt;
  }
  const body in{whole->type, whole->flags, whole->bytes.subspan(sizeof(nlmsghdr))};
  switch (in.type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
      return decode_link(in, ec);
    case RTM_NEWADDR:
    case RTM_DELADDR:
      return decode_address(in, ec);
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
      return decode_route(in, ec);
    case RTM_NEWRULE:
    case RTM_DELRULE:
      return decode_rule(in, ec);
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
      return decode_neighbour(in, ec);
    case RTM_NEWNEXTHOP:
    case RTM_DELNEXTHOP:
      return decode_nexthop(in, ec);
    case RTM_NEWNEXTHOPBUCKET:
    case RTM_DELNEXTHOPBUCKET:
      return decode_nexthop_bucket(in, ec);
    case RTM_NEWNETCONF:
    case RTM_DELNETCONF:
      return decode_netconf(in, ec);
    default:
      return std::nullopt;
  }
}

}  // namespace cowire::netlink

// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/detail/link_info.hpp>
#include <cowire/netlink/tunnel_kind.hpp>

#include <linux/if_link.h>
#include <linux/if_tunnel.h>

#include <string>
#include <string_view>

namespace cowire::netlink::detail {
namespace {

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
      case IFLA_BOND_AD_INFO:
        for_each_attribute(a.payload, ec, [&](const attribute& of) {
          if (of.type == IFLA_BOND_AD_INFO_AGGREGATOR) read(of, to.aggregator_id, ec);
        });
        return;
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

void read_kind(std::string_view kind, byte_span data, link& to, std::error_code& ec) {
  if (kind == "vlan") {
    read_vlan(data, to.info.emplace<vlan_info>(), ec);
  } else if (kind == "vrf") {
    read_vrf(data, to.info.emplace<vrf_info>(), ec);
  } else if (kind == "bond") {
    read_bond(data, to.info.emplace<bond_info>(), ec);
  } else if (kind == "macvlan") {
    read_macvlan(data, to.info.emplace<macvlan_info>(), ec);
  } else if (const tunnel_kind* tunnel = find_tunnel_kind(kind)) {
    const auto read_info = tunnel->gre ? read_gre : read_ip_tunnel;
    read_info(data, tunnel->outer, to.info.emplace<tunnel_info>(empty_tunnel(tunnel->outer)), ec);
  }
}

void put_end_point(message_builder& to, std::uint16_t type, const ip_address& address) {
  if (!address.is_unspecified()) to.put(type, address);
}

void put_gre(message_builder& to, const tunnel_kind& kind, const tunnel_info& info) {
  to.put(IFLA_GRE_LINK, info.link);
  to.put(IFLA_GRE_IFLAGS, be16::from_host(info.input_flags));
  to.put(IFLA_GRE_OFLAGS, be16::from_host(info.output_flags));
  to.put(IFLA_GRE_IKEY, info.input_key);
  to.put(IFLA_GRE_OKEY, info.output_key);
  put_end_point(to, IFLA_GRE_LOCAL, info.local);
  put_end_point(to, IFLA_GRE_REMOTE, info.remote);
  to.put(IFLA_GRE_TTL, info.ttl);
  if (kind.outer == ip_family::v6) {
    to.put(IFLA_GRE_ENCAP_LIMIT, info.encap_limit);
    to.put(IFLA_GRE_FLOWINFO, info.flow_info);
    to.put(IFLA_GRE_FLAGS, info.flags);
  } else {
    to.put(IFLA_GRE_TOS, info.tos);
    to.put(IFLA_GRE_PMTUDISC, std::uint8_t{info.pmtu_discovery});
    to.put(IFLA_GRE_IGNORE_DF, std::uint8_t{info.ignore_df});
  }
  to.put(IFLA_GRE_FWMARK, info.fwmark);
  to.put(IFLA_GRE_ENCAP_TYPE, info.encapsulation_type);
  to.put(IFLA_GRE_ENCAP_SPORT, info.encapsulation_source_port);
  to.put(IFLA_GRE_ENCAP_DPORT, info.encapsulation_destination_port);
  to.put(IFLA_GRE_ENCAP_FLAGS, info.encapsulation_flags);
  if (info.collect_metadata) to.put_flag(IFLA_GRE_COLLECT_METADATA);
}

void put_ip_tunnel(message_builder& to, const tunnel_kind& kind, const tunnel_info& info) {
  to.put(IFLA_IPTUN_LINK, info.link);
  put_end_point(to, IFLA_IPTUN_LOCAL, info.local);
  put_end_point(to, IFLA_IPTUN_REMOTE, info.remote);
  to.put(IFLA_IPTUN_TTL, info.ttl);
  to.put(IFLA_IPTUN_PROTO, info.protocol);
  if (kind.outer == ip_family::v6) {
    to.put(IFLA_IPTUN_ENCAP_LIMIT, info.encap_limit);
    to.put(IFLA_IPTUN_FLOWINFO, info.flow_info);
    to.put(IFLA_IPTUN_FLAGS, info.flags);
  } else {
    to.put(IFLA_IPTUN_TOS, info.tos);
    to.put(IFLA_IPTUN_PMTUDISC, std::uint8_t{info.pmtu_discovery});
    // The one attribute of two widths: 32 bits with an IPv6 outer header, 16 bits with sit.
    if (kind.name == "sit") to.put(IFLA_IPTUN_FLAGS, static_cast<std::uint16_t>(info.flags));
  }
  to.put(IFLA_IPTUN_FWMARK, info.fwmark);
  to.put(IFLA_IPTUN_ENCAP_TYPE, info.encapsulation_type);
  to.put(IFLA_IPTUN_ENCAP_SPORT, info.encapsulation_source_port);
  to.put(IFLA_IPTUN_ENCAP_DPORT, info.encapsulation_destination_port);
  to.put(IFLA_IPTUN_ENCAP_FLAGS, info.encapsulation_flags);
  if (info.collect_metadata) to.put_flag(IFLA_IPTUN_COLLECT_METADATA);
}

struct data_writer {
  message_builder& to;
  const std::string& kind;

  void operator()(std::monostate) const {}
  void operator()(const vlan_info& info) const {
    to.put(IFLA_VLAN_ID, info.id);
    to.put(IFLA_VLAN_PROTOCOL, info.protocol);
    to.put(IFLA_VLAN_FLAGS, ifla_vlan_flags{info.flags, 0xffffffff});
    if (info.has_egress_map)
      to.put_nested(IFLA_VLAN_EGRESS_QOS,
                    [&] { to.put(IFLA_VLAN_QOS_MAPPING, ifla_vlan_qos_mapping{}); });
  }
  void operator()(const vrf_info& info) const { to.put(IFLA_VRF_TABLE, info.table); }
  void operator()(const bond_info& info) const {
    to.put(IFLA_BOND_MODE, info.mode);
    put_if_set(to, IFLA_BOND_ACTIVE_SLAVE, info.active_slave);
    to.put(IFLA_BOND_XMIT_HASH_POLICY, info.xmit_hash_policy);
    if (info.aggregator_id != 0)
      to.put_nested(IFLA_BOND_AD_INFO,
                    [&] { to.put(IFLA_BOND_AD_INFO_AGGREGATOR, info.aggregator_id); });
  }
  void operator()(const macvlan_info& info) const { to.put(IFLA_MACVLAN_MODE, info.mode); }
  void operator()(const tunnel_info& info) const {
    const tunnel_kind* known = find_tunnel_kind(kind);
    if (known != nullptr) (known->gre ? put_gre : put_ip_tunnel)(to, *known, info);
  }
};

}  // namespace

void read_link_info(byte_span bytes, link& to, std::error_code& ec) {
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
  read_kind(to.kind, data, to, ec);
  if (!ec && to.slave_kind == "bond" && has_slave_data)
    read_bond_slave(slave_data, to.bond_slave.emplace(), ec);
}

void put_link_info(message_builder& to, const link& from) {
  if (from.kind.empty() && from.slave_kind.empty()) return;
  to.put_nested(IFLA_LINKINFO, [&] {
    put_if_set(to, IFLA_INFO_KIND, from.kind);
    if (!std::holds_alternative<std::monostate>(from.info))
      to.put_nested(IFLA_INFO_DATA, [&] { std::visit(data_writer{to, from.kind}, from.info); });
    put_if_set(to, IFLA_INFO_SLAVE_KIND, from.slave_kind);
    if (from.bond_slave)
      to.put_nested(IFLA_INFO_SLAVE_DATA, [&] {
        to.put(IFLA_BOND_SLAVE_STATE, from.bond_slave->state);
        to.put(IFLA_BOND_SLAVE_MII_STATUS, from.bond_slave->mii_status);
        to.put(IFLA_BOND_SLAVE_AD_AGGREGATOR_ID, from.bond_slave->aggregator_id);
      });
  });
}

}  // namespace cowire::netlink::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/detail/link_info.hpp>

#include <linux/if_link.h>
#include <linux/if_tunnel.h>

#include <string>

namespace cowire::netlink::detail {
namespace {

bool has_outer_v6(const std::string& kind) { return kind.starts_with("ip6"); }

void put_end_point(message_builder& to, std::uint16_t type, const ip_address& address) {
  if (!address.is_unspecified()) to.put(type, address);
}

void put_gre(message_builder& to, const std::string& kind, const tunnel_info& info) {
  to.put(IFLA_GRE_LINK, info.link);
  to.put(IFLA_GRE_IFLAGS, be16::from_host(info.input_flags));
  to.put(IFLA_GRE_OFLAGS, be16::from_host(info.output_flags));
  to.put(IFLA_GRE_IKEY, info.input_key);
  to.put(IFLA_GRE_OKEY, info.output_key);
  put_end_point(to, IFLA_GRE_LOCAL, info.local);
  put_end_point(to, IFLA_GRE_REMOTE, info.remote);
  to.put(IFLA_GRE_TTL, info.ttl);
  if (has_outer_v6(kind)) {
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

void put_ip_tunnel(message_builder& to, const std::string& kind, const tunnel_info& info) {
  to.put(IFLA_IPTUN_LINK, info.link);
  put_end_point(to, IFLA_IPTUN_LOCAL, info.local);
  put_end_point(to, IFLA_IPTUN_REMOTE, info.remote);
  to.put(IFLA_IPTUN_TTL, info.ttl);
  to.put(IFLA_IPTUN_PROTO, info.protocol);
  if (has_outer_v6(kind)) {
    to.put(IFLA_IPTUN_ENCAP_LIMIT, info.encap_limit);
    to.put(IFLA_IPTUN_FLOWINFO, info.flow_info);
    to.put(IFLA_IPTUN_FLAGS, info.flags);
  } else {
    to.put(IFLA_IPTUN_TOS, info.tos);
    to.put(IFLA_IPTUN_PMTUDISC, std::uint8_t{info.pmtu_discovery});
    // The one attribute of two widths: 32 bits with an IPv6 outer header, 16 bits with sit.
    if (kind == "sit") to.put(IFLA_IPTUN_FLAGS, static_cast<std::uint16_t>(info.flags));
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
  }
  void operator()(const macvlan_info& info) const { to.put(IFLA_MACVLAN_MODE, info.mode); }
  void operator()(const tunnel_info& info) const {
    const bool gre = kind.find("gre") != std::string::npos || kind == "erspan";
    gre ? put_gre(to, kind, info) : put_ip_tunnel(to, kind, info);
  }
};

}  // namespace

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

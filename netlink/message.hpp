// SPDX-License-Identifier: Apache-2.0
/// rtnetlink messages as plain structs (rtnetlink(7), linux/rtnetlink.h and friends).
///
/// Addresses carry their own byte order (base/address.hpp); every other number is in host order. An
/// attribute that the kernel did not send is an empty optional or the documented default.
/// Attributes that this code does not know are listed in `unknown`: whoever makes decisions from a
/// message must treat those as "not modelled" and divert.
///
/// Plain values: copy, compare, hand to other threads freely.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/netlink/tunnel_info.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

namespace cowire::netlink {

/// What a message says about its object.
enum class action : std::uint8_t { add, remove };

/// Header flags that carry meaning on notifications (NLM_F_*): where an alias of a route belongs.
struct placement {
  bool replace = false, create = false, exclusive = false, append = false;
  friend bool operator==(const placement&, const placement&) = default;
};

/// IFLA_INFO_DATA of kind "vlan".
struct vlan_info {
  std::uint16_t id = 0;
  be16 protocol;  ///< 0x8100 or 0x88a8.
  std::uint32_t flags = 0;
  bool has_egress_map = false;  ///< IFLA_VLAN_EGRESS_QOS present and not empty.
  friend bool operator==(const vlan_info&, const vlan_info&) = default;
};
/// IFLA_INFO_DATA of kind "vrf".
struct vrf_info {
  std::uint32_t table = 0;
  friend bool operator==(const vrf_info&, const vrf_info&) = default;
};
/// IFLA_INFO_DATA of kind "bond".
struct bond_info {
  std::uint8_t mode = 0;              ///< BOND_MODE_* of linux/if_bonding.h.
  std::uint32_t active_slave = 0;     ///< ifindex, 0 = none.
  std::uint8_t xmit_hash_policy = 0;  ///< BOND_XMIT_POLICY_*.
  /// The one in use in mode 802.3ad, 0 = none. It changes without a message of the bond.
  std::uint16_t aggregator_id = 0;
  friend bool operator==(const bond_info&, const bond_info&) = default;
};
/// IFLA_INFO_SLAVE_DATA of kind "bond".
struct bond_slave_info {
  std::uint8_t state = 0;       ///< 0 active, 1 backup.
  std::uint8_t mii_status = 0;  ///< 0 up.
  std::uint16_t aggregator_id = 0;
  friend bool operator==(const bond_slave_info&, const bond_slave_info&) = default;
};
/// IFLA_INFO_DATA of kind "macvlan".
struct macvlan_info {
  std::uint32_t mode = 0;  ///< MACVLAN_MODE_*.
  friend bool operator==(const macvlan_info&, const macvlan_info&) = default;
};
/// IFF_LOWER_UP, IFF_DORMANT: in linux/if.h, but not where net/if.h came before it.
inline constexpr std::uint32_t lower_up = 0x10000, dormant = 0x20000;

/// RTM_NEWLINK, RTM_DELLINK.
struct link {
  netlink::action action = action::add;
  std::uint32_t index = 0;
  std::uint16_t hardware_type = 0;  ///< ARPHRD_*.
  std::uint32_t flags = 0;          ///< IFF_*, with IFF_LOWER_UP (0x10000).
  std::string name;
  std::uint32_t mtu = 0;
  std::string alias;  ///< IFLA_IFALIAS, 255 bytes at most: whatever somebody noted there.
  std::vector<std::uint8_t> address, broadcast;  ///< 6 bytes on Ethernet; 4 or 16 on tunnels.
  std::uint32_t master = 0;  ///< ifindex of the bond, bridge or VRF above, 0 = none.
  /// IFLA_LINK: ifindex of the device below or the peer, 0 = none. A new pair of veths is announced
  /// in halves: the first one's peer is told only by its next event.
  std::uint32_t lower = 0;
  bool lower_in_other_namespace = false;  ///< IFLA_LINK_NETNSID present.
  std::uint32_t group = 0;
  std::uint32_t transmit_queues = 1;   ///< IFLA_NUM_TX_QUEUES, which it was made with.
  std::uint8_t operational_state = 0;  ///< IF_OPER_*.
  bool carrier = true;
  std::string kind, slave_kind;  ///< IFLA_INFO_KIND ("" for physical), IFLA_INFO_SLAVE_KIND.
  std::variant<std::monostate, vlan_info, vrf_info, bond_info, macvlan_info, tunnel_info> info;
  std::optional<bond_slave_info> bond_slave;
  std::vector<std::uint16_t> unknown;  ///< Top-level IFLA_* not known here (informative only).
  friend bool operator==(const link&, const link&) = default;
};

/// RTM_NEWADDR, RTM_DELADDR.
struct address {
  netlink::action action = action::add;
  std::uint32_t index = 0;  ///< ifindex.
  ip_address local;         ///< IFA_LOCAL, or IFA_ADDRESS where only that is sent (IPv6).
  ip_address peer;  ///< IFA_ADDRESS: the subnet's side; differs from local on point-to-point links.
  std::uint8_t prefix_length = 0;
  std::uint32_t flags = 0;  ///< IFA_F_*, 32-bit form.
  std::uint8_t scope = 0;   ///< RT_SCOPE_*.
  std::uint32_t preferred_s = 0xffffffff,
                valid_s = 0xffffffff;  ///< Lifetimes in seconds, 0xffffffff = for ever.
  std::string label;
  std::vector<std::uint16_t> unknown;
  /// Made for privacy (RFC 8981): IFA_F_TEMPORARY, which IPv4 uses for secondary addresses.
  [[nodiscard]] bool is_temporary() const noexcept { return local.is_v6() && (flags & 0x01) != 0; }
  friend bool operator==(const address&, const address&) = default;
};

/// One next hop of a route: its own in a single-path route, or a member of RTA_MULTIPATH.
struct next_hop {
  std::uint32_t index = 0;            ///< ifindex, 0 = none (error types, nexthop objects).
  std::optional<ip_address> gateway;  ///< RTA_GATEWAY or RTA_VIA (may be IPv6 on an IPv4 route).
  std::uint32_t weight = 1;           ///< 1 to 256 (65536 with nexthop objects' 16-bit weights).
  std::uint32_t flags = 0;            ///< RTNH_F_DEAD, _ONLINK, _LINKDOWN ...
  bool encapsulated = false;          ///< RTA_ENCAP present: not modelled.
  friend bool operator==(const next_hop&, const next_hop&) = default;
};

/// RTAX_* metrics that matter to a sender; 0 = unset.
struct route_metrics {
  std::uint32_t mtu = 0, hop_limit = 0, advmss = 0, features = 0;
  std::uint32_t lock = 0;  ///< Bitmap by RTAX_* number: `mtu lock` is bit RTAX_MTU.
  friend bool operator==(const route_metrics&, const route_metrics&) = default;
};

/// RTM_NEWROUTE, RTM_DELROUTE. Cloned entries (RTM_F_CLONED) are decoded too: `flags` tells.
struct route {
  netlink::action action = action::add;
  netlink::placement placement;  ///< Of a notification; all false in a dump.
  ip_prefix destination;         ///< RTA_DST with rtm_dst_len; the family's whole space if absent.
  ip_prefix source;  ///< RTA_SRC with rtm_src_len: IPv6 source-specific routes. Length 0 = none.
  std::uint32_t table = 0;  ///< RTA_TABLE.
  std::uint8_t tos = 0;
  std::uint8_t protocol = 0;   ///< RTPROT_*.
  std::uint8_t scope = 0;      ///< RT_SCOPE_*.
  std::uint8_t type = 0;       ///< RTN_*.
  std::uint32_t flags = 0;     ///< rtm_flags: RTM_F_*, and RTNH_F_* of a single path.
  std::uint32_t priority = 0;  ///< RTA_PRIORITY, the metric.
  std::optional<ip_address> preferred_source;  ///< RTA_PREFSRC.
  std::uint32_t nexthop_id = 0;                ///< RTA_NH_ID, 0 = none.
  std::vector<next_hop>
      next_hops;  ///< One element, or several from RTA_MULTIPATH; empty with a bare nexthop_id.
  route_metrics metrics;
  std::uint8_t preference =
      0;  ///< RTA_PREF: 0 medium, 1 high, 3 low (RFC 4191 as the kernel codes it).
  std::optional<std::uint32_t> expires_s;  ///< From RTA_CACHEINFO, when the route expires.
  std::uint32_t mark = 0;                  ///< RTA_MARK: only in an answer to RTM_GETROUTE.
  std::optional<std::uint32_t> uid;        ///< RTA_UID: only in an answer to RTM_GETROUTE.
  std::vector<std::uint16_t> unknown;

  /// Whether the two are equal but for where they lead.
  [[nodiscard]] bool same_but_destination(const route& other) const noexcept {
    const auto fields = [](const route& r) {
      return std::tie(r.action, r.placement, r.source, r.table, r.tos, r.protocol, r.scope, r.type,
                      r.flags, r.priority, r.preferred_source, r.nexthop_id, r.next_hops, r.metrics,
                      r.preference, r.expires_s, r.mark, r.uid, r.unknown);
    };
    return fields(*this) == fields(other);
  }
  friend bool operator==(const route& a, const route& b) noexcept {
    return a.destination == b.destination && a.same_but_destination(b);
  }
};

/// A port or uid range, both ends included.
template <class T>
struct range {
  T first = 0, last = 0;
  friend bool operator==(const range&, const range&) = default;
};

/// RTM_NEWRULE, RTM_DELRULE.
struct rule {
  netlink::action action = action::add;
  ip_family family = ip_family::v4;
  std::uint32_t priority = 0;
  std::uint32_t table = 0;
  std::uint8_t kind =
      0;  ///< FR_ACT_*: 1 to-table, 2 goto, 3 nop, 6 blackhole, 7 unreachable, 8 prohibit.
  bool invert = false;                ///< FIB_RULE_INVERT: `not`.
  bool find_source = false;           ///< FIB_RULE_FIND_SADDR.
  std::optional<ip_prefix> from, to;  ///< Absent = any; `from 0.0.0.0/0` arrives as absent.
  std::uint8_t tos = 0;               ///< Header byte; 0 = any.
  std::optional<std::uint8_t> dscp;   ///< FRA_DSCP: 0 is a real selector.
  std::uint8_t dscp_mask = 0x3f;
  std::string input_interface, output_interface;         ///< By name; "" = any.
  bool input_detached = false, output_detached = false;  ///< No such device now.
  std::uint32_t mark = 0, mark_mask = 0;                 ///< Mask 0 = any.
  std::uint64_t tunnel_id = 0;                           ///< 0 = any.
  bool l3mdev = false;
  std::optional<range<std::uint32_t>> uid;
  std::uint8_t ip_protocol = 0;  ///< 0 = any.
  std::optional<range<std::uint16_t>> source_port, destination_port;
  std::uint16_t source_port_mask = 0xffff, destination_port_mask = 0xffff;
  std::optional<std::uint32_t> flow_label;  ///< FRA_FLOWLABEL (IPv6).
  std::uint32_t flow_label_mask = 0;
  std::uint32_t goto_target = 0;
  std::optional<std::uint32_t>
      suppress_prefix_length;  ///< Absent = unset (0xffffffff in the message).
  std::optional<std::uint32_t> suppress_group;
  std::uint8_t protocol = 0;  ///< RTPROT_* of who made it.
  std::vector<std::uint16_t> unknown;
  friend bool operator==(const rule&, const rule&) = default;
};

/// RTM_NEWNEIGH, RTM_DELNEIGH of AF_INET and AF_INET6.
struct neighbour {
  netlink::action action = action::add;
  std::uint32_t index = 0;
  ip_address destination;
  std::uint16_t state = 0;                 ///< NUD_*.
  std::uint8_t flags = 0;                  ///< NTF_*.
  std::uint32_t extended_flags = 0;        ///< NTF_EXT_*.
  std::vector<std::uint8_t> link_address;  ///< 6 bytes on Ethernet; empty = unknown.
  std::uint8_t type = 0;                   ///< ndm_type, RTN_*.
  std::vector<std::uint16_t> unknown;
  friend bool operator==(const neighbour&, const neighbour&) = default;
};

/// RTM_NEWNEXTHOP, RTM_DELNEXTHOP.
struct nexthop_object {
  netlink::action action = action::add;
  bool replace = false;  ///< NLM_F_REPLACE on a notification.
  std::uint32_t id = 0;
  ip_family family = ip_family::v4;  ///< Of the gateway; meaningless for groups.
  bool family_unspecified = false;   ///< AF_UNSPEC: groups.
  std::uint32_t index = 0;
  std::optional<ip_address> gateway;
  std::uint32_t flags = 0;  ///< RTNH_F_*.
  std::uint8_t scope = 0, protocol = 0;
  bool blackhole = false, fdb = false, encapsulated = false;
  struct member {
    std::uint32_t id = 0;
    std::uint32_t weight = 1;
    friend bool operator==(const member&, const member&) = default;
  };
  std::vector<member> group;     ///< Not empty = a group.
  std::uint16_t group_type = 0;  ///< NEXTHOP_GRP_TYPE_*: 0 hash-threshold, 1 resilient.
  std::uint16_t resilient_buckets = 0;
  std::vector<std::uint16_t> unknown;
  friend bool operator==(const nexthop_object&, const nexthop_object&) = default;
};

/// RTM_NEWNEXTHOPBUCKET: the member that serves one bucket of a resilient group. The kernel tells
/// of the buckets that it moves by and by, not of those that it deals anew with a change of the
/// group.
struct nexthop_bucket {
  netlink::action action = action::add;
  std::uint32_t group = 0;   ///< Nexthop object.
  std::uint16_t index = 0;   ///< Of the bucket.
  std::uint32_t member = 0;  ///< Nexthop object.
  friend bool operator==(const nexthop_bucket&, const nexthop_bucket&) = default;
};

/// RTM_NEWNETCONF, RTM_DELNETCONF: the per-device settings that change routing and do announce
/// themselves. A notification carries only what changed: an empty optional leaves the value known
/// so far as it is.
struct netconf {
  netlink::action action = action::add;
  ip_family family = ip_family::v4;
  std::int32_t index = 0;  ///< ifindex; -1 all, -2 default (NETCONFA_IFINDEX_ALL, _DEFAULT).
  std::optional<bool> forwarding, ignore_routes_with_linkdown;
  /// This host routes multicast that arrives on, or leaves by, the device (IPv6: "all" alone).
  std::optional<bool> multicast_forwarding;
  friend bool operator==(const netconf&, const netconf&) = default;
};

/// Somebody on this host is a member of a multicast group on a device: the first one has joined,
/// or the last one has left.
struct membership {
  netlink::action action = netlink::action::add;
  std::uint32_t index = 0;  ///< ifindex.
  ip_address group;
  friend bool operator==(const membership&, const membership&) = default;
};

/// Any message this code understands.
using message = std::variant<link, address, route, rule, neighbour, nexthop_object, nexthop_bucket,
                             netconf, membership>;

}  // namespace cowire::netlink

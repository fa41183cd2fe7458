// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/netlink/detail/link_info.hpp>
#include <cowire/netlink/detail/message_builder.hpp>
#include <cowire/netlink/request.hpp>

#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netconf.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace cowire::netlink {
namespace {

using detail::message_builder;
using detail::put_if_set;

constexpr std::uint16_t dump_flags = NLM_F_REQUEST | NLM_F_DUMP;

std::uint8_t family_number(const std::optional<ip_family>& family) noexcept {
  if (!family) return AF_UNSPEC;
  return *family == ip_family::v4 ? AF_INET : AF_INET6;
}

// Strict checking wants every other field of these headers to be zero.
std::vector<std::byte> dump_routes(const dump_filter& filter, std::uint32_t sequence) {
  rtmsg header{};
  header.rtm_family = family_number(filter.family);
  message_builder to(RTM_GETROUTE, dump_flags, sequence, header);
  if (filter.table != 0) to.put(RTA_TABLE, filter.table);
  if (filter.interface != 0) to.put(RTA_OIF, filter.interface);
  return std::move(to).finish();
}

std::vector<std::byte> dump_neighbours(const dump_filter& filter, std::uint32_t sequence) {
  ndmsg header{};
  header.ndm_family = family_number(filter.family);
  message_builder to(RTM_GETNEIGH, dump_flags, sequence, header);
  if (filter.interface != 0) to.put(NDA_IFINDEX, filter.interface);
  return std::move(to).finish();
}

std::vector<std::byte> dump_nexthops(const dump_filter& filter, std::uint32_t sequence) {
  message_builder to(RTM_GETNEXTHOP, dump_flags, sequence, nhmsg{});
  if (filter.interface != 0) to.put(NHA_OIF, filter.interface);
  return std::move(to).finish();
}

std::vector<std::byte> dump_addresses(const dump_filter& filter, std::uint32_t sequence) {
  ifaddrmsg header{};
  header.ifa_family = family_number(filter.family);
  header.ifa_index = filter.interface;
  return message_builder(RTM_GETADDR, dump_flags, sequence, header).finish();
}

// The interface of an object that the kernel's own filters go by; 0 = it has none.
struct uses_interface {
  std::uint32_t index;
  bool operator()(const address& a) const { return a.index == index; }
  bool operator()(const neighbour& n) const { return n.index == index; }
  bool operator()(const nexthop_object& n) const { return n.index == index; }
  bool operator()(const route& r) const {
    return std::any_of(r.next_hops.begin(), r.next_hops.end(),
                       [this](const next_hop& hop) { return hop.index == index; });
  }
  template <class Other>
  bool operator()(const Other&) const {
    return true;  // Kinds that have no such filter.
  }
};

}  // namespace

object_kind kind_of(const message& m) noexcept { return static_cast<object_kind>(m.index()); }

std::optional<ip_family> family_of(const message& m) noexcept {
  struct visitor {
    std::optional<ip_family> operator()(const link&) const { return std::nullopt; }
    std::optional<ip_family> operator()(const nexthop_object&) const { return std::nullopt; }
    std::optional<ip_family> operator()(const nexthop_bucket&) const { return std::nullopt; }
    std::optional<ip_family> operator()(const address& a) const { return a.local.family(); }
    std::optional<ip_family> operator()(const route& r) const { return r.destination.family(); }
    std::optional<ip_family> operator()(const rule& r) const { return r.family; }
    std::optional<ip_family> operator()(const neighbour& n) const { return n.destination.family(); }
    std::optional<ip_family> operator()(const netconf& n) const { return n.family; }
    std::optional<ip_family> operator()(const membership& m) const { return m.group.family(); }
  };
  return std::visit(visitor{}, m);
}

bool matches(const dump_filter& filter, const message& m) noexcept {
  const auto family = family_of(m);
  if (filter.family && family && *filter.family != *family) return false;
  if (const auto* r = std::get_if<route>(&m); r && filter.table != 0 && r->table != filter.table)
    return false;
  return filter.interface == 0 || std::visit(uses_interface{filter.interface}, m);
}

bool is_forwarding_state(const message& m) noexcept {
  if (const auto* r = std::get_if<route>(&m)) return (r->flags & RTM_F_CLONED) == 0;
  if (const auto* n = std::get_if<neighbour>(&m)) return (n->flags & NTF_PROXY) == 0;
  return true;
}

bool means_none(int error_number) noexcept {
  return error_number == ENODEV || error_number == ENOENT || error_number == EOPNOTSUPP ||
         error_number == EAFNOSUPPORT;
}

std::vector<std::byte> dump_request(object_kind kind, const dump_filter& filter,
                                    std::uint32_t sequence) {
  switch (kind) {
    case object_kind::link:
      return message_builder(RTM_GETLINK, dump_flags, sequence, ifinfomsg{}).finish();
    case object_kind::address:
      return dump_addresses(filter, sequence);
    case object_kind::route:
      return dump_routes(filter, sequence);
    case object_kind::rule: {
      fib_rule_hdr header{};
      header.family = family_number(filter.family);
      return message_builder(RTM_GETRULE, dump_flags, sequence, header).finish();
    }
    case object_kind::neighbour:
      return dump_neighbours(filter, sequence);
    case object_kind::nexthop:
      return dump_nexthops(filter, sequence);
    case object_kind::nexthop_bucket:
      return message_builder(RTM_GETNEXTHOPBUCKET, dump_flags, sequence, nhmsg{}).finish();
    case object_kind::netconf: {
      COWIRE_ASSERT(filter.family);  // The kernel has no dump of both families.
      const netconfmsg header{family_number(filter.family)};
      return message_builder(RTM_GETNETCONF, dump_flags, sequence, header).finish();
    }
    case object_kind::membership: {
      COWIRE_ASSERT(filter.family);
      ifaddrmsg header{};
      header.ifa_family = family_number(filter.family);
      return message_builder(RTM_GETMULTICAST, dump_flags, sequence, header).finish();
    }
  }
  COWIRE_ASSERT(false);
}

std::vector<std::byte> route_request(const route_query& query, std::uint32_t sequence) {
  rtmsg header{};
  header.rtm_family = family_number(query.destination.family());
  header.rtm_dst_len = static_cast<std::uint8_t>(query.destination.bits());
  header.rtm_src_len = query.source ? header.rtm_dst_len : std::uint8_t{0};
  header.rtm_tos = query.tos;
  if (query.fib_match) header.rtm_flags |= RTM_F_FIB_MATCH;
  // IPv6 always answers the table, and refuses the flag.
  if (query.lookup_table && query.destination.is_v4()) header.rtm_flags |= RTM_F_LOOKUP_TABLE;
  message_builder to(RTM_GETROUTE, NLM_F_REQUEST, sequence, header);
  to.put(RTA_DST, query.destination);
  if (query.source) to.put(RTA_SRC, *query.source);
  if (query.output_interface != 0) to.put(RTA_OIF, query.output_interface);
  if (query.mark != 0) to.put(RTA_MARK, query.mark);
  if (query.uid) to.put(RTA_UID, *query.uid);
  if (query.ip_protocol) to.put(RTA_IP_PROTO, *query.ip_protocol);
  if (query.source_port) to.put(RTA_SPORT, be16::from_host(*query.source_port));
  if (query.destination_port) to.put(RTA_DPORT, be16::from_host(*query.destination_port));
  return std::move(to).finish();
}

std::vector<std::byte> link_request(std::uint32_t index, std::uint32_t sequence) {
  ifinfomsg header{};
  header.ifi_index = static_cast<int>(index);
  return message_builder(RTM_GETLINK, NLM_F_REQUEST, sequence, header).finish();
}

std::vector<std::byte> neighbour_poke(const neighbour& known, std::uint32_t sequence) {
  ndmsg header{};
  header.ndm_family = family_number(known.destination.family());
  header.ndm_ifindex = static_cast<int>(known.index);
  header.ndm_flags = static_cast<std::uint8_t>(NTF_USE | (known.flags & NTF_EXT_LEARNED));
  message_builder to(RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE, sequence, header);
  to.put(NDA_DST, known.destination);
  return std::move(to).finish();
}

std::vector<std::byte> create_link(const link& wanted, std::uint32_t sequence) {
  ifinfomsg header{};
  header.ifi_flags = wanted.flags & IFF_UP;
  header.ifi_change = IFF_UP;
  message_builder to(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL, sequence, header);
  to.put(IFLA_IFNAME, wanted.name);
  put_if_set(to, IFLA_MTU, wanted.mtu);
  detail::put_link_info(to, wanted);
  return std::move(to).finish();
}

std::vector<std::byte> change_link(const link& wanted, std::uint32_t sequence) {
  ifinfomsg header{};
  header.ifi_index = static_cast<int>(wanted.index);
  message_builder to(RTM_NEWLINK, NLM_F_REQUEST, sequence, header);
  put_if_set(to, IFLA_MTU, wanted.mtu);
  detail::put_link_info(to, wanted);
  return std::move(to).finish();
}

std::vector<std::byte> set_alias(std::uint32_t index, const std::string& alias,
                                 std::uint32_t sequence) {
  ifinfomsg header{};
  header.ifi_index = static_cast<int>(index);
  message_builder to(RTM_NEWLINK, NLM_F_REQUEST, sequence, header);
  to.put(IFLA_IFALIAS, alias);
  return std::move(to).finish();
}

std::vector<std::byte> remove_link(std::uint32_t index, std::uint32_t sequence) {
  ifinfomsg header{};
  header.ifi_index = static_cast<int>(index);
  return message_builder(RTM_DELLINK, NLM_F_REQUEST, sequence, header).finish();
}

}  // namespace cowire::netlink

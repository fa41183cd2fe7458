// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/describe_change.hpp>

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include <cstdio>

namespace cowire {

std::string_view name(route_change::kind kind) noexcept {
  using enum route_change::kind;
  switch (kind) {
    case link:
      return "link";
    case address:
      return "address";
    case route:
      return "route";
    case rule:
      return "rule";
    case neighbour:
      return "neighbour";
    case nexthop:
      return "nexthop";
    case netconf:
      return "netconf";
    case membership:
      return "membership";
    case output:
      return "output";
    case resynced:
      return "resynced";
  }
  return "";
}

namespace detail {
namespace {

std::string family_name(ip_family family) { return family == ip_family::v4 ? "inet" : "inet6"; }

std::string device_name(const mirror& state, std::uint32_t index) {
  if (index == 0) return "";
  const auto* device = state.find_device(index);
  return device ? device->link.name : "if" + std::to_string(index);
}

std::string table_name(std::uint32_t table) {
  switch (table) {
    case RT_TABLE_DEFAULT:
      return "default";
    case RT_TABLE_MAIN:
      return "main";
    case RT_TABLE_LOCAL:
      return "local";
    default:
      return std::to_string(table);
  }
}

std::string route_type(std::uint8_t type) {
  switch (type) {
    case RTN_LOCAL:
      return "local";
    case RTN_BROADCAST:
      return "broadcast";
    case RTN_ANYCAST:
      return "anycast";
    case RTN_MULTICAST:
      return "multicast";
    case RTN_BLACKHOLE:
      return "blackhole";
    case RTN_UNREACHABLE:
      return "unreachable";
    case RTN_PROHIBIT:
      return "prohibit";
    case RTN_THROW:
      return "throw";
    default:
      return "unicast";
  }
}

std::string neighbour_state(std::uint16_t state) {
  static constexpr std::pair<std::uint16_t, const char*> names[] = {
      {NUD_INCOMPLETE, "INCOMPLETE"}, {NUD_REACHABLE, "REACHABLE"}, {NUD_STALE, "STALE"},
      {NUD_DELAY, "DELAY"},           {NUD_PROBE, "PROBE"},         {NUD_FAILED, "FAILED"},
      {NUD_NOARP, "NOARP"},           {NUD_PERMANENT, "PERMANENT"}};
  for (const auto& [bit, text] : names)
    if ((state & bit) != 0) return text;
  return "NONE";
}

std::string lower_layer_address(const std::vector<std::uint8_t>& address) {
  std::string out;
  char text[4];
  for (const auto byte : address) {
    std::snprintf(text, sizeof text, "%s%02x", out.empty() ? "" : ":", byte);
    out += text;
  }
  return out;
}

struct describer {
  const mirror& state;
  route_change out;

  void operator()(const netlink::link& m) {
    out.what = route_change::kind::link;
    out.device = m.name;
    const bool up = (m.flags & IFF_UP) != 0;
    out.detail = std::string(up ? "up" : "down") + (m.carrier ? "" : " no-carrier") + " mtu " +
                 std::to_string(m.mtu) + " " + lower_layer_address(m.address);
  }
  void operator()(const netlink::address& m) {
    out.what = route_change::kind::address;
    out.family = family_name(m.local.family());
    out.destination = m.local.to_string() + "/" + std::to_string(m.prefix_length);
    out.device = device_name(state, m.index);
  }
  void operator()(const netlink::route& m) {
    out.what = route_change::kind::route;
    out.family = family_name(m.destination.family());
    out.destination = m.destination.length() == 0 ? "default" : m.destination.to_string();
    out.table = table_name(m.table);
    if (m.preferred_source) out.source = m.preferred_source->to_string();
    std::string separator;
    for (const auto& hop : m.next_hops) {
      if (hop.gateway) out.gateway += separator + hop.gateway->to_string();
      out.device += separator + device_name(state, hop.index);
      separator = ",";
    }
    out.detail = route_type(m.type) + " metric " + std::to_string(m.priority);
    if (m.nexthop_id != 0) out.detail += " nhid " + std::to_string(m.nexthop_id);
  }
  void operator()(const netlink::rule& m) {
    out.what = route_change::kind::rule;
    out.family = family_name(m.family);
    out.table = table_name(m.table);
    if (m.to) out.destination = m.to->to_string();
    if (m.from) out.source = m.from->to_string();
    out.device = m.output_interface;
    out.detail = "priority " + std::to_string(m.priority);
  }
  void operator()(const netlink::neighbour& m) {
    out.what = route_change::kind::neighbour;
    out.family = family_name(m.destination.family());
    out.destination = m.destination.to_string();
    out.device = device_name(state, m.index);
    out.detail = neighbour_state(m.state) + " " + lower_layer_address(m.link_address);
  }
  void operator()(const netlink::nexthop_object& m) {
    out.what = route_change::kind::nexthop;
    out.device = device_name(state, m.index);
    if (m.gateway) out.gateway = m.gateway->to_string();
    out.detail = "id " + std::to_string(m.id);
  }
  void operator()(const netlink::nexthop_bucket& m) {
    out.what = route_change::kind::nexthop;
    out.detail = "id " + std::to_string(m.group) + " bucket " + std::to_string(m.index) +
                 " nexthop " + std::to_string(m.member);
  }
  void operator()(const netlink::netconf& m) {
    out.what = route_change::kind::netconf;
    out.family = family_name(m.family);
    out.device = m.index > 0 ? device_name(state, static_cast<std::uint32_t>(m.index)) : "";
  }
  void operator()(const netlink::membership& m) {
    out.what = route_change::kind::membership;
    out.family = family_name(m.group.family());
    out.destination = m.group.to_string();
    out.device = device_name(state, m.index);
  }
};

}  // namespace

route_change describe(const netlink::message& message, const mirror& state) {
  describer d{state, {}};
  std::visit(d, message);
  d.out.removed = std::visit(
      [](const auto& m) {
        if constexpr (requires { m.action; })
          return m.action == netlink::action::remove;
        else
          return false;
      },
      message);
  return std::move(d.out);
}

}  // namespace detail
}  // namespace cowire

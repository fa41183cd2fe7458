// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/route_view.hpp>

#include <cowire/base/error.hpp>
#include <cowire/cli/names.hpp>

#include <linux/rtnetlink.h>

#include <array>
#include <utility>

namespace cowire::cli {
namespace {

std::string hexadecimal_byte(std::uint8_t value) {
  constexpr std::string_view digits = "0123456789abcdef";
  return {digits[value >> 4], digits[value & 15]};
}

std::string prefix_text(const ip_prefix& prefix) {
  if (prefix.length() == 0) return "default";
  return prefix.is_host() ? prefix.address().to_string() : prefix.to_string();
}

// "via" tells the family where it is not the destination's.
void add_gateway(json& out, ip_family family, const std::optional<ip_address>& gateway) {
  if (!gateway) return;
  if (gateway->family() == family)
    out["gateway"] = gateway->to_string();
  else
    out["via"] = {{"family", gateway->is_v6() ? "inet6" : "inet"}, {"host", gateway->to_string()}};
}

json flags_json(std::uint32_t flags) {
  constexpr std::array<std::pair<std::uint32_t, const char*>, 9> names{
      {{RTNH_F_DEAD, "dead"},
       {RTNH_F_ONLINK, "onlink"},
       {RTNH_F_PERVASIVE, "pervasive"},
       {RTNH_F_OFFLOAD, "offload"},
       {RTNH_F_TRAP, "trap"},
       {RTNH_F_LINKDOWN, "linkdown"},
       {RTNH_F_UNRESOLVED, "unresolved"},
       {RTM_F_OFFLOAD, "rt_offload"},
       {RTM_F_TRAP, "rt_trap"}}};
  auto out = json::array();
  for (const auto& [bit, name] : names)
    if ((flags & bit) != 0) out.push_back(name);
  return out;
}

template <class Member>
json member_json(ip_family family, const Member& member, std::uint32_t interface_index) {
  json out;
  add_gateway(out, family, member.gateway);
  out["dev"] = interface_name(interface_index);
  out["weight"] = member.weight;
  out["flags"] = flags_json(member.flags);
  return out;
}

void add_metrics(json& out, const netlink::route_metrics& metrics) {
  json found;
  if (metrics.mtu != 0) found["mtu"] = metrics.mtu;
  if (metrics.advmss != 0) found["advmss"] = metrics.advmss;
  if (metrics.hop_limit != 0) found["hoplimit"] = metrics.hop_limit;
  if (!found.empty()) out["metrics"] = json::array({found});
}

std::string preference_name(std::uint8_t preference) {
  return preference == 1 ? "high" : preference == 3 ? "low" : "medium";
}

void add_type(json& out, std::uint8_t type) {
  if (type != RTN_UNICAST) out["type"] = type_name(type);
}

void add_tos(json& out, std::uint8_t tos) {
  if (tos != 0) out["tos"] = "0x" + hexadecimal_byte(tos);
}

/// As nft(8) writes them: "53", "8000-8100".
json ports_json(const port_ranges& ranges) {
  auto out = json::array();
  for (const port_range& one : ranges) {
    if (one.last < one.first || one.last == 0) continue;
    const std::string first = std::to_string(one.first);
    out.push_back(one.first == one.last ? first : first + "-" + std::to_string(one.last));
  }
  return out;
}

json cowire_json(const explanation& answer) {
  const hop& h = answer.template_hop;
  if (h.egress == divert_slot) {
    json diverted{{"divert", name(h.reason)}, {"text", describe(h.reason)}};
    if (!answer.output.untouched()) diverted["obstacle"] = answer.output.obstacle;
    if (!h.diverts_all_ports())
      diverted[h.ports_inside ? "fast_ports" : "diverted_ports"] = ports_json(h.ports);
    return diverted;
  }
  std::string header;
  for (std::size_t i = header_capacity - h.header_length; i < header_capacity; ++i)
    header += hexadecimal_byte(std::to_integer<std::uint8_t>(h.header[i]));
  json out;
  out["egress"] = interface_name(h.interface_index);
  out["output"] = h.is_tracked() ? "tracked" : "untouched";
  if (h.egress_of_ports != divert_slot)
    out[h.ports_inside ? "untracked_ports" : "tracked_ports"] = ports_json(h.ports);
  if (answer.destination_mac) out["destination_mac"] = answer.destination_mac->to_string();
  out["header_template"] = header;
  out["payload_offset"] = h.header_length;
  out["max_payload"] = h.max_payload;
  return out;
}

// What the kernel's answer holds beyond the route: IPv4 and IPv6 differ.
void add_answer_tail_v4(json& out, const flow& question, const resolution& r) {
  if (question.cls.mark != 0) out["mark"] = question.cls.mark;
  out["uid"] = question.cls.uid;
  auto cache = json::array();
  if (r.type == RTN_LOCAL || r.type == RTN_BROADCAST) cache.push_back("local");
  if (r.type == RTN_BROADCAST) cache.push_back("brd");
  if (r.type == RTN_MULTICAST) cache.push_back("mc");
  out["cache"] = std::move(cache);
  if (r.route) add_metrics(out, r.route->metrics);
}

void add_answer_tail_v6(json& out, const resolution& r) {
  if (!r.route) return;
  add_metrics(out, r.route->metrics);
  out["pref"] = preference_name(r.route->preference);
}

}  // namespace

json route_json(const netlink::route& route, bool show_table) {
  const auto family = route.destination.family();
  json out;
  add_type(out, route.type);
  out["dst"] = prefix_text(route.destination);
  if (route.source.length() != 0) out["from"] = prefix_text(route.source);
  add_tos(out, route.tos);
  if (route.nexthop_id != 0) out["nhid"] = route.nexthop_id;
  const bool single = route.next_hops.size() == 1;
  if (single) {
    const auto& hop = route.next_hops.front();
    add_gateway(out, family, hop.gateway);
    if (hop.index != 0) out["dev"] = interface_name(hop.index);
  }
  if (show_table || route.table != RT_TABLE_MAIN) out["table"] = table_name(route.table);
  if (route.protocol != RTPROT_BOOT) out["protocol"] = protocol_name(route.protocol);
  if (family == ip_family::v4 && route.scope != RT_SCOPE_UNIVERSE)
    out["scope"] = scope_name(route.scope);
  if (route.preferred_source) out["prefsrc"] = route.preferred_source->to_string();
  if (route.priority != 0 || family == ip_family::v6) out["metric"] = route.priority;
  out["flags"] = flags_json(single ? route.flags | route.next_hops.front().flags : route.flags);
  if (route.expires_s) out["expires"] = *route.expires_s;
  add_metrics(out, route.metrics);
  if (family == ip_family::v6) out["pref"] = preference_name(route.preference);
  if (route.next_hops.size() > 1)
    for (const auto& hop : route.next_hops)
      out["nexthops"].push_back(member_json(family, hop, hop.index));
  return out;
}

json answer_json(const flow& question, const explanation& answer) {
  const auto& r = answer.decision;
  const auto family = question.destination.family();
  const auto& asked = question.cls.source(family);
  json out;
  if (r.error != 0) {
    out["dst"] = question.destination.to_string();
    out["error"] = errno_name(r.error);
    return out;
  }
  add_type(out, r.type);
  out["dst"] = question.destination.to_string();
  if (asked)
    out["from"] = asked->to_string();
  else if (family == ip_family::v6)
    out["from"] = "::";
  if (r.route) add_tos(out, r.route->tos);
  if (r.type != RTN_LOCAL && r.type != RTN_BROADCAST && r.chosen < r.members.size())
    add_gateway(out, family, r.members[r.chosen].gateway);
  out["dev"] = interface_name(r.interface_index);
  if (r.table != RT_TABLE_MAIN && r.table != RT_TABLE_UNSPEC) out["table"] = table_name(r.table);
  if (family == ip_family::v6 && r.route && r.route->protocol != RTPROT_BOOT)
    out["protocol"] = protocol_name(r.route->protocol);
  if (r.source && !asked) out["prefsrc"] = r.source->to_string();
  if (family == ip_family::v6 && r.route) out["metric"] = r.route->priority;
  out["flags"] =
      json::array();  // A decision has none: those of the route and its members do not pass over.
  if (family == ip_family::v4)
    add_answer_tail_v4(out, question, r);
  else
    add_answer_tail_v6(out, r);
  if (r.members.size() > 1)
    for (const auto& member : r.members)
      out["nexthops"].push_back(member_json(family, member, member.interface_index));
  out["cowire"] = cowire_json(answer);
  return out;
}

}  // namespace cowire::cli

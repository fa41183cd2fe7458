// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/tunnel_view.hpp>

#include <cowire/async/tunnel.hpp>
#include <cowire/base/gre_flag.hpp>
#include <cowire/base/header_size.hpp>
#include <cowire/cli/json_text.hpp>
#include <cowire/cli/names.hpp>
#include <cowire/gre/header.hpp>

#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_tunnel.h>
#include <linux/ip6_tunnel.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

namespace cowire::cli {
namespace {

using netlink::tunnel_info;

constexpr std::size_t gue_size = 4;  // Without options (draft-ietf-intarea-gue).

std::string formatted(const char* format, unsigned value) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), format, value);
  return text.data();
}

bool outer_is_v6(const netlink::link& tunnel) {
  return netlink::find_tunnel_kind(tunnel.kind)->outer == ip_family::v6;
}
bool is_gre(const netlink::link& tunnel) { return netlink::find_tunnel_kind(tunnel.kind)->gre; }

// ---- as `ip -d -j link` ------------------------------------------------------------------------

json link_flags(std::uint32_t flags) {
  constexpr std::array<std::pair<std::uint32_t, const char*>, 13> names{
      {{IFF_LOOPBACK, "LOOPBACK"},
       {IFF_BROADCAST, "BROADCAST"},
       {IFF_POINTOPOINT, "POINTOPOINT"},
       {IFF_MULTICAST, "MULTICAST"},
       {IFF_NOARP, "NOARP"},
       {IFF_ALLMULTI, "ALLMULTI"},
       {IFF_PROMISC, "PROMISC"},
       {IFF_MASTER, "MASTER"},
       {IFF_SLAVE, "SLAVE"},
       {IFF_UP, "UP"},
       {IFF_LOWER_UP, "LOWER_UP"},
       {IFF_DORMANT, "DORMANT"},
       {IFF_ECHO, "ECHO"}}};
  auto out = json::array();
  if ((flags & IFF_UP) != 0 && (flags & IFF_RUNNING) == 0) out.push_back("NO-CARRIER");
  for (const auto& [bit, name] : names)
    if ((flags & bit) != 0) out.push_back(name);
  return out;
}

std::string operational_state_name(std::uint8_t state) {
  constexpr std::array names{"UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN",
                             "TESTING", "DORMANT",    "UP"};
  return state < names.size() ? names[state] : formatted("%#x", state);
}

std::string link_type_name(std::uint16_t type) {
  switch (type) {
    case ARPHRD_ETHER:
      return "ether";
    case ARPHRD_TUNNEL:
      return "ipip";
    case ARPHRD_TUNNEL6:
      return "tunnel6";
    case ARPHRD_SIT:
      return "sit";
    case ARPHRD_IPGRE:
      return "gre";
    case ARPHRD_IP6GRE:
      return "gre6";
    case ARPHRD_NONE:
      return "none";
    default:
      return formatted("[%u]", type);
  }
}

std::string hardware_address_text(const std::vector<std::uint8_t>& bytes) {
  if (bytes.size() == 4) return ip_address::from_bytes(ip_family::v4, bytes.data()).to_string();
  if (bytes.size() == 16) return ip_address::from_bytes(ip_family::v6, bytes.data()).to_string();
  std::string out;
  for (const auto byte : bytes) out += (out.empty() ? "" : ":") + formatted("%02x", byte);
  return out;
}

std::string end_point(const ip_address& address) {
  return address.is_unspecified() ? "any" : address.to_string();
}

const char* protocol_word(const netlink::link& tunnel, std::uint8_t protocol) {
  const bool v6 = outer_is_v6(tunnel);
  switch (protocol) {
    case IPPROTO_IPIP:
      return v6 ? "ipip6" : "ipip";
    case IPPROTO_IPV6:
      return v6 ? "ip6ip6" : "ip6ip";
    case IPPROTO_MPLS:
      return "mplsip";
    default:
      return "any";
  }
}

void add_outer_v4(json& out, const netlink::link& tunnel, const tunnel_info& info) {
  if (info.tos != 0) out["tos"] = formatted("%#x", info.tos);
  out["pmtudisc"] = info.pmtu_discovery;
  if (info.ignore_df) out["ignore_df"] = true;
  if (tunnel.kind == "sit" && (info.flags & SIT_ISATAP) != 0) out["isatap"] = true;
}

void add_outer_v6(json& out, const tunnel_info& info) {
  const auto given = [&](std::uint32_t flag) { return (info.flags & flag) != 0; };
  if (given(IP6_TNL_F_IGN_ENCAP_LIMIT))
    out["ip6_tnl_f_ign_encap_limit"] = true;
  else
    out["encap_limit"] = info.encap_limit;
  if (given(IP6_TNL_F_USE_ORIG_TCLASS))
    out["ip6_tnl_f_use_orig_tclass"] = true;
  else
    out["tclass"] = formatted("0x%02x", info.flow_info.host() >> 20 & 0xff);
  if (given(IP6_TNL_F_USE_ORIG_FLOWLABEL))
    out["ip6_tnl_f_use_orig_flowlabel"] = true;
  else
    out["flowlabel"] = formatted("0x%05x", info.flow_info.host() & 0xfffff);
  if (given(IP6_TNL_F_RCV_DSCP_COPY)) out["ip6_tnl_f_rcv_dscp_copy"] = true;
}

std::string key_text(be32 key) { return ip_address::v4(key.host()).to_string(); }

void add_gre(json& out, const tunnel_info& info) {
  if ((info.input_flags & gre_flag::key) != 0) out["ikey"] = key_text(info.input_key);
  if ((info.output_flags & gre_flag::key) != 0) out["okey"] = key_text(info.output_key);
  if ((info.input_flags & gre_flag::sequence) != 0) out["iseq"] = true;
  if ((info.output_flags & gre_flag::sequence) != 0) out["oseq"] = true;
  if ((info.input_flags & gre_flag::checksum) != 0) out["icsum"] = true;
  if ((info.output_flags & gre_flag::checksum) != 0) out["ocsum"] = true;
}

json encap_json(const tunnel_info& info) {
  const auto flags = info.encapsulation_flags;
  json out;
  if (info.encapsulation_type == TUNNEL_ENCAP_FOU)
    out["type"] = "fou";
  else if (info.encapsulation_type == TUNNEL_ENCAP_GUE)
    out["type"] = "gue";
  else
    out["type"] = nullptr;
  out["sport"] = info.encapsulation_source_port.host();
  out["dport"] = info.encapsulation_destination_port.host();
  out["csum"] = (flags & TUNNEL_ENCAP_FLAG_CSUM) != 0;
  out["csum6"] = (flags & TUNNEL_ENCAP_FLAG_CSUM6) != 0;
  out["remcsum"] = (flags & TUNNEL_ENCAP_FLAG_REMCSUM) != 0;
  return out;
}

json info_data(const netlink::link& tunnel, const tunnel_info& info) {
  json out = json::object();
  if (info.collect_metadata) out["external"] = true;
  if (!is_gre(tunnel)) out["proto"] = protocol_word(tunnel, info.protocol);
  out["remote"] = end_point(info.remote);
  out["local"] = end_point(info.local);
  if (info.link != 0) out["link"] = interface_name(info.link);
  out["ttl"] = info.ttl;
  if (outer_is_v6(tunnel))
    add_outer_v6(out, info);
  else
    add_outer_v4(out, tunnel, info);
  if (is_gre(tunnel)) add_gre(out, info);
  if (outer_is_v6(tunnel) && (info.flags & IP6_TNL_F_ALLOW_LOCAL_REMOTE) != 0)
    out["ip6_tnl_f_allow_local_remote"] = true;
  if (outer_is_v6(tunnel) && (info.flags & IP6_TNL_F_USE_ORIG_FWMARK) != 0)
    out["ip6_tnl_f_use_orig_fwmark"] = true;
  else if (info.fwmark != 0)
    out["fwmark"] = formatted("%#x", info.fwmark);
  if (info.encapsulation_type != TUNNEL_ENCAP_NONE) out["encap"] = encap_json(info);
  return out;
}

json link_json(const netlink::link& tunnel, const tunnel_info& info) {
  json out;
  out["ifindex"] = tunnel.index;
  if (tunnel.lower_in_other_namespace)
    out["link_index"] = tunnel.lower;
  else if (tunnel.lower != tunnel.index)
    out["link"] = tunnel.lower == 0 ? json(nullptr) : json(interface_name(tunnel.lower));
  out["ifname"] = tunnel.name;
  out["flags"] = link_flags(tunnel.flags);
  out["mtu"] = tunnel.mtu;
  if (tunnel.master != 0) out["master"] = interface_name(tunnel.master);
  out["operstate"] = operational_state_name(tunnel.operational_state);
  out["link_type"] = link_type_name(tunnel.hardware_type);
  if (!tunnel.address.empty()) out["address"] = hardware_address_text(tunnel.address);
  if (!tunnel.broadcast.empty()) {
    if ((tunnel.flags & IFF_POINTOPOINT) != 0) out["link_pointtopoint"] = true;
    out["broadcast"] = hardware_address_text(tunnel.broadcast);
  }
  out["linkinfo"] = {{"info_kind", tunnel.kind}, {"info_data", info_data(tunnel, info)}};
  return out;
}

// ---- what cowire knows -------------------------------------------------------------------------

std::uint32_t overhead_of(const netlink::link& tunnel, const tunnel_info& info) {
  const bool v6 = outer_is_v6(tunnel);
  std::size_t size = header_size::ip(v6 ? ip_family::v6 : ip_family::v4);
  if (v6 && (info.flags & IP6_TNL_F_IGN_ENCAP_LIMIT) == 0) size += header_size::encapsulation_limit;
  if (info.encapsulation_type != TUNNEL_ENCAP_NONE) size += header_size::udp;
  if (info.encapsulation_type == TUNNEL_ENCAP_GUE) size += gue_size;
  if (is_gre(tunnel)) {
    gre::header header;
    header.checksum = (info.output_flags & gre_flag::checksum) != 0;
    if ((info.output_flags & gre_flag::key) != 0) header.key = info.output_key;
    if ((info.output_flags & gre_flag::sequence) != 0) header.sequence = 0;
    size += header.size();
  }
  if (tunnel.hardware_type == ARPHRD_ETHER) size += header_size::ethernet;
  return static_cast<std::uint32_t>(size);
}

bool carries(const netlink::link& tunnel, const tunnel_info& info, ip_family family) {
  if (is_gre(tunnel) || info.protocol == 0) return true;
  return info.protocol == (family == ip_family::v4 ? IPPROTO_IPIP : IPPROTO_IPV6);
}

// How the kernel routes the outer packet: with the tunnel's own flow, as root.
flow outer_question(const netlink::link& tunnel, const tunnel_info& info) {
  flow out;
  out.destination = info.remote;
  if (!info.local.is_unspecified())
    (info.local.is_v4() ? out.cls.source_v4 : out.cls.source_v6) = info.local;
  out.cls.mark = info.fwmark;
  out.cls.output_interface = info.link;
  out.cls.ip_protocol = is_gre(tunnel)                         ? IPPROTO_GRE
                        : carries(tunnel, info, ip_family::v4) ? IPPROTO_IPIP
                                                               : IPPROTO_IPV6;
  if (outer_is_v6(tunnel))
    out.cls.tos = static_cast<std::uint8_t>(info.flow_info.host() >> 20);
  else if ((info.tos & 1) == 0)
    out.cls.tos = info.tos & 0xfc;
  return out;
}

// Any address that a route leads to: the last but one, for the last may be a broadcast.
ip_address inside(const ip_prefix& prefix) {
  if (prefix.is_host()) return prefix.address();
  auto bytes = prefix.last().bytes();
  bytes[prefix.address().size() - 1] &= 0xfe;
  return ip_address::from_bytes(prefix.family(), bytes.data());
}

// A destination that a route of `family` leads into the tunnel, one that somebody made rather than
// the kernel; an arbitrary one without a route.
ip_address inner_destination(const mirror& state, const netlink::link& tunnel, ip_family family) {
  // Reserved for documentation (RFC 5737, RFC 3849).
  auto found = *ip_address::parse(family == ip_family::v4 ? "192.0.2.1" : "2001:db8::1");
  for (const auto& [id, prefixes] : state.tables(family))
    for (const auto& [prefix, entries] : prefixes)
      for (const auto& entry : entries) {
        const auto& route = entry.route;
        const bool leads_in = std::ranges::any_of(
            route.next_hops, [&](const auto& hop) { return hop.index == tunnel.index; });
        if (route.type != RTN_UNICAST || !leads_in || prefix.length() == 0 ||
            prefix.address().is_multicast())
          continue;
        found = inside(prefix);
        if (route.protocol != RTPROT_KERNEL) return found;
      }
  return found;
}

// A datagram into the tunnel; IPv4 if it carries that: bound to a device, it needs no route.
flow inner_question(const mirror& state, const netlink::link& tunnel, const tunnel_info& info) {
  const auto family = carries(tunnel, info, ip_family::v4) ? ip_family::v4 : ip_family::v6;
  flow out;
  out.destination = inner_destination(state, tunnel, family);
  out.cls.output_interface = tunnel.index;
  out.cls.uid = ::getuid();
  return out;
}

void add_underlay(json& out, const kernel_state& kernel, const netlink::link& tunnel,
                  const tunnel_info& info) {
  if (info.remote.is_unspecified()) return;  // Each neighbour has an underlay of its own.
  const auto question = outer_question(tunnel, info);
  const auto answer = kernel.explain(question);
  auto underlay = answer_json(question, answer);
  const auto known = underlay.contains("cowire") ? underlay["cowire"] : json::object();
  for (const char* key : {"cowire", "cache", "uid"}) underlay.erase(key);
  out["underlay"] = std::move(underlay);
  for (const char* key : {"egress", "destination_mac"})
    if (known.contains(key)) out[key] = known[key];
  if (answer.decision.error != 0) return;
  const std::uint32_t overhead = overhead_of(tunnel, info), way = answer.decision.mtu;
  out["mtu_budget"] = {{"tunnel", tunnel.mtu},
                       {"underlay", way},
                       {"overhead", overhead},
                       {"fits", std::min(tunnel.mtu, way > overhead ? way - overhead : 0)}};
}

void add_service(json& out, const kernel_state& kernel, const netlink::link& tunnel,
                 const tunnel_info& info) {
  const auto question = inner_question(kernel.state(), tunnel, info);
  const auto answer = answer_json(question, kernel.explain(question));
  const auto known = answer.contains("cowire") ? answer["cowire"] : json::object();
  out["fast"] = known.contains("header_template");
  out["asked_for"] = question.destination.to_string();
  for (const char* key : {"divert", "text", "header_template", "payload_offset", "max_payload"})
    if (known.contains(key)) out[key] = known[key];
  if (answer.contains("error")) out["error"] = answer["error"];
}

json knowledge_json(const kernel_state& kernel, const netlink::link& tunnel,
                    const tunnel_info& info) {
  if (const auto why = left_to_kernel(tunnel); !why.empty())
    return {{"fast", false}, {"left_to_kernel", why}};
  json out;
  if ((tunnel.flags & IFF_UP) != 0)
    add_service(out, kernel, tunnel, info);
  else
    out = {{"fast", false},
           {"divert", name(divert_reason::egress_down)},
           {"text", describe(divert_reason::egress_down)}};
  add_underlay(out, kernel, tunnel, info);
  return out;
}

}  // namespace

// /proc/thread-self follows the thread's namespace; /sys is that of whoever mounted it.
std::map<std::string, sent_traffic> read_sent_traffic() {
  std::map<std::string, sent_traffic> out;
  std::ifstream file("/proc/thread-self/net/dev");
  for (std::string line; std::getline(file, line);) {
    const auto colon = line.find(':');
    const auto start = line.find_first_not_of(' ');
    if (colon == std::string::npos || start > colon) continue;
    std::istringstream columns(line.substr(colon + 1));
    std::uint64_t received = 0, fifo = 0;
    for (int column = 0; column < 8; ++column) columns >> received;
    sent_traffic sent;
    if (columns >> sent.bytes >> sent.packets >> sent.errors >> sent.dropped >> fifo >>
        sent.collisions >> sent.carrier_errors)
      out[line.substr(start, colon - start)] = sent;
  }
  return out;
}

json tunnel_json(const kernel_state& kernel, const netlink::link& tunnel,
                 const sent_traffic& sent) {
  const auto& info = std::get<tunnel_info>(tunnel.info);
  auto out = link_json(tunnel, info);
  out["stats64"]["tx"] = {{"bytes", sent.bytes},
                          {"packets", sent.packets},
                          {"errors", sent.errors},
                          {"dropped", sent.dropped},
                          {"carrier_errors", sent.carrier_errors},
                          {"collisions", sent.collisions}};
  out["cowire"] = knowledge_json(kernel, tunnel, info);
  return out;
}

std::string tunnel_text(const netlink::link& tunnel, const json& shown) {
  const auto& info = std::get<tunnel_info>(tunnel.info);
  const json &known = shown["cowire"], &tx = shown["stats64"]["tx"];
  std::ostringstream out;
  out << tunnel.name << ':';
  for (const auto& [name, value] :
       words_of(declaration_of(tunnel, info.link == 0 ? "" : interface_name(info.link))))
    out << ' ' << name << (value.empty() ? "" : " ") << value;
  out << ((tunnel.flags & IFF_UP) != 0 ? " up" : " down");
  out << "\n    kernel sent " << tx["packets"] << " datagrams, " << tx["errors"] << " errors, "
      << tx["dropped"] << " dropped";
  if (const auto underlay = known.find("underlay"); underlay != known.end())
    out << "\n    underlay " << route_text(*underlay);
  if (const auto budget = known.find("mtu_budget"); budget != known.end())
    out << "\n    mtu " << (*budget)["fits"] << " fit: tunnel " << (*budget)["tunnel"]
        << ", underlay " << (*budget)["underlay"] << " less " << (*budget)["overhead"];
  out << "\n    cowire " << (known["fast"] == true ? "fast" : "kernel path");
  add_word(out, known, "asked_for", " for ");
  add_word(out, known, "egress", " egress ");
  add_word(out, known, "destination_mac", " mac ");
  add_word(out, known, "error", " error ");
  add_word(out, known, "divert", " divert ");
  add_word(out, known, "text", " (");
  if (known.contains("text")) out << ')';
  add_word(out, known, "left_to_kernel", ": ");
  add_word(out, known, "payload_offset", " payload at ");
  add_word(out, known, "header_template", " header ");
  return out.str();
}

}  // namespace cowire::cli

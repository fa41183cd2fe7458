// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/tunnel.hpp>

#include <cowire/base/assert.hpp>
#include <cowire/base/checked_range.hpp>
#include <cowire/base/error.hpp>
#include <cowire/base/gre_flag.hpp>

#include <linux/if.h>
#include <linux/if_tunnel.h>
#include <linux/ip6_tunnel.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>

namespace cowire {
namespace {

using netlink::tunnel_info;

constexpr std::array<std::string_view, 7> fallback_devices = {
    "gre0", "gretap0", "erspan0", "ip6gre0", "tunl0", "sit0", "ip6tnl0"};

constexpr std::uint32_t tclass_mask = 0x0ff00000, flow_label_mask = 0x000fffff;
constexpr std::uint8_t iproute2_hop_limit = 64, iproute2_encap_limit = 4;

// The words of modes that are not the kind's own name.
std::string mode_of(const tunnel_declaration& tunnel) {
  if (tunnel.kind != "ip6tnl") return tunnel.kind;
  return tunnel.info.protocol == IPPROTO_IPV6   ? "ip6ip6"
         : tunnel.info.protocol == IPPROTO_IPIP ? "ipip6"
                                                : "any";
}

std::string hexadecimal(std::uint32_t value) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  do out.insert(out.begin(), digits[value & 15]);
  while ((value >>= 4) != 0);
  return "0x" + out;
}

std::string end_point(const ip_address& address) {
  return address.is_unspecified() ? "any" : address.to_string();
}

// A flag in both directions has a word of its own.
void add_pair(std::vector<tunnel_word>& out, const std::string& word, bool in, bool to,
              const std::string& in_value = "", const std::string& out_value = "") {
  if (in && to && in_value == out_value) return out.push_back({word, in_value});
  if (in) out.push_back({"i" + word, in_value});
  if (to) out.push_back({"o" + word, out_value});
}

void add_gre(std::vector<tunnel_word>& out, const tunnel_info& info) {
  const auto in = [&](std::uint16_t flag) { return (info.input_flags & flag) != 0; };
  const auto to = [&](std::uint16_t flag) { return (info.output_flags & flag) != 0; };
  add_pair(out, "key", in(gre_flag::key), to(gre_flag::key), std::to_string(info.input_key.host()),
           std::to_string(info.output_key.host()));
  add_pair(out, "csum", in(gre_flag::checksum), to(gre_flag::checksum));
  add_pair(out, "seq", in(gre_flag::sequence), to(gre_flag::sequence));
}

void add_outer_v4(std::vector<tunnel_word>& out, const tunnel_info& info) {
  out.push_back({"ttl", info.ttl == 0 ? "inherit" : std::to_string(info.ttl)});
  if (info.tos == 1)
    out.push_back({"tos", "inherit"});
  else if (info.tos != 0)
    out.push_back({"tos", (info.tos & 1) != 0 ? "inherit/" + hexadecimal(info.tos & 0xfeu)
                                              : hexadecimal(info.tos)});
  out.push_back({info.pmtu_discovery ? "pmtudisc" : "nopmtudisc", ""});
  if (info.ignore_df) out.push_back({"ignore-df", ""});
}

void add_outer_v6(std::vector<tunnel_word>& out, const tunnel_info& info) {
  const auto flow = info.flow_info.host();
  const auto given = [&](std::uint32_t flag) { return (info.flags & flag) != 0; };
  out.push_back({"hoplimit", info.ttl == 0 ? "inherit" : std::to_string(info.ttl)});
  out.push_back(
      {"encaplimit", given(IP6_TNL_F_IGN_ENCAP_LIMIT) ? "none" : std::to_string(info.encap_limit)});
  out.push_back({"tclass", given(IP6_TNL_F_USE_ORIG_TCLASS)
                               ? "inherit"
                               : hexadecimal((flow & tclass_mask) >> 20)});
  out.push_back({"flowlabel", given(IP6_TNL_F_USE_ORIG_FLOWLABEL)
                                  ? "inherit"
                                  : hexadecimal(flow & flow_label_mask)});
  if (given(IP6_TNL_F_ALLOW_LOCAL_REMOTE)) out.push_back({"allow-localremote", ""});
}

// Throws when the device to bind to does not exist.
netlink::link link_of(netlink::request_socket& kernel, const tunnel_declaration& tunnel) {
  netlink::link out;
  out.name = tunnel.name;
  out.kind = tunnel.kind;
  out.mtu = tunnel.mtu;
  out.flags = tunnel.up ? unsigned{IFF_UP} : 0u;
  tunnel_info info = tunnel.info;
  if (!tunnel.device.empty()) {
    const auto device = find_link(kernel, tunnel.device);
    if (!device)
      throw_error(errno_code(ENODEV), "tunnel " + tunnel.name + ": dev '" + tunnel.device +
                                          "' is no interface here; 'ip link' lists them");
    info.link = device->index;
  }
  out.info = info;
  return out;
}

[[noreturn]] void refuse(netlink::request_socket& kernel, const tunnel_declaration& tunnel,
                         std::error_code ec) {
  const std::string words = kernel.diagnostic(), who = "tunnel " + tunnel.name + ": ";
  const netlink::tunnel_kind* kind = declarable_kind(tunnel.kind);
  COWIRE_ASSERT(kind != nullptr);
  if (ec == std::errc::operation_not_supported)
    throw_error(error::unsupported, who + "this kernel has no tunnels of kind " + tunnel.kind +
                                        "; load the module " + std::string(kind->module) +
                                        ", or use a kernel with " + std::string(kind->option));
  if (ec == std::errc::file_exists)
    throw_error(ec, who +
                        "another tunnel has the same remote, local, dev and key; "
                        "'cowire tunnel show' lists them");
  throw_error(ec, who + "refused by the kernel" + (words.empty() ? "" : " (" + words + ")"));
}

void add_address(netlink::request_socket& kernel, std::uint32_t index,
                 const interface_address& wanted, std::error_code& ec) {
  netlink::address address;
  address.index = index;
  address.local = address.peer = wanted.local;
  address.prefix_length = static_cast<std::uint8_t>(wanted.prefix_length);
  auto request = netlink::encode(address);
  kernel.execute(std::move(request), ec);
}

std::vector<interface_address> addresses_of(netlink::request_socket& kernel, std::uint32_t index) {
  std::vector<interface_address> out;
  netlink::dump_filter of_interface;
  of_interface.interface = index;
  for (const auto& m : kernel.dump(netlink::object_kind::address, of_interface)) {
    const auto& address = std::get<netlink::address>(m);
    out.push_back({address.local, address.prefix_length});
  }
  return out;
}

std::string text_of(const interface_address& a) {
  return a.local.to_string() + "/" + std::to_string(a.prefix_length);
}

std::string text_of(const tunnel_word& w) {
  return w.value.empty() ? w.word : w.word + " " + w.value;
}

// The word that says of `words` what `other` says of its own; "" = nothing does.
std::string counterpart(const std::vector<tunnel_word>& words, const tunnel_word& other) {
  const auto found = std::ranges::find(words, other.word, &tunnel_word::word);
  if (found != words.end()) return text_of(*found);
  const bool negative = other.word.starts_with("no");
  const auto opposite = std::ranges::find(
      words, negative ? other.word.substr(2) : "no" + other.word, &tunnel_word::word);
  return opposite == words.end() ? "without" : text_of(*opposite);
}

}  // namespace

const netlink::tunnel_kind* declarable_kind(std::string_view name) noexcept {
  const auto* found = netlink::find_tunnel_kind(name);
  return found != nullptr && found->whole ? found : nullptr;
}

tunnel_declaration default_tunnel(std::string name, std::string_view kind) {
  const netlink::tunnel_kind* known = declarable_kind(kind);
  COWIRE_ASSERT(known != nullptr);
  tunnel_declaration out;
  out.name = std::move(name);
  out.kind = kind;
  out.info.local = out.info.remote = ip_address::any(known->outer);
  if (known->outer == ip_family::v6) {
    out.info.ttl = iproute2_hop_limit;
    out.info.encap_limit = iproute2_encap_limit;
    out.info.encapsulation_flags = TUNNEL_ENCAP_FLAG_CSUM6;
  }
  if (kind == "ipip") out.info.protocol = IPPROTO_IPIP;
  if (kind == "sit") out.info.protocol = IPPROTO_IPV6;
  return out;
}

tunnel_declaration declaration_of(const netlink::link& tunnel, std::string device) {
  tunnel_declaration out;
  out.device = std::move(device);
  out.name = tunnel.name;
  out.kind = tunnel.kind;
  out.info = std::get<tunnel_info>(tunnel.info);
  out.mtu = tunnel.mtu;
  out.up = (tunnel.flags & IFF_UP) != 0;
  return out;
}

std::vector<tunnel_word> words_of(const tunnel_declaration& tunnel) {
  const tunnel_info& info = tunnel.info;
  std::vector<tunnel_word> out = {{"mode", mode_of(tunnel)},
                                  {"remote", end_point(info.remote)},
                                  {"local", end_point(info.local)}};
  if (!tunnel.device.empty()) out.push_back({"dev", tunnel.device});
  info.local.is_v4() ? add_outer_v4(out, info) : add_outer_v6(out, info);
  add_gre(out, info);
  if ((info.flags & IP6_TNL_F_USE_ORIG_FWMARK) != 0 && info.local.is_v6())
    out.push_back({"fwmark", "inherit"});
  else if (info.fwmark != 0)
    out.push_back({"fwmark", hexadecimal(info.fwmark)});
  if (info.encapsulation_type != TUNNEL_ENCAP_NONE)
    out.push_back({"encap", info.encapsulation_type == TUNNEL_ENCAP_FOU   ? "fou"
                            : info.encapsulation_type == TUNNEL_ENCAP_GUE ? "gue"
                                                                          : "unknown"});
  if (tunnel.mtu != 0) out.push_back({"mtu", std::to_string(tunnel.mtu)});
  for (const auto& address : tunnel.addresses) out.push_back({"address", text_of(address)});
  return out;
}

std::string left_to_kernel(const netlink::link& tunnel) {
  const auto* info = std::get_if<tunnel_info>(&tunnel.info);
  if (info == nullptr) return "";
  if (info->collect_metadata)
    return "external: its headers come from each route's encapsulation (collect metadata)";
  const bool no_end_points = info->local.is_unspecified() && info->remote.is_unspecified();
  if (no_end_points && std::ranges::find(fallback_devices, tunnel.name) != fallback_devices.end())
    return "the fallback device of its kernel module, which receives what no other tunnel takes";
  if (tunnel.kind == "erspan") return "erspan: its headers mirror traffic, not datagrams";
  return "";
}

std::optional<netlink::link> find_link(netlink::request_socket& kernel, std::string_view name) {
  for (auto& m : kernel.dump(netlink::object_kind::link))
    if (auto& link = std::get<netlink::link>(m); link.name == name) return std::move(link);
  return std::nullopt;
}

std::uint32_t create_tunnel(netlink::request_socket& kernel, const tunnel_declaration& tunnel) {
  for (const auto& [local, prefix_length] : tunnel.addresses)
    check_range(("tunnel " + tunnel.name + ": prefix_length of " + local.to_string()).c_str(),
                prefix_length, 0, local.bits());
  std::error_code ec;
  if (find_link(kernel, tunnel.name))
    throw_error(errno_code(EEXIST),
                "tunnel " + tunnel.name +
                    ": an interface of this name is there; remove it or use another name");
  kernel.execute(netlink::create_link(link_of(kernel, tunnel), 0), ec);
  if (ec) refuse(kernel, tunnel, ec);
  const auto made = find_link(kernel, tunnel.name);
  if (!made) throw_error(errno_code(ENODEV), "tunnel " + tunnel.name + ": removed by another");
  for (const auto& address : tunnel.addresses) {
    add_address(kernel, made->index, address, ec);
    if (!ec) continue;
    const std::string words = kernel.diagnostic();
    std::error_code ignored;
    kernel.execute(netlink::remove_link(made->index, 0), ignored);
    throw_error(ec, "tunnel " + tunnel.name + ": address " + text_of(address) +
                        (words.empty() ? "" : " (" + words + ")"));
  }
  return made->index;
}

void change_tunnel(netlink::request_socket& kernel, const tunnel_declaration& tunnel) {
  const auto existing = find_link(kernel, tunnel.name);
  if (!existing)
    throw_error(errno_code(ENODEV), "tunnel " + tunnel.name +
                                        ": no such interface; 'cowire tunnel show' lists tunnels");
  auto wanted = link_of(kernel, tunnel);
  wanted.index = existing->index;
  std::error_code ec;
  kernel.execute(netlink::change_link(wanted, 0), ec);
  if (ec) refuse(kernel, tunnel, ec);
}

void remove_tunnel(netlink::request_socket& kernel, const netlink::link& tunnel) {
  std::error_code ec;
  kernel.execute(netlink::remove_link(tunnel.index, 0), ec);
  if (ec) throw_error(ec, "tunnel " + tunnel.name + ": cannot be removed");
}

std::string difference(netlink::request_socket& kernel, const tunnel_declaration& declared,
                       const netlink::link& existing) {
  if (!std::holds_alternative<tunnel_info>(existing.info))
    return "a tunnel, is " + (existing.kind.empty() ? "another device" : "a " + existing.kind);
  std::string device;
  for (const auto& m : kernel.dump(netlink::object_kind::link))
    if (const auto& link = std::get<netlink::link>(m);
        link.index == std::get<tunnel_info>(existing.info).link)
      device = link.name;
  auto actual = declaration_of(existing, std::move(device));
  if (declared.mtu == 0) actual.mtu = 0;
  const auto wanted = words_of(declared), found = words_of(actual);
  for (const auto& word : wanted)
    if (word.word != "address" && std::ranges::find(found, word) == found.end())
      return text_of(word) + ", is " + counterpart(found, word);
  for (const auto& word : found)
    if (std::ranges::find(wanted, word) == wanted.end())
      return counterpart(wanted, word) + ", is " + text_of(word);
  const auto addresses = addresses_of(kernel, existing.index);
  for (const auto& address : declared.addresses)
    if (std::ranges::find(addresses, address) == addresses.end())
      return "address " + text_of(address) + ", is without";
  if (declared.up && !actual.up) return "up, is down";
  return "";
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/tunnel_words.hpp>

#include <cowire/base/gre_flag.hpp>
#include <cowire/cli/parse.hpp>

#include <linux/if.h>
#include <linux/ip6_tunnel.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

namespace cowire::cli {
namespace {

using netlink::tunnel_kind;

constexpr std::uint32_t tclass_mask = 0x0ff00000, flow_label_mask = 0x000fffff;
/// What every IPv4 link must carry (RFC 791); the kernel's own limits are narrower.
constexpr std::uint64_t mtu_min = 68, mtu_max = 65535;

const tunnel_kind& kind_of(const tunnel_declaration& tunnel) {
  return *declarable_kind(tunnel.kind);
}

struct mode {
  const char *word, *kind;
  std::uint8_t protocol;
};
constexpr std::array<mode, 19> modes = {{
    {"gre", "gre", 0},
    {"gre/ip", "gre", 0},
    {"gretap", "gretap", 0},
    {"ip6gre", "ip6gre", 0},
    {"gre/ipv6", "ip6gre", 0},
    {"ip6gretap", "ip6gretap", 0},
    {"ipip", "ipip", IPPROTO_IPIP},
    {"ip/ip", "ipip", IPPROTO_IPIP},
    {"sit", "sit", IPPROTO_IPV6},
    {"ipv6/ip", "sit", IPPROTO_IPV6},
    {"ip6ip6", "ip6tnl", IPPROTO_IPV6},
    {"ipv6/ipv6", "ip6tnl", IPPROTO_IPV6},
    {"ipip6", "ip6tnl", IPPROTO_IPIP},
    {"ip4ip6", "ip6tnl", IPPROTO_IPIP},
    {"ip/ipv6", "ip6tnl", IPPROTO_IPIP},
    {"ipv4/ipv6", "ip6tnl", IPPROTO_IPIP},
    {"any", "ip6tnl", 0},
    {"any/ipv6", "ip6tnl", 0},
    {"ip6tnl", "ip6tnl", 0},
}};

const mode& find_mode(const std::string& text) {
  const auto found = std::ranges::find_if(modes, [&](const mode& m) { return text == m.word; });
  if (found == modes.end())
    throw usage_error("mode '" + text +
                      "': no such mode; use gre, gretap, ip6gre, ip6gretap, ipip, sit, ip6ip6, "
                      "ipip6 or any");
  return *found;
}

// A word of the family [no][i|o]{key,csum,seq}: both directions, or one.
struct gre_word {
  std::uint16_t flag = 0;
  bool off = false, input = true, output = true;
};

std::optional<gre_word> as_gre_word(std::string_view word) {
  gre_word out;
  if (word.starts_with("no")) {
    out.off = true;
    word.remove_prefix(2);
  }
  if (word.starts_with('i') || word.starts_with('o')) {
    out.input = word.front() == 'i';
    out.output = !out.input;
    word.remove_prefix(1);
  }
  out.flag = word == "key"    ? gre_flag::key
             : word == "csum" ? gre_flag::checksum
                              : gre_flag::sequence;
  if (out.flag == gre_flag::sequence && word != "seq") return std::nullopt;
  return out;
}

be32 parse_key(const std::string& word, const std::string& text) {
  if (text.find('.') == std::string::npos)
    return be32::from_host(static_cast<std::uint32_t>(
        parse_number(word, text, 0, std::numeric_limits<std::uint32_t>::max())));
  const auto dotted = ip_address::parse(text);
  if (!dotted || !dotted->is_v4())
    throw usage_error(word + " '" + text + "': not a key; use a number or four as in 0.0.0.5");
  be32 key;
  std::memcpy(&key.raw, dotted->bytes().data(), sizeof key.raw);
  return key;
}

void apply_gre(tunnel_declaration& to, const gre_word& which, const std::string& word,
               const std::string& value) {
  const auto set = [&](std::uint16_t& flags, be32& key) {
    flags = static_cast<std::uint16_t>(which.off ? flags & ~which.flag : flags | which.flag);
    if (which.flag == gre_flag::key) key = which.off ? be32{} : parse_key(word, value);
  };
  if (which.input) set(to.info.input_flags, to.info.input_key);
  if (which.output) set(to.info.output_flags, to.info.output_key);
}

void set_flag(tunnel_declaration& to, std::uint32_t flag, bool on) {
  to.info.flags = on ? to.info.flags | flag : to.info.flags & ~flag;
}

void set_flow(tunnel_declaration& to, std::uint32_t mask, std::uint32_t bits) {
  to.info.flow_info = be32::from_host((to.info.flow_info.host() & ~mask) | (bits & mask));
}

ip_address parse_end_point(const tunnel_declaration& tunnel, const std::string& word,
                           const std::string& text) {
  const auto family = kind_of(tunnel).outer;
  if (text == "any") return ip_address::any(family);
  const auto address = parse_address(word, text);
  if (address.family() != family)
    throw usage_error(word + " '" + text + "': not of the family of a tunnel of mode " +
                      tunnel.kind + "; use an " + (family == ip_family::v4 ? "IPv4" : "IPv6") +
                      " address");
  return address;
}

void set_tos(tunnel_declaration& to, const std::string& value) {
  constexpr std::string_view base_after = "inherit/";
  const bool inherits = value == "inherit", has_base = value.starts_with(base_after);
  const auto base = has_base ? value.substr(base_after.size()) : value;
  const auto byte =
      inherits ? std::uint8_t{0} : static_cast<std::uint8_t>(parse_number("tos", base, 0, 255, 16));
  if (kind_of(to).outer == ip_family::v4) {
    to.info.tos = inherits || has_base ? byte | 1 : byte;
    return;
  }
  if (has_base)
    throw usage_error("tclass '" + value + "': IPv6 has no base; use inherit, or 00 to ff");
  set_flag(to, IP6_TNL_F_USE_ORIG_TCLASS, inherits);
  set_flow(to, tclass_mask, std::uint32_t{byte} << 20);
}

void set_flow_label(tunnel_declaration& to, const std::string& value) {
  const bool inherits = value == "inherit";
  set_flag(to, IP6_TNL_F_USE_ORIG_FLOWLABEL, inherits);
  set_flow(to, flow_label_mask,
           inherits ? 0
                    : static_cast<std::uint32_t>(
                          parse_number("flowlabel", value, 0, flow_label_mask, 16)));
}

void set_encap_limit(tunnel_declaration& to, const std::string& value) {
  const bool none = value == "none";
  set_flag(to, IP6_TNL_F_IGN_ENCAP_LIMIT, none);
  if (!none)
    to.info.encap_limit = static_cast<std::uint8_t>(parse_number("encaplimit", value, 0, 255));
}

void set_fwmark(tunnel_declaration& to, const std::string& value) {
  const bool v6 = kind_of(to).outer == ip_family::v6, inherits = v6 && value == "inherit";
  if (v6) set_flag(to, IP6_TNL_F_USE_ORIG_FWMARK, inherits);
  to.info.fwmark = inherits ? 0
                            : static_cast<std::uint32_t>(parse_number(
                                  "fwmark", value, 0, std::numeric_limits<std::uint32_t>::max()));
}

// Which tunnels have a word.
enum class scope : std::uint8_t { any, outer_v4, outer_v6, gre_v4 };

struct rule {
  const char* word;
  scope where;
  bool value;
  void (*apply)(tunnel_declaration&, const std::string&);
};

const auto rules = std::to_array<rule>({
    {"remote", scope::any, true,
     [](auto& to, auto& value) { to.info.remote = parse_end_point(to, "remote", value); }},
    {"local", scope::any, true,
     [](auto& to, auto& value) { to.info.local = parse_end_point(to, "local", value); }},
    {"dev", scope::any, true,
     [](auto& to, auto& value) { to.device = parse_interface_name("dev", value); }},
    {"ttl", scope::any, true,
     [](auto& to, auto& value) {
       to.info.ttl = value == "inherit"
                         ? std::uint8_t{0}
                         : static_cast<std::uint8_t>(parse_number("ttl", value, 1, 255));
     }},
    {"tos", scope::any, true, set_tos},
    {"fwmark", scope::any, true, set_fwmark},
    {"mtu", scope::any, true,
     [](auto& to, auto& value) {
       to.mtu = static_cast<std::uint32_t>(parse_number("mtu", value, mtu_min, mtu_max));
     }},
    {"pmtudisc", scope::outer_v4, false, [](auto& to, auto&) { to.info.pmtu_discovery = true; }},
    {"nopmtudisc", scope::outer_v4, false, [](auto& to, auto&) { to.info.pmtu_discovery = false; }},
    {"ignore-df", scope::gre_v4, false, [](auto& to, auto&) { to.info.ignore_df = true; }},
    {"noignore-df", scope::gre_v4, false, [](auto& to, auto&) { to.info.ignore_df = false; }},
    {"encaplimit", scope::outer_v6, true, set_encap_limit},
    {"flowlabel", scope::outer_v6, true, set_flow_label},
    {"allow-localremote", scope::outer_v6, false,
     [](auto& to, auto&) { set_flag(to, IP6_TNL_F_ALLOW_LOCAL_REMOTE, true); }},
    {"noallow-localremote", scope::outer_v6, false,
     [](auto& to, auto&) { set_flag(to, IP6_TNL_F_ALLOW_LOCAL_REMOTE, false); }},
});

std::string_view canonical(std::string_view word) {
  if (word == "hoplimit" || word == "hlim") return "ttl";
  if (word == "tclass" || word == "dsfield") return "tos";
  if (word == "fl") return "flowlabel";
  return word;
}

const rule& find_rule(const std::string& word) {
  const auto found =
      std::ranges::find_if(rules, [&](const rule& r) { return canonical(word) == r.word; });
  if (found == rules.end())
    throw usage_error("'" + word + "': not a word of a tunnel; see 'cowire tunnel add --help'");
  return *found;
}

void check_scope(const tunnel_declaration& tunnel, const std::string& word, bool has,
                 const char* who) {
  if (!has)
    throw usage_error(word + ": a tunnel of mode " + tunnel.kind + " has none; only " + who +
                      " do");
}

bool applies(scope where, const tunnel_kind& kind) {
  const bool v4 = kind.outer == ip_family::v4;
  switch (where) {
    case scope::outer_v4:
      return v4;
    case scope::outer_v6:
      return !v4;
    case scope::gre_v4:
      return v4 && kind.gre;
    default:
      return true;
  }
}

const char* who_has(scope where) {
  return where == scope::outer_v6   ? "ip6gre, ip6gretap, ip6ip6, ipip6 and any"
         : where == scope::outer_v4 ? "gre, gretap, ipip and sit"
                                    : "gre and gretap";
}

// Applies words with their values; of the modes only those of the tunnel's own kind.
void apply_words(tunnel_declaration& tunnel, std::span<const std::string> words) {
  while (!words.empty()) {
    const std::string& word = words.front();
    const bool has_value = word == "mode" || takes_value(word);
    if (has_value && words.size() == 1)
      throw usage_error("'" + word + "': its value is missing; write it after the word");
    if (word == "mode") {
      const mode& wanted = find_mode(words[1]);
      if (wanted.kind != tunnel.kind)
        throw usage_error("mode '" + words[1] + "': " + tunnel.name + " is of mode " + tunnel.kind +
                          ", and that cannot change; remove it and add another");
      tunnel.info.protocol = wanted.protocol;
    } else {
      apply_word(tunnel, word, has_value ? words[1] : "");
    }
    words = words.subspan(has_value ? 2 : 1);
  }
  complete_tunnel(tunnel);
}

}  // namespace

std::string parse_interface_name(const std::string& what, const std::string& text) {
  const bool fits = !text.empty() && text.size() < IFNAMSIZ && text != "." && text != "..";
  const bool clean = std::ranges::none_of(text, [](unsigned char c) {
    return c == '/' || c == ':' || c == '%' || std::isspace(c) != 0;
  });
  if (!fits || !clean)
    throw usage_error(what + " '" + text + "': not a name for an interface; use 1 to " +
                      std::to_string(IFNAMSIZ - 1) + " characters without space, '/', ':' and '%'");
  return text;
}

interface_address parse_interface_address(const std::string& what, const std::string& text) {
  const auto slash = text.find('/');
  interface_address out;
  out.local = parse_address(what, text.substr(0, slash));
  out.prefix_length = slash == std::string::npos
                          ? out.local.bits()
                          : static_cast<unsigned>(parse_number(what, text.substr(slash + 1), 0,
                                                               out.local.bits(), 10));
  return out;
}

tunnel_declaration tunnel_of_mode(const std::string& name, const std::string& word) {
  const mode& found = find_mode(word);
  auto tunnel = default_tunnel(parse_interface_name("tunnel", name), found.kind);
  tunnel.info.protocol = found.protocol;
  return tunnel;
}

bool takes_value(const std::string& word) {
  if (const auto gre = as_gre_word(word)) return gre->flag == gre_flag::key && !gre->off;
  return find_rule(word).value;
}

void apply_word(tunnel_declaration& tunnel, const std::string& word, const std::string& value) {
  const tunnel_kind& kind = kind_of(tunnel);
  if (const auto gre = as_gre_word(word)) {
    check_scope(tunnel, word, kind.gre, "gre, gretap, ip6gre and ip6gretap");
    return apply_gre(tunnel, *gre, word, value);
  }
  const rule& found = find_rule(word);
  check_scope(tunnel, word, applies(found.where, kind), who_has(found.where));
  found.apply(tunnel, value);
}

void complete_tunnel(tunnel_declaration& tunnel) {
  auto& info = tunnel.info;
  if (info.ignore_df && info.pmtu_discovery)
    throw usage_error("tunnel " + tunnel.name +
                      ": ignore-df excludes pmtudisc, which is the default; add nopmtudisc");
  if (!info.remote.is_multicast()) return;
  if (info.local.is_unspecified())
    throw usage_error("tunnel " + tunnel.name + ": remote " + info.remote.to_string() +
                      " is multicast and needs a local address; add local ADDR");
  if (!kind_of(tunnel).gre || info.remote.is_v6()) return;
  be32 group;
  std::memcpy(&group.raw, info.remote.bytes().data(), sizeof group.raw);
  const auto preset = [&](std::uint16_t& flags, be32& key) {
    if (key.raw != 0) return;
    key = group;
    flags |= gre_flag::key;
  };
  preset(info.input_flags, info.input_key);
  preset(info.output_flags, info.output_key);
}

tunnel_declaration parse_tunnel(std::span<const std::string> words) {
  if (!words.empty() && words.front() == "name") words = words.subspan(1);
  if (words.empty())
    throw usage_error("tunnel add: no name; write: cowire tunnel add NAME mode gre remote ADDR");
  const std::string& name = words.front();
  words = words.subspan(1);
  const auto mode = std::ranges::find(words, "mode");
  if (mode == words.end() || mode + 1 == words.end())
    throw usage_error("tunnel " + name + ": no mode; add for example: mode gre");
  auto tunnel = tunnel_of_mode(name, *(mode + 1));
  apply_words(tunnel, words);
  return tunnel;
}

void parse_tunnel_change(tunnel_declaration& tunnel, std::span<const std::string> words) {
  apply_words(tunnel, words);
}

}  // namespace cowire::cli

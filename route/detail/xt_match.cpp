// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/xt_match.hpp>

#include <linux/netfilter/xt_addrtype.h>
#include <linux/netfilter/xt_conntrack.h>
#include <linux/netfilter/xt_mark.h>
#include <linux/netfilter/xt_multiport.h>
#include <linux/netfilter/xt_owner.h>
#include <linux/netfilter/xt_tcpudp.h>

#include <algorithm>
#include <cstring>
#include <string_view>

namespace cowire::detail {
namespace {

using netlink::nft::expressions::xt_match;

/// The kernel pads the struct to 8 bytes, and it may have grown.
template <class T>
std::optional<T> info_of(const xt_match& match) {
  if (match.info.size() < sizeof(T)) return std::nullopt;
  T out;
  std::memcpy(&out, match.info.data(), sizeof out);
  return out;
}

constexpr ternary inverted_if(bool inverted, ternary t) { return inverted ? negated(t) : t; }

constexpr ternary both(ternary a, ternary b) {
  if (a == ternary::no || b == ternary::no) return ternary::no;
  return a == ternary::yes && b == ternary::yes ? ternary::yes : ternary::maybe;
}

/// low <= value <= high, of numbers of which one side may be unknown.
template <class T>
ternary between(const std::optional<T>& value, std::uint32_t low, std::uint32_t high) {
  if (value) return ternary_of(*value >= low && *value <= high);
  return low == 0 && high >= T(-1) ? ternary::yes : ternary::maybe;
}

ternary match_mark(const xt_match& match, const xt_subject& subject) {
  const auto info = info_of<xt_mark_mtinfo1>(match);
  if (!info || match.revision != 1) return ternary::maybe;
  const std::uint32_t known = subject.mark.known & info->mask;
  ternary same = ternary::maybe;
  if (((subject.mark.value ^ info->mark) & known) != 0 || (info->mark & ~info->mask) != 0)
    same = ternary::no;
  else if (known == info->mask)
    same = ternary::yes;
  return inverted_if(info->invert != 0, same);
}

ternary match_owner(const xt_match& match, const xt_subject& subject) {
  const auto info = info_of<xt_owner_match_info>(match);
  constexpr unsigned known = XT_OWNER_UID | XT_OWNER_GID | XT_OWNER_SOCKET;
  if (!info || match.revision != 1 || (info->match & ~known) != 0) return ternary::maybe;
  ternary all = ternary::yes;
  // There is a socket; asked for and inverted, that does not match.
  if ((info->match & XT_OWNER_SOCKET) != 0 && (info->invert & XT_OWNER_SOCKET) != 0)
    return ternary::no;
  if ((info->match & XT_OWNER_UID) != 0)
    all = both(all, inverted_if((info->invert & XT_OWNER_UID) != 0,
                                between(subject.uid, info->uid_min, info->uid_max)));
  if ((info->match & XT_OWNER_GID) != 0)
    all = both(all, inverted_if((info->invert & XT_OWNER_GID) != 0,
                                between(subject.gid, info->gid_min, info->gid_max)));
  // Supplementary groups may count for a group (XT_OWNER_SUPPL_GROUPS is not among the known).
  return all;
}

ternary match_udp(const xt_match& match, const xt_subject& subject) {
  const auto info = info_of<xt_udp>(match);
  if (!info || match.revision != 0 || (info->invflags & ~unsigned{XT_UDP_INV_MASK}) != 0)
    return ternary::maybe;
  return both(inverted_if((info->invflags & XT_UDP_INV_SRCPT) != 0,
                          between(subject.source_port, info->spts[0], info->spts[1])),
              inverted_if((info->invflags & XT_UDP_INV_DSTPT) != 0,
                          between(subject.destination_port, info->dpts[0], info->dpts[1])));
}

ternary match_multiport(const xt_match& match, const xt_subject& subject) {
  const auto info = info_of<xt_multiport_v1>(match);
  if (!info || match.revision != 1 || info->count > XT_MULTI_PORTS ||
      info->flags > XT_MULTIPORT_EITHER)
    return ternary::maybe;
  const auto listed = [&](const std::optional<std::uint16_t>& port) {
    ternary any = ternary::no;
    for (unsigned i = 0; i < info->count; ++i) {
      const std::uint32_t low = info->ports[i];
      const bool range = info->pflags[i] != 0 && i + 1 < info->count;
      const ternary one = between(port, low, range ? info->ports[++i] : low);
      if (one == ternary::yes) return ternary::yes;
      if (one == ternary::maybe) any = ternary::maybe;
    }
    return any;
  };
  const ternary source = listed(subject.source_port),
                destination = listed(subject.destination_port);
  ternary found = info->flags == XT_MULTIPORT_SOURCE ? source : destination;
  if (info->flags == XT_MULTIPORT_EITHER)
    found = negated(both(negated(source), negated(destination)));
  return inverted_if(info->invert != 0, found);
}

ternary match_addrtype(const xt_match& match, const xt_subject& subject) {
  const auto info = info_of<xt_addrtype_info_v1>(match);
  constexpr unsigned known = XT_ADDRTYPE_INVERT_SOURCE | XT_ADDRTYPE_INVERT_DEST;
  if (!info || match.revision != 1 || info->source != 0 || (info->flags & ~known) != 0 ||
      !subject.destination_type || *subject.destination_type > 15)
    return ternary::maybe;
  if (info->dest == 0) return ternary::yes;
  return inverted_if((info->flags & XT_ADDRTYPE_INVERT_DEST) != 0,
                     ternary_of((info->dest >> *subject.destination_type & 1) != 0));
}

/// Of connection tracking the state alone is known. Its bits are those of nf_tables, but for those
/// of translations.
ternary match_conntrack(const xt_match& match, const xt_subject& subject) {
  const auto info = info_of<xt_conntrack_mtinfo3>(match);
  constexpr std::uint32_t plain = 0x4f;  // INVALID, ESTABLISHED, RELATED, NEW, UNTRACKED
  if (!info || match.revision != 3 || info->match_flags != XT_CONNTRACK_STATE ||
      (info->state_mask & ~plain) != 0 || subject.tracking.known != ~std::uint32_t{0})
    return ternary::maybe;
  return inverted_if((info->invert_flags & XT_CONNTRACK_STATE) != 0,
                     ternary_of((info->state_mask & subject.tracking.value) != 0));
}

/// Headers of IPv6 that no datagram has when rules see it, a tunnel's outer one neither: it is cut
/// into fragments later. Without the header these do not match, be they inverted or not
/// (net/ipv6/netfilter/ip6t_rt.c, ip6t_frag.c, ip6t_hbh.c). A header of destination options, which
/// tunnels have, is another thing.
constexpr std::string_view of_absent_headers[] = {"rt", "frag", "hbh"};

/// They keep nothing, and the kernel tracks no connections on their behalf: none of their files
/// calls nf_ct_netns_get().
constexpr std::string_view stateless[] = {
    "comment", "mark",       "owner",    "udp",     "udplite",  "tcp",    "multiport", "addrtype",
    "set",     "iprange",    "length",   "dscp",    "tos",      "ecn",    "ttl",       "hl",
    "icmp",    "icmp6",      "pkttype",  "physdev", "devgroup", "cgroup", "policy",    "realm",
    "mac",     "string",     "u32",      "time",    "cpu",      "bpf",    "esp",       "ah",
    "sctp",    "dccp",       "tcpmss",   "rt",      "frag",     "hbh",    "dst",       "mh",
    "eui64",   "ipv6header", "rpfilter", "socket"};
/// They keep nothing, and the kernel tracks connections as long as they are in a rule.
constexpr std::string_view stateless_of_tracking[] = {"conntrack", "state", "connmark", "helper"};
/// net/netfilter/xt_*.c, as above.
constexpr std::string_view stateful_without_tracking[] = {"limit", "hashlimit", "recent",
                                                          "quota", "statistic", "nfacct"};
/// Targets of which none has connections tracked: net/netfilter/xt_*.c, net/ipv[46]/netfilter.
constexpr std::string_view targets_without[] = {
    "REJECT", "LOG",  "NFLOG", "MARK", "CHECKSUM", "CLASSIFY", "TCPMSS",  "TCPOPTSTRIP", "TTL",
    "HL",     "DSCP", "TOS",   "ECN",  "SET",      "TEE",      "NFQUEUE", "TRACE",       "AUDIT"};

template <std::size_t N>
bool is_among(const std::string_view (&names)[N], std::string_view name) {
  return std::ranges::find(names, name) != std::end(names);
}

}  // namespace

ternary matches(const xt_match& match, const xt_subject& subject) {
  const std::string_view name = match.name;
  if (name == "comment") return ternary::yes;
  if (is_among(of_absent_headers, name)) return ternary::no;
  if (name == "mark") return match_mark(match, subject);
  if (name == "owner") return match_owner(match, subject);
  if (name == "udp") return match_udp(match, subject);
  if (name == "multiport") return match_multiport(match, subject);
  if (name == "addrtype") return match_addrtype(match, subject);
  if (name == "conntrack") return match_conntrack(match, subject);
  return ternary::maybe;
}

bool changes_state(const xt_match& match) {
  return !is_among(stateless, match.name) && !is_among(stateless_of_tracking, match.name);
}

bool uses_tracking(const xt_match& match) {
  return !is_among(stateless, match.name) && !is_among(stateful_without_tracking, match.name);
}

bool target_uses_tracking(std::string_view name) { return !is_among(targets_without, name); }

}  // namespace cowire::detail

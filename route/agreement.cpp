// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/agreement.hpp>

#include <linux/if.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>
#include <optional>

namespace cowire {
namespace {

/// The two bits of the TOS byte that are ECN, not routing.
constexpr std::uint8_t dscp_mask = 0xfc;

constexpr std::uint16_t valid_states =
    NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY;

/// Collects what differs.
class differences {
 public:
  void add(const std::string& text) { text_ += (text_.empty() ? "" : "; ") + text; }
  void compare(const char* what, const std::string& ours, const std::string& kernel) {
    if (ours != kernel) add(what + (" " + ours) + ", the kernel's " + kernel);
  }
  void compare(const char* what, std::uint64_t ours, std::uint64_t kernel) {
    compare(what, std::to_string(ours), std::to_string(kernel));
  }
  [[nodiscard]] const std::string& text() const noexcept { return text_; }

 private:
  std::string text_;
};

std::string text_of(const std::optional<ip_address>& address) {
  return address ? address->to_string() : "-";
}

std::string text_of(std::uint32_t interface_index, const std::optional<ip_address>& gateway) {
  return "interface " + std::to_string(interface_index) + " via " + text_of(gateway);
}

netlink::next_hop hop_of(const netlink::route& route) {
  return route.next_hops.empty() ? netlink::next_hop{} : route.next_hops.front();
}

bool is_cached_by_object(const resolution& ours) {
  return ours.route && ours.route->nexthop_id != 0;
}

/// IPv4 routes with equal next hops share them, and with them the cached type.
std::uint8_t shown_type(std::uint8_t type) {
  return type == RTN_MULTICAST ? std::uint8_t{RTN_UNICAST} : type;
}

/// Until rules are configured IPv4 answers main for everything.
bool table_is_told(const mirror& state, const flow& asked) {
  return asked.destination.is_v6() || state.rules_configured(ip_family::v4).value_or(false);
}

std::string path_disagreement(const mirror& state, const flow& asked, const resolution& ours,
                              const netlink::route& theirs) {
  differences found;
  const bool cached = is_cached_by_object(ours), v4 = asked.destination.is_v4();
  if (!cached) found.compare("type", shown_type(ours.type), shown_type(theirs.type));
  if (table_is_told(state, asked) && (v4 || !cached))
    found.compare("table", ours.table, theirs.table);
  const netlink::next_hop hop = hop_of(theirs);
  std::optional<ip_address> source = ours.source;
  if (ours.members.empty()) {
    found.compare("interface", ours.interface_index, hop.index);
  } else if (const path_member* member = member_of(ours, hop)) {
    source = member->source;
  } else {
    const path_member& chosen = ours.members[ours.chosen];
    found.add(text_of(chosen.interface_index, chosen.gateway) + ", the kernel's " +
              text_of(hop.index, hop.gateway));
  }
  if (!asked.cls.source(asked.destination.family()) && ours.type == RTN_UNICAST)
    found.compare("source", text_of(source), text_of(theirs.preferred_source));
  if (v4 && ours.type == RTN_UNICAST && ours.route && !cached)
    found.compare("hop limit", ours.route->metrics.hop_limit, theirs.metrics.hop_limit);
  return found.text();
}

void compare_mtus(const mirror& state, const flow& asked, const resolution& ours,
                  const netlink::route& theirs, agreement& out) {
  if (ours.type != RTN_UNICAST || !ours.route || is_cached_by_object(ours)) return;
  const mirror::device* device = state.find_device(hop_of(theirs).index);
  const std::uint32_t device_mtu =
      device != nullptr ? std::min<std::uint32_t>(device->link.mtu, 0xffff) : 0;
  const auto whole = [&](std::uint32_t metric) { return metric != 0 ? metric : device_mtu; };
  out.kernel_mtu = whole(theirs.metrics.mtu);
  if (state.path_mtu(asked.destination) == 0) {
    out.mtu = whole(ours.route->metrics.mtu);
    out.same_mtu = ours.route->metrics.mtu == theirs.metrics.mtu;
  } else {
    // Of a secret choice ours may be over a larger device than the kernel's.
    out.mtu = ours.choice_known || device == nullptr ? ours.mtu : std::min(ours.mtu, device_mtu);
    out.same_mtu = out.kernel_mtu >= out.mtu;
  }
}

}  // namespace

netlink::route_query query_of(const flow& asked) {
  netlink::route_query query;
  query.destination = asked.destination;
  query.source = asked.cls.source(asked.destination.family());
  query.output_interface = asked.cls.output_interface;
  query.mark = asked.cls.mark;
  query.tos = asked.cls.tos & dscp_mask;
  query.ip_protocol = asked.cls.ip_protocol;
  if (asked.cls.source_port != 0) query.source_port = asked.cls.source_port;
  if (asked.destination_port != 0) query.destination_port = asked.destination_port;
  query.uid = asked.cls.uid;
  return query;
}

std::string agreement::text() const {
  differences all;
  if (!path.empty()) all.add(path);
  if (!same_mtu)
    all.add("MTU " + std::to_string(mtu) + ", the kernel's " + std::to_string(kernel_mtu));
  return all.text();
}

agreement compare_answers(const mirror& state, const flow& asked, const resolution& ours,
                          const netlink::route_answer& kernel) {
  agreement out;
  if (ours.error != kernel.error_number) {
    differences found;
    found.compare("errno", static_cast<std::uint64_t>(ours.error),
                  static_cast<std::uint64_t>(kernel.error_number));
    out.path = found.text();
  } else if (ours.error == 0) {
    out.path = path_disagreement(state, asked, ours, kernel.route);
    compare_mtus(state, asked, ours, kernel.route, out);
  }
  return out;
}

std::string match_disagreement(const mirror& state, const flow& asked, const resolution& ours,
                               const netlink::route_answer& kernel) {
  differences found;
  // An answer without a route has none to show.
  const int error = ours.error == 0 && !ours.route ? EHOSTUNREACH : ours.error;
  if (error != kernel.error_number)
    found.compare("matched: errno", static_cast<std::uint64_t>(error),
                  static_cast<std::uint64_t>(kernel.error_number));
  if (error != 0 || kernel.error_number != 0 || !match_is_told(ours)) return found.text();
  const netlink::route &mine = *ours.route, &theirs = kernel.route;
  found.compare("matched:", mine.destination.to_string(), theirs.destination.to_string());
  if (table_is_told(state, asked)) found.compare("matched: table", mine.table, theirs.table);
  found.compare("matched: from", mine.source.to_string(), theirs.source.to_string());
  found.compare("matched: metric", mine.priority, theirs.priority);
  found.compare("matched: tos", mine.tos, theirs.tos);
  return found.text();
}

bool match_is_told(const resolution& ours) noexcept {
  return ours.route &&
         (ours.route->nexthop_id == 0 || ours.route->destination.family() == ip_family::v4);
}

bool is_left_to_kernel(const resolution& ours) noexcept {
  return ours.divert || ours.error != 0 || ours.type != RTN_UNICAST;
}

bool next_hop_is_unresolved(const mirror& state, const flow& asked, const resolution& ours) {
  if (ours.chosen >= ours.members.size()) return false;
  const path_member& member = ours.members[ours.chosen];
  const mirror::device* device = state.find_device(member.interface_index);
  if (device == nullptr || (device->link.flags & IFF_NOARP) != 0) return false;
  const netlink::neighbour* known =
      state.find_neighbour(member.interface_index, member.gateway.value_or(asked.destination));
  return known == nullptr || (known->state & valid_states) == 0;
}

const path_member* member_of(const resolution& ours, const netlink::next_hop& hop) {
  const auto is_it = [&](const path_member& m) {
    return m.interface_index == hop.index && m.gateway == hop.gateway;
  };
  if (ours.choice_known)
    return is_it(ours.members[ours.chosen]) ? &ours.members[ours.chosen] : nullptr;
  for (const path_share& share : ours.shares)
    if (share.is_known() && is_it(ours.members[share.member])) return &ours.members[share.member];
  return nullptr;
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/tunnel_kind.hpp>
#include <cowire/route/detail/judge_destinations.hpp>
#include <cowire/route/detail/output_judge.hpp>
#include <cowire/route/detail/tunnel.hpp>
#include <cowire/route/detail/vrf.hpp>
#include <cowire/route/egress_choice.hpp>
#include <cowire/route/rules.hpp>

#include <algorithm>
#include <utility>
#include <variant>

namespace cowire::detail {
namespace {

/// What answers are told apart by (family_zones::ids), beside reasons.
constexpr std::uint16_t untouched_number = 0, tracked_number = 255;
static_assert(divert_reason_count < tracked_number);

}  // namespace

void output_judge::set(std::shared_ptr<const output_snapshot> snapshot) {
  const bool same_rules =
      snapshot && snapshot_ && sets_ && &*snapshot->netfilter.rules == &*snapshot_->netfilter.rules;
  snapshot_ = std::move(snapshot);
  empty_ = !snapshot_ || is_empty(*snapshot_);
  if (empty_)
    sets_ = nullptr;
  else if (!same_rules)
    sets_ = std::make_unique<output_sets>(*snapshot_->netfilter.rules,
                                          snapshot_->obeyed.strict_counters);
  if (empty_) return forget();
  std::erase_if(asked_, [](const asked& one) { return !one.divides; });
  for (asked& one : asked_) answer_anew(one);
  for (family_zones& zones : zones_) zones.stale = true;
}

void output_judge::forget() {
  asked_.clear();
  for (family_zones& zones : zones_) {
    zones.stale = true;
    // The next questions may come in another order: no number may come to mean something else.
    zones.ids.clear();
  }
}

// ---- questions ----------------------------------------------------------------------------------

output_judge::answer output_judge::judge(const flow_class& cls, const hop_key& hop,
                                         const ip_prefix& where, bool only_to_explain) {
  answer told;
  if (!has_something_to_say()) return told;
  asked& known = ask(cls, hop);
  if (!only_to_explain && !std::exchange(known.divides, true)) zones_of(hop.family).stale = true;
  std::vector<port_range> passing, stopped;
  for (const port_verdicts& one : known.answers) {
    const output_verdict& here = one.answer.look_at(where);
    const auto& reason = here.reason;
    if (reason && !told.reason) told.reason = reason;
    told.tracked |= here.tracked;
    auto& to = reason ? stopped : passing;
    if (!to.empty() && to.back().last + 1 == one.ports.first)
      to.back().last = one.ports.last;
    else
      to.push_back(one.ports);
  }
  if (passing.empty() || stopped.empty()) return told;
  const auto& fewer = passing.size() <= stopped.size() ? passing : stopped;
  if (fewer.size() > port_ranges_max) return told;
  told.ports.emplace();
  told.ports->inside = &fewer == &passing;
  std::ranges::copy(fewer, told.ports->ranges.begin());
  return told;
}

output_verdict output_judge::explain(const flow_class& cls, const hop_key& hop,
                                     const ip_prefix& where, std::uint16_t port) {
  if (!has_something_to_say()) return {};
  const bool ports_count = judge(cls, hop, where, true).ports.has_value();
  for (const port_verdicts& one : ask(cls, hop).answers) {
    const bool concerned = port == 0 || !ports_count || one.ports.contains(port);
    if (auto found = one.answer.of(where); concerned && found.reason) return found;
  }
  return {};
}

output_judge::asked& output_judge::ask(const flow_class& cls, const hop_key& hop) {
  const question about{cls, hop.interface_index, hop.source, hop.tos, hop.hop_limit, hop.multicast};
  const auto known = std::ranges::find(asked_, about, &asked::about);
  if (known != asked_.end()) return *known;
  asked& fresh = asked_.emplace_back();
  fresh.about = about;
  answer_anew(fresh);
  return fresh;
}

/// Whether a decision that is no local one means that the local table has no match: then the type
/// of a destination is what the kernel's fib expression finds there.
bool output_judge::local_table_comes_first(ip_family family) const {
  const auto& rules = state_.rules(family);
  return family == ip_family::v4 && !rules.empty() &&
         rules.front() == initial_rules(family).front();
}

output_flow output_judge::region_of(const question& about) const {
  constexpr std::uint32_t unicast = 1, multicast = 5;  // RTN_UNICAST, RTN_MULTICAST
  output_flow region;
  region.destination = ip_prefix::all(about.family());
  region.source = about.source;
  if (about.cls.source_port != 0) region.source_port = about.cls.source_port;
  region.mark = about.cls.mark;
  region.tos = about.tos;
  if (about.hop_limit != 0) region.ttl = about.hop_limit;
  region.uid = about.cls.uid;
  const bool in_vrf =
      vrf_of(state_, about.interface_index) != 0 || vrf_of(state_, about.cls.output_interface) != 0;
  if (about.multicast)
    region.destination_type = multicast;
  else if (local_table_comes_first(about.family()) && !in_vrf)  // In a VRF it finds something else.
    region.destination_type = unicast;
  const mirror::device* device = state_.find_device(about.interface_index);
  if (device == nullptr) return region;
  const egress_choice below = egress_of(state_, about.interface_index);
  const bool plain = !below.divert && below.interface_index == about.interface_index && !below.tag;
  region.mark_matters_below = !plain;
  if (plain) {
    region.devices = {about.interface_index};
  } else {
    // Every device there is, rather than which of them lie below this one.
    for (const auto& [index, any] : state_.devices()) region.devices.push_back(index);
  }
  leave_by(about.interface_index, region);
  return region;
}

void output_judge::leave_by(std::uint32_t interface_index, output_flow& region) const {
  const mirror::device* device = state_.find_device(interface_index);
  if (device == nullptr) return;
  region.passes_vrf = vrf_of(state_, interface_index) != 0;
  if (region.passes_vrf) return;
  region.output_interface = interface_index;
  region.output_name = device->link.name;
}

std::optional<output_judge::outer_route> output_judge::outer_route_of(const question& about) const {
  const mirror::device* device = state_.find_device(about.interface_index);
  if (device == nullptr || !is_tunnel_kind(device->link.kind)) return std::nullopt;
  const auto through = tunnel_of(device->link);
  if (std::holds_alternative<divert_reason>(through)) return std::nullopt;
  gre::inner_packet packet;
  packet.family = about.family();
  packet.tos = about.tos;
  const auto under = underlay_of(state_, device->link, std::get<gre::tunnel>(through), packet);
  if (std::holds_alternative<divert_reason>(under)) return std::nullopt;
  const auto& route = std::get<underlay>(under);
  return outer_route{route.interface_index, route.source};
}

bool output_judge::outer_routes_differ() const {
  return std::ranges::any_of(
      asked_, [this](const asked& one) { return one.outer != outer_route_of(one.about); });
}

/// What a tunnel wraps around passes the same hooks again; mark and owner are those of the inner.
/// Where the route is not known, the answer is one for all that there may be.
output_verdict output_judge::ask_outer(const netlink::link& tunnel, ip_family carried,
                                       const output_flow& inner,
                                       const std::optional<outer_route>& route) const {
  constexpr std::uint8_t ipip = 4, ipv6_in = 41, gre = 47;
  constexpr std::uint32_t unicast = 1;  // RTN_UNICAST
  const auto& info = std::get<netlink::tunnel_info>(tunnel.info);
  const auto* kind = netlink::find_tunnel_kind(tunnel.kind);
  output_flow outer;
  outer.destination = {info.remote, info.remote.bits()};
  if (!info.local.is_unspecified()) outer.source = info.local;
  if (route) {
    outer.source = route->source;
    leave_by(route->interface_index, outer);
    const bool in_vrf = outer.passes_vrf || vrf_above(state_, info.link) != 0;
    if (local_table_comes_first(info.remote.family()) && !in_vrf) outer.destination_type = unicast;
  } else {
    outer.passes_vrf = std::ranges::any_of(
        state_.devices(), [](const auto& item) { return item.second.link.kind == "vrf"; });
  }
  outer.mark = inner.mark;
  outer.uid = inner.uid;
  outer.tos.reset();
  outer.devices = inner.devices;
  outer.mark_matters_below = true;
  if (kind == nullptr || kind->gre)
    outer.ip_protocol = gre;
  else
    outer.ip_protocol = carried == ip_family::v4 ? ipip : ipv6_in;
  output_verdict found =
      detail::judge_destinations(*snapshot_, *sets_, outer).of(outer.destination);
  if (found.tracked) {
    found.reason = divert_reason::conntrack_new;
    found.obstacle = "connections are tracked, and their entry must be kept alive";
  }
  if (found.reason) found.obstacle = "of the tunnel's outer datagrams: " + found.obstacle;
  return found;
}

void output_judge::answer_anew(asked& one) const {
  const output_flow region = region_of(one.about);
  one.answers = judge_all_ports(*snapshot_, *sets_, region);
  one.outer = outer_route_of(one.about);
  std::optional<outer_route> route = one.outer;
  ip_family carried = one.about.family();
  for (std::uint32_t index = one.about.interface_index;;) {
    const mirror::device* device = state_.find_device(index);
    if (device == nullptr) return;
    const auto* tunnel = std::get_if<netlink::tunnel_info>(&device->link.info);
    if (tunnel == nullptr) return;
    const output_verdict outer = ask_outer(device->link, carried, region, route);
    for (port_verdicts& part : one.answers) part.answer.touch_rest(outer);
    if (!route) return;
    // A tunnel around it, the route of which may depend on what a header inherits.
    index = route->interface_index;
    carried = tunnel->remote.family();
    route.reset();
  }
}

// ---- zones --------------------------------------------------------------------------------------

/// All answers above each other.
std::vector<zone_piece> output_judge::overlay(ip_family family) {
  std::vector<const destination_verdicts*> answers;
  std::vector<address_number> starts;
  std::size_t questions = 0;
  for (const asked& one : asked_) {
    if (!one.divides || one.about.family() != family) continue;
    ++questions;
    for (const port_verdicts& part : one.answers) {
      answers.push_back(&part.answer);
      for (const auto& piece : part.answer.pieces()) starts.push_back(piece.first);
    }
  }
  std::ranges::sort(starts);
  starts.erase(std::ranges::unique(starts).begin(), starts.end());
  family_zones& zones = zones_of(family);
  std::vector<zone_piece> all;
  std::vector<std::size_t> at(answers.size());
  // One question more, and no number means what it meant: regions are decided while they are asked.
  std::vector<std::uint16_t> told(answers.size()), last;
  for (; questions != 0; questions >>= 16) told.push_back(static_cast<std::uint16_t>(questions));
  for (const address_number start : starts) {
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const auto pieces = answers[i]->pieces();
      while (at[i] + 1 < pieces.size() && pieces[at[i] + 1].first <= start) ++at[i];
      const output_verdict& here = answers[i]->obstacle(pieces[at[i]].obstacle);
      told[i] = here.reason ? static_cast<std::uint16_t>(1 + static_cast<unsigned>(*here.reason))
                            : std::uint16_t{here.tracked ? tracked_number : untouched_number};
    }
    if (!all.empty() && told == last) continue;
    last = told;
    const auto [known, fresh] =
        zones.ids.try_emplace(told, static_cast<zone_id>(zones.examples.size() + 1));
    if (fresh) zones.examples.emplace_back();
    zones.examples[known->second - 1] = {address_of(family, start),
                                         family == ip_family::v4 ? 32u : 128u};
    all.push_back({start, known->second});
  }
  return all;
}

void output_judge::refresh(ip_family family) {
  family_zones& zones = zones_of(family);
  if (!std::exchange(zones.stale, false)) return;
  std::vector<zone_prefix> next = prefixes_of(family, overlay(family));
  if (next == zones.prefixes) return;
  zones.prefixes = std::move(next);
  ++zones.version;
}

const std::vector<zone_prefix>& output_judge::zones(ip_family family) {
  refresh(family);
  return zones_of(family).prefixes;
}

std::uint64_t output_judge::zones_version(ip_family family) {
  refresh(family);
  return zones_of(family).version;
}

ip_prefix output_judge::example_of(ip_family family, zone_id zone) {
  refresh(family);
  return zone == 0 ? ip_prefix::all(family) : zones_of(family).examples[zone - 1];
}

}  // namespace cowire::detail

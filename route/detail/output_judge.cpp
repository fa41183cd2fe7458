// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/closing_rules.hpp>
#include <cowire/route/detail/judge_destinations.hpp>
#include <cowire/route/detail/output_ipsec.hpp>
#include <cowire/route/detail/output_judge.hpp>
#include <cowire/route/detail/shared_list_difference.hpp>
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

/// The ports of `wanted`, of which and `others` there are some, and together all. Unset: one of the
/// two is empty, or both are more than a hop has room for.
std::optional<port_filter> filter_of(const std::vector<port_range>& wanted,
                                     const std::vector<port_range>& others) {
  if (wanted.empty() || others.empty()) return std::nullopt;
  const auto& fewer = wanted.size() <= others.size() ? wanted : others;
  if (fewer.size() > port_ranges_max) return std::nullopt;
  port_filter made;
  made.inside = &fewer == &wanted;
  std::ranges::copy(fewer, made.ranges.begin());
  return made;
}

/// Whether what was known before is what the next snapshot that can be read is compared with.
bool must_hold(const output_snapshot* before, const output_snapshot* now) {
  return before != nullptr && now != nullptr && now->obeyed == before->obeyed &&
         now->obeyed.netfilter && now->netfilter.rules_unreadable &&
         !before->netfilter.rules_unreadable;
}

/// Under which reason what may have changed is diverted.
divert_reason reason_of_change(const output_snapshot* before, const output_snapshot& now) {
  if (before == nullptr || before->netfilter != now.netfilter) return divert_reason::netfilter;
  if (before->ipsec != now.ipsec) return divert_reason::ipsec;
  if (before->cgroup != now.cgroup) return divert_reason::cgroup_program;
  return divert_reason::tc_egress;
}

/// Of what two groups of rules say of the same datagrams. The order of layers is the kernel's.
const output_verdict& first_of(const output_verdict& others, const output_verdict& closing) {
  if (!closing.reason) return others;
  using enum divert_reason;
  const bool earlier =
      others.reason == cgroup_program || others.reason == ipsec || others.reason == netfilter;
  return earlier ? others : closing;
}

}  // namespace

void output_judge::ruled::take(std::shared_ptr<const output_snapshot> state) {
  snapshot = std::move(state);
  sets =
      std::make_unique<output_sets>(*snapshot->netfilter.rules, snapshot->obeyed.strict_counters);
}

bool output_judge::set(std::shared_ptr<const output_snapshot> snapshot) {
  if (must_hold(snapshot_.get(), snapshot.get())) {
    held_ = snapshot->netfilter.rules_unreadable;
    return false;
  }
  held_.reset();
  const auto whole_before = std::exchange(snapshot_, std::move(snapshot));
  const bool was_empty = std::exchange(empty_, !snapshot_ || is_empty(*snapshot_));
  const ruled before = std::exchange(others_, {});
  closing_ = {};
  all_ = {};
  if (empty_) {
    forget();
    return !was_empty;
  }
  take_rules();
  std::erase_if(asked_, [](const asked& one) { return !one.divides; });
  if (!anew_ && !was_empty) {
    // Zone 0 is no certain answer: it stands for whatever all destinations have in common.
    const bool told_apart = is_told_apart();
    if (follow(*before.snapshot, *before.sets)) {
      const bool closed_otherwise = close_again();
      return closed_otherwise || !told_apart || !is_told_apart();
    }
  }
  if (!anew_) anew_ = reason_of_change(whole_before.get(), *snapshot_);
  return true;
}

/// Divides the snapshot's rules.
void output_judge::take_rules() {
  std::optional<divided_ruleset> divided;
  if (snapshot_->obeyed.netfilter) divided = without_closing_rules(*snapshot_->netfilter.rules);
  auto others = snapshot_;
  if (divided) {
    auto without = std::make_shared<output_snapshot>(*snapshot_);
    without->netfilter.rules = std::move(divided->others);
    others = std::move(without);
  }
  others_.take(std::move(others));
  for (const ip_family each : ip_families)
    others_.sets->tracked_families[static_cast<std::size_t>(each)] =
        tracks_connections(snapshot_->netfilter, each);
  if (!divided) return;
  auto closing = std::make_shared<output_snapshot>();
  closing->obeyed = {.netfilter = true,
                     .conntrack = false,
                     .ipsec = false,
                     .traffic_control = false,
                     .control_groups = false,
                     .strict_counters = snapshot_->obeyed.strict_counters};
  closing->netfilter.rules = std::move(divided->closing);
  closing->netfilter.hooks.emplace();
  closing_.take(std::move(closing));
}

/// Does what set() has left.
void output_judge::settle() {
  if (!std::exchange(anew_, std::nullopt)) return;
  for (asked& one : asked_) answer_anew(one);
  for (family_zones& zones : zones_) zones.stale = true;
}

std::size_t output_judge::size_of_change() const {
  if (!anew_ || !snapshot_) return 0;
  const netlink::nft::ruleset& rules = *snapshot_->netfilter.rules;
  std::size_t size = rules.rule_count() + snapshot_->ipsec.policies.size();
  for (const auto& [key, set] : rules.sets) size += set.elements.size();
  for (const family_zones& zones : zones_) size += zones.prefixes.size();
  return size;
}

/// Of all families that were asked about.
bool output_judge::is_told_apart() {
  return std::ranges::all_of(
      asked_, [this](const asked& one) { return !zones(one.about.family()).empty(); });
}

void output_judge::forget() {
  asked_.clear();
  anew_.reset();
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
  settle();
  asked& known = ask(cls, hop);
  if (!only_to_explain && !std::exchange(known.divides, true)) zones_of(hop.family).stale = true;
  std::vector<port_range> passing, stopped, tracked, untracked;
  const auto add = [](std::vector<port_range>& to, const port_range& ports) {
    if (!to.empty() && to.back().last + 1 == ports.first)
      to.back().last = ports.last;
    else
      to.push_back(ports);
  };
  for_each_part(known, [&](const port_range& ports, const destination_verdicts& others,
                           const destination_verdicts& closing) {
    const output_verdict& here = first_of(others.look_at(where), closing.look_at(where));
    if (here.reason && !told.reason) told.reason = here.reason;
    add(here.reason ? stopped : passing, ports);
    if (!here.reason) add(here.tracked ? tracked : untracked, ports);
  });
  told.tracked = !tracked.empty();
  if (stopped.empty())
    told.untracked_ports = filter_of(untracked, tracked);
  else
    told.ports = filter_of(passing, stopped);
  if (std::ranges::any_of(known.outer_verdicts, &output_verdict::tracked)) track_outer(told);
  return told;
}

/// A flow is known by its own entry: one that has none is not followed, though its outer headers
/// are.
void output_judge::track_outer(answer& told) {
  if (told.ports || !told.tracked) {
    if (told.ports || !told.reason) told.reason = divert_reason::conntrack_new;
    told.ports.reset();
    return;
  }
  told.untracked_ports.reset();
  told.outer_tracked = true;
}

output_verdict output_judge::explain(const flow_class& cls, const hop_key& hop,
                                     const ip_prefix& where, std::uint16_t port) {
  output_verdict found;
  if (held_) {
    found.reason = held();
    found.obstacle = "the nf_tables ruleset cannot be read: " + *held_;
    return found;
  }
  if (!has_something_to_say()) return {};
  const bool ports_count = judge(cls, hop, where, true).ports.has_value();
  for_each_part(ask(cls, hop), [&](const port_range& ports, const destination_verdicts& others,
                                   const destination_verdicts& closing) {
    const bool concerned = port == 0 || !ports_count || ports.contains(port);
    if (!concerned || found.reason) return;
    found = first_of(others.of(where), closing.of(where));
  });
  return found.reason ? found : output_verdict{};
}

/// What closing rules say is in one piece, whatever the destination.
template <class Visit>
void output_judge::for_each_part(const asked& one, const Visit& visit) {
  static const destination_verdicts passing[] = {
      destination_verdicts(ip_prefix::all(ip_family::v4)),
      destination_verdicts(ip_prefix::all(ip_family::v6))};
  if (one.closing.empty()) {
    for (const port_verdicts& part : one.answers)
      visit(part.ports, part.answer, passing[static_cast<std::size_t>(one.about.family())]);
    return;
  }
  auto other = one.answers.begin();
  for (const port_verdicts& part : one.closing)
    for (;; ++other) {
      visit({std::max(part.ports.first, other->ports.first),
             std::min(part.ports.last, other->ports.last)},
            other->answer, part.answer);
      // Both are all ports, in order.
      if (other->ports.last > part.ports.last) break;
      if (other->ports.last == part.ports.last) {
        ++other;
        break;
      }
    }
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

/// Outside of VRFs; `bound_to`: the device that the look-up was for, 0 = any. With one, local
/// addresses of other devices are not found in the local table and leave like foreign ones, while
/// fib asks without a device (nft_fib4_eval_type() in net/ipv4/netfilter/nft_fib_ipv4.c).
std::optional<std::uint32_t> output_judge::type_of_what_is_sent(ip_family family,
                                                                std::uint32_t bound_to) const {
  constexpr std::uint32_t unicast = 1;  // RTN_UNICAST
  if (bound_to != 0 || !local_table_comes_first(family)) return std::nullopt;
  return unicast;
}

output_flow output_judge::region_of(const question& about) const {
  constexpr std::uint32_t multicast = 5;  // RTN_MULTICAST
  output_flow region;
  region.destination = ip_prefix::all(about.family());
  region.source = about.source;
  if (about.cls.source_port != 0) region.source_port = about.cls.source_port;
  region.mark = about.cls.mark;
  region.tos = about.tos;
  region.any_ecn = true;
  if (about.hop_limit != 0) region.ttl = about.hop_limit;
  region.uid = about.cls.uid;
  const bool in_vrf =
      vrf_of(state_, about.interface_index) != 0 || vrf_of(state_, about.cls.output_interface) != 0;
  if (about.multicast)
    region.destination_type = multicast;
  else if (!in_vrf)  // There it finds something else.
    region.destination_type = type_of_what_is_sent(about.family(), about.cls.output_interface);
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

output_judge::circumstances output_judge::circumstances_of(const question& about) const {
  return {outer_route_of(about), local_table_comes_first(ip_family::v4)};
}

bool output_judge::circumstances_differ() const {
  if (anew_) return false;  // All is asked as things are then.
  return std::ranges::any_of(
      asked_, [this](const asked& one) { return one.known != circumstances_of(one.about); });
}

/// What a tunnel wraps around passes the same hooks again; mark and owner are those of the inner.
/// Where the route is not known, the answer is one for all that there may be.
output_verdict output_judge::ask_outer(const netlink::link& tunnel, ip_family carried,
                                       const output_flow& inner,
                                       const std::optional<outer_route>& route) {
  const auto& info = std::get<netlink::tunnel_info>(tunnel.info);
  output_flow outer;
  outer.destination = {info.remote, info.remote.bits()};
  if (!info.local.is_unspecified()) outer.source = info.local;
  if (route) {
    outer.source = route->source;
    leave_by(route->interface_index, outer);
    const bool in_vrf = outer.passes_vrf || vrf_above(state_, info.link) != 0;
    if (!in_vrf) outer.destination_type = type_of_what_is_sent(info.remote.family(), info.link);
  } else {
    outer.passes_vrf = has_vrfs(state_);
  }
  outer.mark = inner.mark;
  outer.policy_mark = info.fwmark;
  outer.uid = inner.uid;
  outer.tos.reset();
  outer.devices = inner.devices;
  outer.mark_matters_below = true;
  outer.ip_protocol = outer_protocol_of(tunnel, carried);
  if (!all_) all_.take(snapshot_);
  output_verdict found =
      detail::judge_destinations(*all_.snapshot, *all_.sets, outer).of(outer.destination);
  if (found.reason) found.obstacle = "of the tunnel's outer datagrams: " + found.obstacle;
  return found;
}

void output_judge::answer_anew(asked& one) {
  const output_flow region = region_of(one.about);
  one.answers = judge_all_ports(*others_.snapshot, *others_.sets, region);
  one.closing = closing_of(region);
  one.known = circumstances_of(one.about);
  one.outer_verdicts = ask_all_outer(one, region);
  for (const output_verdict& outer : one.outer_verdicts)
    for (port_verdicts& part : one.answers) part.answer.touch_rest(outer);
}

std::vector<port_verdicts> output_judge::closing_of(const output_flow& region) const {
  if (!closing_) return {};
  return judge_all_ports(*closing_.snapshot, *closing_.sets, region);
}

/// True: ports are closed otherwise than before.
bool output_judge::close_again() {
  bool differs = false;
  for (asked& one : asked_) {
    const ip_prefix all = ip_prefix::all(one.about.family());
    const auto says_the_same = [&](const port_verdicts& a, const port_verdicts& b) {
      const output_verdict x = a.answer.of(all), y = b.answer.of(all);
      return a.ports == b.ports && x.reason == y.reason && x.obstacle == y.obstacle;
    };
    auto now = closing_of(region_of(one.about));
    differs |= !std::ranges::equal(now, one.closing, says_the_same);
    one.closing = std::move(now);
  }
  return differs;
}

/// Of each tunnel on the way, from the inside; its route as `one` knows it.
std::vector<output_verdict> output_judge::ask_all_outer(const asked& one,
                                                        const output_flow& region) {
  std::vector<output_verdict> found;
  std::optional<outer_route> route = one.known.outer;
  ip_family carried = one.about.family();
  for (std::uint32_t index = one.about.interface_index;;) {
    const mirror::device* device = state_.find_device(index);
    const auto* tunnel =
        device == nullptr ? nullptr : std::get_if<netlink::tunnel_info>(&device->link.info);
    if (tunnel == nullptr) return found;
    found.push_back(ask_outer(device->link, carried, region, route));
    if (!route) return found;
    // A tunnel around it, the route of which may depend on what a header inherits.
    index = route->interface_index;
    carried = tunnel->remote.family();
    route.reset();
  }
}

// ---- single rules, elements and policies --------------------------------------------------------

namespace {

bool alike_beside_rules_and_policies(const output_snapshot& a, const output_snapshot& b) {
  const netfilter_state &x = a.netfilter, &y = b.netfilter;
  return a.obeyed == b.obeyed && x.rules_unreadable == y.rules_unreadable && x.hooks == y.hooks &&
         x.legacy_tables_v4 == y.legacy_tables_v4 && x.legacy_tables_v6 == y.legacy_tables_v6 &&
         x.legacy_unreadable == y.legacy_unreadable && x.unlisted_hooks == y.unlisted_hooks &&
         a.ipsec.blocks_by_default == b.ipsec.blocks_by_default &&
         a.ipsec.unreadable_because == b.ipsec.unreadable_because && a.cgroup == b.cgroup &&
         a.devices == b.devices && a.devices_unreadable == b.devices_unreadable;
}

/// Whether a chain can have a part in the output path; those that no base chain leads to count.
bool may_be_passed(const output_walk::chain_rules& one) {
  const auto& hook = one.chain.hook;
  return !hook || hook->number == hook_local_out || hook->number == hook_post_routing;
}

bool looks_up(const netlink::nft::rule& one, const std::string& set) {
  return std::ranges::any_of(one.expressions, [&](const netlink::nft::expression& x) {
    const auto* l = std::get_if<netlink::nft::expressions::lookup>(&x.content);
    return l != nullptr && l->set == set;
  });
}

}  // namespace

/// False: ask everything anew.
bool output_judge::follow(const output_snapshot& before, output_sets& sets_before) {
  using netlink::nft::family;
  const output_snapshot& now = *others_.snapshot;
  if (!alike_beside_rules_and_policies(before, now)) return false;
  const auto difference = difference_between(*before.netfilter.rules, *now.netfilter.rules);
  if (!difference) return false;
  const auto policies = differing_policies(before.ipsec.policies, now.ipsec.policies);
  if (policies.size() > differing_max) return false;
  for (const auto* rules : {&difference->gone, &difference->come})
    for (const auto& one : *rules)
      if (one.chain->chain.family == family::netdev) return false;
  if (!std::ranges::equal(sets_before.tracked_families, others_.sets->tracked_families))
    return false;
  constexpr std::size_t parts_max = 64;
  address_set changed[2];
  for (asked& one : asked_) {
    const output_flow region = region_of(one.about);
    address_set which = concerned_by(*difference, region, sets_before);
    for (const netlink::xfrm_policy* policy : policies)
      which.unite(detail::concerned_by(*policy, region));
    if (which.size() > parts_max || which == address_set(region.destination) ||
        !judge_again(one, region, which))
      return false;
    changed[static_cast<std::size_t>(one.about.family())].unite(which);
  }
  for (const ip_family each : ip_families)
    follow_zones(each, changed[static_cast<std::size_t>(each)]);
  return true;
}

address_set output_judge::concerned_by(const ruleset_difference& difference,
                                       const output_flow& region, output_sets& sets_before) {
  address_set found;
  const auto ask = [&](const auto& rules, output_sets& sets) {
    for (const auto& one : rules) {
      if (!may_be_passed(*one.chain)) continue;
      destination_verdicts ignored(region.destination);
      found.unite(output_walk(sets.rules(), sets, region, tracking_state::fresh, ignored)
                      .that_may_match(*one.chain, *one.rule));
    }
  };
  ask(difference.gone, sets_before);
  ask(difference.come, *others_.sets);
  found.unite(concerned_by_elements(difference, region, sets_before));
  found.unite(concerned_by_elements(difference, region, *others_.sets));
  return found;
}

address_set output_judge::concerned_by_elements(const ruleset_difference& difference,
                                                const output_flow& region, output_sets& sets) {
  address_set found;
  for (const auto& [set, elements] : difference.elements)
    for (const auto& [key, chain] : sets.rules().chains) {
      if (key.family != set.family || key.table != set.table || !may_be_passed(chain)) continue;
      for (const netlink::nft::rule& one : chain.rules) {
        if (!looks_up(one, set.name)) continue;
        destination_verdicts ignored(region.destination);
        found.unite(output_walk(sets.rules(), sets, region, tracking_state::fresh, ignored)
                        .that_may_find(chain, one, set, elements));
      }
    }
  return found;
}

/// False: ports would have to be told apart otherwise.
bool output_judge::judge_again(asked& one, const output_flow& region, const address_set& which) {
  const auto alike = [](const output_verdict& a, const output_verdict& b) {
    return a.reason == b.reason && a.obstacle == b.obstacle && a.tracked == b.tracked;
  };
  if (!std::ranges::equal(ask_all_outer(one, region), one.outer_verdicts, alike)) return false;
  if (which.empty()) return true;
  for (port_verdicts& part : one.answers) {
    asked_ports ports;
    ports.range = part.ports;
    auto told = judge_some(*others_.snapshot, *others_.sets, region, which, &ports);
    if (ports.may_pay_to_divide(told)) return false;
    for (const output_verdict& outer : one.outer_verdicts) told.touch_rest(outer);
    part.answer.replace(which, told);
  }
  return true;
}

// ---- zones --------------------------------------------------------------------------------------

/// All answers above each other.
std::vector<zone_piece> output_judge::overlay(ip_family family,
                                              const address_set::interval& where) {
  std::vector<const destination_verdicts*> answers;
  std::vector<address_number> starts{where.first};
  std::vector<std::size_t> at;
  std::size_t questions = 0;
  for (const asked& one : asked_) {
    if (!one.divides || one.about.family() != family) continue;
    ++questions;
    for (const port_verdicts& part : one.answers) {
      answers.push_back(&part.answer);
      const auto pieces = part.answer.pieces();
      auto next =
          std::ranges::upper_bound(pieces, where.first, {}, &destination_verdicts::piece::first);
      at.push_back(static_cast<std::size_t>(next - pieces.begin()) - 1);
      for (; next != pieces.end() && next->first <= where.last; ++next)
        starts.push_back(next->first);
    }
  }
  std::ranges::sort(starts);
  starts.erase(std::ranges::unique(starts).begin(), starts.end());
  family_zones& zones = zones_of(family);
  std::vector<zone_piece> all;
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
  std::vector<zone_prefix> next = prefixes_of(family, overlay(family, {0, highest_number(family)}));
  if (next == zones.prefixes) return;
  zones.prefixes = std::move(next);
  ++zones.version;
}

/// After answers about these destinations have changed. What lies around them stays as it is, which
/// may cost a prefix more than to divide everything anew.
void output_judge::follow_zones(ip_family family, const address_set& where) {
  family_zones& zones = zones_of(family);
  zones.stale |= zones.prefixes.empty();  // There was one zone.
  if (zones.stale) return;
  for (const address_set::interval& interval : where.intervals())
    for (const ip_prefix& part : prefixes_in(family, interval)) {
      const zone_prefix* around = find_around(zones.prefixes, part, part.length());
      const auto made =
          prefixes_within(part, around == nullptr ? 0 : around->zone,
                          overlay(family, {number_of(part.address()), number_of(part.last())}));
      const auto first = std::ranges::lower_bound(zones.prefixes, part, {}, &zone_prefix::prefix);
      const auto last = std::find_if(first, zones.prefixes.end(), [&](const zone_prefix& one) {
        return !part.contains(one.prefix);
      });
      if (std::equal(first, last, made.begin(), made.end())) continue;
      zones.prefixes.insert(zones.prefixes.erase(first, last), made.begin(), made.end());
      ++zones.version;
    }
  zones.stale = !renew_examples(zones, where);
}

/// Those of zones that an example has left. False: a zone has destinations, but none was found.
bool output_judge::renew_examples(family_zones& zones, const address_set& where) {
  const auto zone_at = [&](const ip_prefix& host) {
    const zone_prefix* found = find_around(zones.prefixes, host, host.length() + 1);
    return found == nullptr ? zone_id{0} : found->zone;
  };
  for (zone_id id = 1; id <= zones.examples.size(); ++id) {
    ip_prefix& example = zones.examples[id - 1];
    if (!where.contains(number_of(example.address())) || zone_at(example) == id) continue;
    bool has_prefixes = false, found = false;
    for (const zone_prefix& one : zones.prefixes) {
      if (one.zone != id) continue;
      has_prefixes = true;
      for (const ip_address& end : {one.prefix.address(), one.prefix.last()}) {
        const ip_prefix host(end, end.bits());
        if (zone_at(host) != id) continue;
        example = host;
        found = true;
      }
      if (found) break;
    }
    if (has_prefixes && !found) return false;
  }
  return true;
}

const std::vector<zone_prefix>& output_judge::zones(ip_family family) {
  settle();
  refresh(family);
  return zones_of(family).prefixes;
}

std::uint64_t output_judge::zones_version(ip_family family) {
  settle();
  refresh(family);
  return zones_of(family).version;
}

ip_prefix output_judge::example_of(ip_family family, zone_id zone) {
  settle();
  refresh(family);
  return zone == 0 ? ip_prefix::all(family) : zones_of(family).examples[zone - 1];
}

}  // namespace cowire::detail

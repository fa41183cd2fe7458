// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/decision.hpp>
#include <cowire/route/detail/source_v6.hpp>
#include <cowire/route/detail/vrf.hpp>
#include <cowire/route/exception_owner.hpp>
#include <cowire/route/kernel_quirks.hpp>
#include <cowire/route/rules.hpp>

#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <iterator>

namespace cowire::detail {
namespace {

constexpr std::uint16_t valid_states =
    NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY;
constexpr std::uint8_t ipv4_tos_mask = 0x1c;
constexpr std::uint16_t resilient_group_type = 1;  // NEXTHOP_GRP_TYPE_RES

/// The first half of an IPv6 multicast address's second byte: assigned, transient, by prefix or
/// source-specific, with a rendezvous point (RFC 4291, 3306, 3956).
constexpr std::array<std::uint8_t, 4> known_flags{0, 1, 3, 7};

const ip_address broadcast_v4 = ip_address::v4(0xffffffff);

/// 224.0.0.0/24: link-local multicast.
bool is_local_multicast_v4(const ip_prefix& region) noexcept {
  return region.length() >= 24 && region.address().v4_host() >> 8 == 0xe00000;
}

std::uint32_t loopback_device(const mirror& state) {
  for (const auto& [index, device] : state.devices())
    if ((device.link.flags & IFF_LOOPBACK) != 0) return index;
  return 1;
}

/// Unset: several next hops may be meant, or none; or (IPv6) exceptions below a source-specific
/// route know sources, too.
std::optional<exception_owner> owner_of(const decision& decided,
                                        const decision_question& question) {
  if (decided.entry == nullptr || decided.members.size() != 1) return std::nullopt;
  const path_member& member = decided.members.front();
  exception_owner owner;
  owner.interface_index = member.interface_index;
  owner.gateway = member.gateway;
  owner.nexthop_id = member.nexthop_id;
  if (owner.nexthop_id != 0) return owner;
  owner.route = decided.entry->route;
  if (owner.route.source.length() != 0) return std::nullopt;
  owner.route.tos = 0;
  owner.route.flags = 0;
  owner.route.placement = {};
  owner.route.expires_s.reset();
  for (netlink::next_hop& hop : owner.route.next_hops) hop.flags = 0;
  if (question.family() == ip_family::v6) owner.route.destination = decided.matched;
  return owner;
}

}  // namespace

void decision::reset() noexcept {
  error = 0;
  divert.reset();
  type = 0;
  table = 0;
  matched = {};
  entry = nullptr;
  interface_index = 0;
  members.clear();
  shares.clear();
  source.reset();
  consulted.clear();
}

bool neighbour_aspect(const mirror& state, const neighbour_key& key,
                      consulted_neighbour::aspect what) {
  const netlink::neighbour* known = state.find_neighbour(key.index, key.destination);
  switch (what) {
    case consulted_neighbour::aspect::failed:
      return known != nullptr && (known->state & NUD_FAILED) != 0;
    case consulted_neighbour::aspect::good:
      return known == nullptr || (known->state & valid_states) != 0;
    case consulted_neighbour::aspect::alive_default:
      return known == nullptr || (known->state & NUD_REACHABLE) != 0;
  }
  return false;
}

bool is_known_multicast(const ip_prefix& region) noexcept {
  if (region.family() == ip_family::v4) return true;
  const std::uint8_t flags_and_scope = region.address().bytes()[1];
  constexpr std::uint8_t interface_local = 1, reserved = 15;
  const std::uint8_t scope = flags_and_scope & 0x0f;
  return region.length() >= 16 &&
         std::ranges::find(known_flags, flags_and_scope >> 4) != known_flags.end() &&
         scope > interface_local && scope < reserved;
}

std::vector<ip_prefix> multicast_scopes_v6() {
  std::vector<ip_prefix> all;
  for (const std::uint8_t flags : known_flags)
    for (std::uint8_t scope = 0; scope < 16; ++scope) {
      const std::array<std::uint8_t, 16> bytes{0xff, static_cast<std::uint8_t>(flags << 4 | scope)};
      all.emplace_back(ip_address::v6(bytes), 16);
    }
  return all;
}

const decision& decider::decide(const decision_question& question) {
  question_ = question;
  if (question_.is_multicast()) choose_multicast_device();
  result_.reset();
  found_member_ = 0;
  second_question_ = false;
  source_ = question.cls->source(question.family());
  if (source_ && source_->is_unspecified()) source_.reset();
  enter_vrf();
  if (question.family() == ip_family::v4)
    decide_v4();
  else
    decide_v6();
  return result_;
}

/// l3mdev_update_flow(). IPv4 sockets that are bound to a VRF send to groups outside of it, unless
/// it is what they name for groups (udp_sendmsg() in net/ipv4/udp.c), which nobody else does.
void decider::enter_vrf() {
  device_ = question_.cls->output_interface;
  vrf_ = device_ == 0 ? 0 : vrf_of(state_, device_);
  if (vrf_ != 0 && vrf_ == device_ && question_.family() == ip_family::v4 &&
      question_.is_multicast() && question_.cls->multicast_interface == 0 &&
      question_.as == route_question::send)
    device_ = vrf_ = 0;
  oif_ = device_ == vrf_ ? 0 : device_;
}

decider::outcome decider::fail(int error) {
  result_.error = error;
  return outcome::error;
}

decider::outcome decider::divert(divert_reason reason) {
  if (!result_.divert) result_.divert = reason;
  return outcome::divert;
}

decider::outcome decider::reject(std::uint8_t type) {
  switch (type) {
    case RTN_UNREACHABLE:
      return fail(EHOSTUNREACH);
    case RTN_PROHIBIT:
      return fail(EACCES);
    case RTN_THROW:
      return outcome::leave;
    default:
      return fail(EINVAL);
  }
}

// ----------------------------------------------------------------------------------------------
// rules

decider::outcome decider::walk_rules() {
  const ip_family family = question_.family();
  if (!state_.initial_rules_may_count(family)) return walk(state_.rules(family));
  // What may count counts where no other ever did.
  return state_.rules_configured(family) ? walk(initial_rules(family)) : walk_hidden_rules();
}

/// Either the initial rules are in force as ever, or the list that lacks some of them is.
decider::outcome decider::walk_hidden_rules() {
  const outcome initial = walk(initial_rules(question_.family()));
  if (initial == outcome::divert) return initial;
  const int error = std::exchange(result_.error, 0);
  const route_entry* const entry = std::exchange(result_.entry, nullptr);
  const ip_prefix matched = result_.matched;
  const outcome listed = walk(state_.rules(question_.family()));
  if (listed == outcome::divert) return listed;
  if (listed == initial && error == result_.error && entry == result_.entry &&
      (entry == nullptr || matched == result_.matched))
    return listed;
  result_.error = 0;
  return divert(divert_reason::hidden_rules);
}

decider::outcome decider::walk(const std::vector<netlink::rule>& rules) {
  const rule_question asked{.cls = question_.cls,
                            .output_interface = oif_,
                            .vrf = vrf_,
                            .named_vrf = question_.as != route_question::outer,
                            .source = source_,
                            .destination = question_.region,
                            .destination_port = question_.destination_port};
  for (std::size_t i = 0; i < rules.size();) {
    const netlink::rule& rule = rules[i];
    const rule_match match = match_rule(state_, rule, asked);
    if (match == rule_match::undecidable) return divert(divert_reason::unsupported_rule);
    if (match == rule_match::no || rule.kind == FR_ACT_NOP) {
      ++i;
      continue;
    }
    if (rule.kind == FR_ACT_GOTO) {
      i = goto_target(rules, i).value_or(i + 1);
      continue;
    }
    const outcome out = apply_rule(rule);
    if (out != outcome::again && out != outcome::leave) return out;
    ++i;
  }
  return fail(ENETUNREACH);
}

decider::outcome decider::apply_rule(const netlink::rule& rule) {
  switch (rule.kind) {
    case FR_ACT_TO_TBL:
      break;
    case FR_ACT_UNREACHABLE:
      return fail(ENETUNREACH);
    case FR_ACT_PROHIBIT:
      return fail(EACCES);
    default:
      return fail(EINVAL);
  }
  const outcome out = look_up(rule.l3mdev ? table_of_vrf(state_, vrf_) : rule.table);
  // Then IPv4 searches the tables local and main as one (look_up_v4()), if no rule ever was.
  if (out != outcome::again && question_.family() == ip_family::v4 &&
      rule.table == RT_TABLE_LOCAL && !state_.rules_configured(ip_family::v4) &&
      main_is_longer_v4(result_.matched.length())) {
    result_.error = 0;
    return divert(divert_reason::merged_tables);
  }
  if (out != outcome::found) return out;
  return suppressed(rule) ? (result_.divert ? outcome::divert : outcome::again) : outcome::found;
}

bool decider::suppressed(const netlink::rule& rule) {
  // IPv6 measures the route that the next hop has cached (fib6_rule_suppress() in
  // net/ipv6/fib6_rules.c), and that of an object may be another one over it.
  if (rule.suppress_prefix_length && question_.family() == ip_family::v6 &&
      result_.entry != nullptr && result_.entry->route.nexthop_id != 0)
    static_cast<void>(divert(divert_reason::shared_nexthop));
  if (rule.suppress_prefix_length && result_.matched.length() <= *rule.suppress_prefix_length)
    return true;
  if (!rule.suppress_group) return false;
  const auto in_group = [&](const path_member& member) {
    const mirror::device* device = state_.find_device(member.interface_index);
    return device != nullptr && device->link.group == *rule.suppress_group;
  };
  if (result_.members.empty()) return false;
  const bool first = in_group(result_.members.front());
  // IPv4 looks at the first next hop, IPv6 at the one that was chosen.
  if (question_.family() == ip_family::v6 &&
      std::ranges::any_of(result_.members,
                          [&](const auto& member) { return in_group(member) != first; })) {
    static_cast<void>(divert(divert_reason::unsupported_rule));
    return true;
  }
  return first;
}

decider::outcome decider::look_up(std::uint32_t id) {
  if (allowed_tables_ != nullptr && id != RT_TABLE_LOCAL &&
      std::ranges::find(*allowed_tables_, id) == allowed_tables_->end())
    return divert(divert_reason::table_not_mirrored);
  const route_table* table = state_.find_table(question_.family(), id);
  if (table == nullptr) return outcome::again;
  const outcome out = question_.family() == ip_family::v4 ? look_up_v4(*table) : look_up_v6(*table);
  if (out == outcome::found) result_.table = result_.entry->route.table;
  return out;
}

// ----------------------------------------------------------------------------------------------
// next hops

std::optional<divert_reason> decider::list_members(const route_entry& entry,
                                                   std::vector<path_member>& out,
                                                   bool& blackhole) const {
  constexpr auto unsupported = divert_reason::unsupported_route;
  out.clear();
  blackhole = false;
  const netlink::route& route = entry.route;
  if (!route.unknown.empty()) return unsupported;
  if (route.nexthop_id == 0) {
    for (const netlink::next_hop& hop : route.next_hops) {
      if (hop.encapsulated) return unsupported;
      const bool used = hop.gateway && entry.gateway != route_entry::gateway_use::on_link;
      out.push_back({hop.index, used ? hop.gateway : std::nullopt, hop.weight, hop.flags, {}, 0});
    }
    return std::nullopt;
  }
  const netlink::nexthop_object* object = state_.find_nexthop(route.nexthop_id);
  if (object == nullptr || object->fdb || !object->unknown.empty()) return unsupported;
  if (object->group_type > resilient_group_type) return unsupported;
  const auto add = [&](const netlink::nexthop_object* leaf, std::uint32_t weight) {
    if (leaf == nullptr || leaf->encapsulated || leaf->fdb || !leaf->unknown.empty()) return false;
    blackhole |= leaf->blackhole;
    out.push_back({leaf->index, leaf->gateway, weight, leaf->flags, {}, leaf->id});
    return true;
  };
  bool known = !object->group.empty() || add(object, 1);
  for (const auto& member : object->group)
    known &= add(state_.find_nexthop(member.id), member.weight);
  return known ? std::nullopt : std::optional(unsupported);
}

bool decider::hop_is_alive(const route_entry& entry, const path_member& member) const {
  if ((member.flags & RTNH_F_DEAD) != 0) return false;
  const netlink::route& route = entry.route;
  const ip_family family = route.destination.family();
  // This host's own addresses need no carrier.
  const bool own = family == ip_family::v4 ? route.scope == RT_SCOPE_HOST
                                           : route.type == RTN_LOCAL || route.type == RTN_ANYCAST;
  if (own) return true;
  const mirror::device* device = state_.find_device(member.interface_index);
  if (device == nullptr) return true;
  return has_carrier(device->link) || !state_.ignores_linkdown(family, member.interface_index);
}

bool decider::consult(const path_member& member, consulted_neighbour::aspect what) {
  neighbour_key key{member.interface_index, *member.gateway};
  // Over such devices one entry serves all (__ipv4_neigh_lookup_noref() in include/net/arp.h),
  // which fib_detect_death() does not know.
  const mirror::device* const device = state_.find_device(key.index);
  const bool shared =
      device != nullptr && (device->link.flags & (IFF_LOOPBACK | IFF_POINTOPOINT)) != 0;
  if (shared && key.destination.is_v4() && what == consulted_neighbour::aspect::good)
    key.destination = ip_address::any(ip_family::v4);
  const bool seen = neighbour_aspect(state_, key, what);
  result_.consulted.push_back({key, what, seen});
  return seen;
}

search_effect decider::effect_of(ip_family family, const route_entries::list& entries,
                                 bool with_output_interface) const {
  const bool v4 = family == ip_family::v4;
  search_effect effect;
  std::vector<path_member> members;
  for (const route_entry& entry : entries) {
    bool blackhole = false;
    const bool known = entry.route.unknown.empty() && !list_members(entry, members, blackhole);
    const bool rejects = is_reject(entry.route.type);
    bool taken = !known || blackhole || (rejects && (v4 || !with_output_interface));
    if (!taken && !with_output_interface)
      taken = std::ranges::any_of(members, [&](const path_member& member) {
        // An IPv6 gateway may turn FAILED, and then the search goes on.
        return hop_is_alive(entry, member) &&
               (v4 || !member.gateway ||
                !neighbour_aspect(state_, {member.interface_index, *member.gateway},
                                  consulted_neighbour::aspect::failed));
      });
    effect.ends |= taken && entry.route.tos == 0;
    effect.hides |= v4 ? !taken && entry.route.nexthop_id != 0 : entry.route.source.length() != 0;
  }
  effect.ends &= !effect.hides;
  return effect;
}

/// Hash-threshold shares over the members that are alive: who is not good leaves its share to the
/// next good one, what is left beyond the last good one goes to `fallback`.
void decider::share_by_bounds(const std::vector<bool>& good, std::uint32_t fallback) {
  result_.shares.clear();
  std::uint64_t total = 0, sum = 0;
  for (const path_member& member : result_.members)
    if (hop_is_alive(*result_.entry, member)) total += member.weight;
  for (std::uint32_t i = 0; i < result_.members.size() && total != 0; ++i) {
    const path_member& member = result_.members[i];
    if (!hop_is_alive(*result_.entry, member)) continue;
    sum += member.weight;
    const auto bound = static_cast<std::uint32_t>(((sum << 31) + total / 2) / total - 1);
    if (good[i]) result_.shares.push_back({bound, i});
  }
  if (result_.shares.empty() || result_.shares.back().bound < 0x7fffffff)
    result_.shares.push_back({0x7fffffff, fallback});
}

/// Buckets of a resilient group, whose members nobody looks at: neither links nor neighbours count.
/// False: it is no such group.
bool decider::share_by_buckets() {
  const netlink::nexthop_object* group = state_.find_nexthop(result_.entry->route.nexthop_id);
  if (group == nullptr || group->group_type != resilient_group_type) return false;
  const auto buckets = state_.buckets_of(group->id);
  const auto member_with = [&](std::uint32_t id) {
    const auto at = std::ranges::find(group->group, id, &netlink::nexthop_object::member::id);
    return at == group->group.end() ? path_share::unknown_member
                                    : static_cast<std::uint32_t>(at - group->group.begin());
  };
  std::vector<path_share> shares;
  for (std::uint32_t i = 0; i < buckets.size(); ++i) shares.push_back({i, member_with(buckets[i])});
  if (std::ranges::none_of(shares, &path_share::is_known))
    static_cast<void>(divert(divert_reason::resilient_group));
  else
    result_.shares = std::move(shares);
  return true;
}

// ----------------------------------------------------------------------------------------------
// IPv4

bool decider::source_is_usable_v4() {
  if (!source_) return true;
  if (source_->is_multicast() || *source_ == broadcast_v4) {
    static_cast<void>(fail(EINVAL));
    return false;
  }
  if (state_.is_local_address(*source_)) return true;
  static_cast<void>(fail(ENETUNREACH));
  return false;
}

/// Where the device alone answers; also fills in the source that the rules shall see.
bool decider::answered_by_interface_v4() {
  const std::uint32_t oif = device_;
  if (oif == 0) {
    if (!source_ || !(question_.is_multicast() || question_.is_limited_broadcast())) return false;
    answer_from_owner_of_source_v4();
    return true;
  }
  const mirror::device* device = state_.find_device(oif);
  if (device == nullptr || !device->up()) {
    static_cast<void>(fail(device == nullptr ? ENODEV : ENETUNREACH));
    return true;
  }
  if (is_local_multicast_v4(question_.region) || question_.is_limited_broadcast()) {
    answer_on_link_v4(RT_SCOPE_LINK);
    return true;
  }
  if (!source_ && question_.is_multicast())
    source_ = device_source_v4(oif, std::nullopt, RT_SCOPE_UNIVERSE);
  if (!source_ && question_.is_unspecified())
    source_ = device_source_v4(oif, std::nullopt, RT_SCOPE_HOST);
  return false;
}

/// The device that owns the source sends to groups, and to everybody, without a look-up.
void decider::answer_from_owner_of_source_v4() {
  std::size_t owners = 0;
  for (const auto& [index, device] : state_.devices())
    for (const netlink::address& own : device.v4)
      if (own.local == *source_) {
        result_.interface_index = index;
        ++owners;
      }
  result_.source = source_;
  result_.members.assign(1, {result_.interface_index, std::nullopt, 1, 0, source_, 0});
  result_.shares.assign(1, {});
  result_.type = question_.is_multicast() ? RTN_MULTICAST : RTN_BROADCAST;
  if (!question_.is_multicast())
    static_cast<void>(divert(divert_reason::broadcast_destination));
  else if (owners != 1)  // Which of several a hash chain decides.
    static_cast<void>(divert(divert_reason::multicast_destination));
  else
    divert_unless_only_copy();
}

void decider::decide_v4() {
  if (!source_is_usable_v4() || answered_by_interface_v4()) return;
  if (question_.is_unspecified()) {
    if (!source_) source_ = ip_address::v4(0x7f000001);
    answer_local(RTN_LOCAL);
    return;
  }
  switch (walk_rules()) {
    case outcome::found:
      finish_v4();
      return;
    case outcome::divert:
      return;
    default:
      break;
  }
  // With a device, any error becomes "on-link there", but in a VRF.
  if (oif_ == 0 || (vrf_ != 0 && !question_.is_multicast())) return;
  const auto consulted = std::move(result_.consulted);
  result_.reset();
  result_.consulted = consulted;
  answer_on_link_v4(RT_SCOPE_LINK);
}

void decider::answer_on_link_v4(std::uint8_t scope) {
  const std::uint32_t oif = device_;
  result_.interface_index = oif;
  result_.type = RTN_UNICAST;
  result_.source = source_ ? source_ : device_source_v4(oif, std::nullopt, scope);
  result_.members.assign(1, {oif, std::nullopt, 1, 0, result_.source, 0});
  result_.shares.assign(1, {});
  if (question_.is_limited_broadcast()) {
    result_.type = RTN_BROADCAST;
    static_cast<void>(divert(divert_reason::broadcast_destination));
  } else if (question_.is_multicast()) {
    result_.type = RTN_MULTICAST;
    divert_without_source();
    divert_unless_only_copy();
  }
}

void decider::answer_local(std::uint8_t type) {
  result_.type = type;
  result_.interface_index = loopback_device(state_);
  // A VRF is the loopback of its members, but for what IPv6 asks of the link alone
  // (ip6_rt_get_dev_rcu()).
  const bool strict = result_.matched.address().is_link_local_v6();
  if (result_.entry != nullptr && !result_.entry->route.next_hops.empty() && !strict)
    if (const auto vrf = vrf_of(state_, result_.entry->route.next_hops.front().index))
      result_.interface_index = vrf;
  const auto preferred = result_.entry ? result_.entry->route.preferred_source : std::nullopt;
  const bool leaves = question_.family() == ip_family::v6 && result_.entry != nullptr &&
                      !result_.entry->route.next_hops.empty() &&
                      leaks_source_v6(result_.entry->route.next_hops.front().index);
  result_.source = source_     ? source_
                   : leaves    ? selected_source_v6(vrf_)
                   : preferred ? preferred
                               : std::optional(question_.destination());
  result_.members.assign(1, {result_.interface_index, std::nullopt, 1, 0, result_.source, 0});
  result_.shares.assign(1, {});
  static_cast<void>(divert(divert_reason::local_destination));
}

/// fib_trie_unmerge() in net/ipv4/fib_trie.c: while no rule was ever configured, table main is
/// searched, and what is in table local is in it, before its own routes of the same prefix.
void decider::add_merged_main() {
  const route_table* const table = state_.find_table(ip_family::v4, RT_TABLE_MAIN);
  if (table == nullptr) return;
  std::vector<cover> in_main, both;
  search_(*table, question_.region, in_main);
  std::ranges::merge(
      covers_, in_main, std::back_inserter(both), std::greater{},
      [](const cover item) { return item->first.length(); },
      [](const cover item) { return item->first.length(); });
  covers_ = std::move(both);
}

decider::outcome decider::look_up_v4(const route_table& table) {
  search_(table, question_.region, covers_);
  if (&table == state_.find_table(ip_family::v4, RT_TABLE_LOCAL) &&
      state_.rules_configured(ip_family::v4) == false)
    add_merged_main();
  const ip_address* hidden = nullptr;  // A leaf of which a nexthop object hides the rest.
  for (const cover item : covers_) {
    if (hidden != nullptr && item->first.address() == *hidden) continue;
    for (const route_entry& entry : item->second) {
      if (entry.route.tos != 0 && entry.route.tos != (question_.cls->tos & ipv4_tos_mask)) continue;
      bool usable = false;
      const outcome out = take_entry_v4(item->first, entry, usable);
      found_entries_ = &item->second;
      if (usable) return out;
      if (entry.route.nexthop_id != 0) {
        hidden = &item->first.address();
        break;
      }
    }
  }
  return outcome::again;
}

/// One alias: sets `usable` where the search ends with it.
decider::outcome decider::take_entry_v4(const ip_prefix& prefix, const route_entry& entry,
                                        bool& usable) {
  const netlink::route& route = entry.route;
  if (is_reject(route.type)) {
    usable = true;
    result_.matched = prefix;
    return reject(route.type);
  }
  bool blackhole = false;
  if (const auto reason = list_members(entry, candidates_, blackhole)) {
    usable = true;
    return divert(*reason);
  }
  if (blackhole) {
    usable = true;
    return fail(EINVAL);
  }
  for (std::uint32_t i = 0; i < candidates_.size(); ++i) {
    if (!hop_is_alive(entry, candidates_[i]) ||
        (oif_ != 0 && candidates_[i].interface_index != oif_))
      continue;
    usable = true;
    found_member_ = i;
    result_.entry = &entry;
    result_.matched = prefix;
    result_.members.swap(candidates_);
    return outcome::found;
  }
  return outcome::again;
}

bool decider::main_is_longer_v4(unsigned length) {
  const route_table* table = state_.find_table(ip_family::v4, RT_TABLE_MAIN);
  if (table == nullptr) return false;
  std::vector<cover> in_main;
  search_(*table, question_.region, in_main);
  return !in_main.empty() && in_main.front()->first.length() > length;
}

void decider::finish_v4() {
  const netlink::route& route = result_.entry->route;
  if (route.type == RTN_LOCAL) {
    answer_local(RTN_LOCAL);
    return;
  }
  result_.type = question_.is_limited_broadcast() ? std::uint8_t{RTN_BROADCAST}
                 : question_.is_multicast()       ? std::uint8_t{RTN_MULTICAST}
                                                  : route.type;
  if (result_.entry->gateway == route_entry::gateway_use::unknown)
    static_cast<void>(divert(divert_reason::own_gateway));
  if (route.nexthop_id != 0 && state_.nexthop_is_ambiguous(ip_family::v4, route.nexthop_id))
    static_cast<void>(divert(divert_reason::shared_nexthop));
  const bool on_link = result_.entry->gateway == route_entry::gateway_use::on_link;
  for (path_member& member : result_.members) {
    // A gateway that nothing is sent to chooses the source all the same.
    const auto& gateway = on_link ? route.next_hops.front().gateway : member.gateway;
    member.source =
        source_                              ? source_
        : leaves_vrf(member.interface_index) ? device_source_v4(vrf_, std::nullopt, RT_SCOPE_LINK)
        : route.preferred_source             ? route.preferred_source
                                 : device_source_v4(member.interface_index, gateway, route.scope);
    const netlink::nexthop_object* object = state_.find_nexthop(member.nexthop_id);
    if (object != nullptr && gateway && !gateway->is_v6() && object->scope == RT_SCOPE_HOST)
      static_cast<void>(divert(divert_reason::own_gateway));
  }
  share_v4();
  name_first_share();
  if (result_.source && result_.source->is_loopback() &&
      result_.interface_index != loopback_device(state_) &&
      !is_vrf(state_, result_.interface_index) &&
      !state_.settings().route_localnet.contains(result_.interface_index)) {
    static_cast<void>(fail(EINVAL));
    return;
  }
  if (result_.type == RTN_BROADCAST) {
    for (path_member& member : result_.members) member.gateway.reset();
    static_cast<void>(divert(divert_reason::broadcast_destination));
  } else if (result_.type == RTN_MULTICAST) {
    // A default route lends its device, not its gateway.
    if (result_.matched.length() < 4)
      for (path_member& member : result_.members) member.gateway.reset();
    divert_unless_only_copy();
  } else if (result_.type != RTN_UNICAST) {
    static_cast<void>(divert(divert_reason::unsupported_route));
  }
  divert_without_source();
  apply_exception();
}

/// One member without a source leaves all flows to the kernel: the group is one decision.
void decider::divert_without_source() {
  for (const path_share& share : result_.shares)
    if (share.is_known() && !result_.members[share.member].source)
      static_cast<void>(divert(divert_reason::no_source_address));
}

/// Device and source of a decision are those of its first share, where nobody asks for one flow.
void decider::name_first_share() {
  const auto known = std::ranges::find_if(result_.shares, &path_share::is_known);
  const path_member& first = result_.members[known->member];
  result_.interface_index = first.interface_index;
  result_.source = first.source;
}

void decider::share_v4() {
  result_.shares.assign(1, {0x7fffffff, found_member_});
  const netlink::route& route = result_.entry->route;
  if (oif_ != 0) return;
  if (result_.members.size() == 1) {
    if (result_.matched.length() == 0 && route.type == RTN_UNICAST) select_default_v4();
    return;
  }
  if (share_by_buckets()) return;
  const bool object = route.nexthop_id != 0;
  std::vector<bool> good(result_.members.size(), true);
  std::uint32_t fallback = found_member_;
  bool any_good = false;
  for (std::uint32_t i = 0; i < good.size(); ++i) {
    const path_member& member = result_.members[i];
    const mirror::device* device = state_.find_device(member.interface_index);
    if (device != nullptr && device->has_stale_shares(ip_family::v4))
      static_cast<void>(divert(divert_reason::stale_shares));
    if (!hop_is_alive(*result_.entry, member)) {
      good[i] = false;
    } else if (member.gateway && (object || state_.settings().multipath_use_neighbours)) {
      good[i] = consult(member, consulted_neighbour::aspect::good);
    }
    if (good[i] && !any_good) fallback = i;
    any_good |= good[i];
  }
  if (object && !any_good) fallback = 0;
  share_by_bounds(good, fallback);
  if (object || !source_ ||
      state_.settings().kernel_version < kernel_quirks::source_steers_multipath)
    return;
  // Since 6.16 a next hop whose (cached) source is the requested one is preferred.
  std::vector<bool> preferred(good.size());
  std::optional<std::uint32_t> first;
  for (std::uint32_t i = 0; i < good.size(); ++i) {
    const path_member& member = result_.members[i];
    const mirror::device* device = state_.find_device(member.interface_index);
    borrowed_source_ = false;
    preferred[i] =
        good[i] && device_source_v4(member.interface_index, member.gateway, route.scope) == source_;
    // Of another device: the next hop keeps what it borrowed when addresses come there.
    if (borrowed_source_) static_cast<void>(divert(divert_reason::cached_source));
    if (!preferred[i]) continue;
    if (!first) first = i;
    if ((device != nullptr && device->renumbered) ||
        state_.settings().kernel_version < kernel_quirks::source_steers_as_seen)
      static_cast<void>(divert(divert_reason::cached_source));
  }
  if (first) share_by_bounds(preferred, *first);
}

/// fib_select_default() in net/ipv4/fib_semantics.c: of several default routes through gateways the
/// kernel takes the next one that its neighbour entry recommends, and remembers where it was. Only
/// where the first one is beyond doubt alive the answer does not depend on that memory.
///
/// Rivals are those of one metric, where "one" is compared with the route before only within its
/// TOS: the first plain route behind one with a TOS is its rival whatever the metric.
///
/// Line by line the same in 6.1, 6.12 and 6.18, but for how a route's TOS is compared: 6.1 cuts
/// that of the flow to ipv4_tos_mask when it is made (IPTOS_RT_MASK in net/ipv4/route.c), the
/// others with each route (fib_dscp_masked_match in include/net/ip_fib.h).
void decider::select_default_v4() {
  const netlink::route& match = result_.entry->route;
  std::uint32_t last_priority = match.priority;
  std::uint8_t last_tos = 0;
  std::size_t rivals = 0;
  for (const route_entry& entry : *found_entries_) {
    const netlink::route& route = entry.route;
    if (route.tos != 0 && route.tos != (question_.cls->tos & ipv4_tos_mask)) continue;
    if (route.priority > last_priority && route.tos == last_tos) {
      if (last_tos == 0) break;
      continue;
    }
    bool blackhole = false;
    if (list_members(entry, candidates_, blackhole)) {
      ++rivals;  // Perhaps.
      continue;
    }
    const auto is_dead = [](const path_member& m) { return (m.flags & RTNH_F_DEAD) != 0; };
    if (!candidates_.empty() && std::ranges::all_of(candidates_, is_dead)) continue;
    last_tos = route.tos;
    last_priority = route.priority;
    if (route.scope != match.scope || route.type != RTN_UNICAST) continue;
    if (candidates_.empty() || !candidates_.front().gateway) continue;
    // One before the match, passed over by the search, leaves the match alone.
    if (rivals == 0 && &entry != result_.entry) return;
    ++rivals;
  }
  if (rivals < 2) return;
  if (!consult(result_.members.front(), consulted_neighbour::aspect::alive_default))
    static_cast<void>(divert(divert_reason::rotating_default));
}

/// The device's own part of device_source_v4(). With route_localnet a host's own addresses are as
/// good as a link's.
std::optional<ip_address> decider::own_source_v4(const mirror::device& device,
                                                 const std::optional<ip_address>& gateway,
                                                 std::uint8_t scope, bool localnet) const {
  const std::uint8_t widest = localnet ? RT_SCOPE_LINK : RT_SCOPE_HOST;
  std::optional<ip_address> first;
  for (const netlink::address& own : device.v4) {
    if ((own.flags & IFA_F_SECONDARY) != 0 || std::min(own.scope, widest) > scope) continue;
    if (!gateway || gateway->is_v6()) return own.local;
    if (ip_prefix(own.peer, own.prefix_length).contains(*gateway)) return own.local;
    if (!first) first = own.local;
  }
  return first;
}

/// What is leaked out of a VRF has a source of it, whatever the route prefers (fib_select_path() in
/// net/ipv4/fib_semantics.c, ip6_route_get_saddr() in include/net/ip6_route.h).
bool decider::leaves_vrf(std::uint32_t index) const {
  return vrf_ != 0 && vrf_of(state_, index) != vrf_;
}

/// inet_select_addr(): the first address in list order whose subnet holds the gateway, else the
/// first eligible one, else one of another device of the same VRF, or outside of all of them.
std::optional<ip_address> decider::device_source_v4(std::uint32_t index,
                                                    const std::optional<ip_address>& gateway,
                                                    std::uint8_t scope) {
  if (const mirror::device* device = state_.find_device(index)) {
    const bool localnet = state_.settings().route_localnet.contains(index);
    const auto own = own_source_v4(*device, gateway, scope, localnet);
    if (device->localnet_changed && own != own_source_v4(*device, gateway, scope, !localnet))
      static_cast<void>(divert(divert_reason::cached_source));
    if (own) return own;
  }
  borrowed_source_ = true;
  // Devices in order of registration, which is known for the loopback (first), for those that came
  // while we watched (last), and for those before them once it was read.
  const auto eligible = [&](const mirror::device& device) -> const netlink::address* {
    for (const netlink::address& own : device.v4)
      if ((own.flags & IFA_F_SECONDARY) == 0 && own.scope != RT_SCOPE_LINK && own.scope <= scope)
        return &own;
    return nullptr;
  };
  // The VRF's own address goes before those of its other members.
  const std::uint32_t vrf = vrf_of(state_, index);
  const mirror::device* const master = vrf == 0 ? nullptr : state_.find_device(vrf);
  if (master != nullptr && eligible(*master) != nullptr) return eligible(*master)->local;
  const mirror::device* best = nullptr;
  bool certain = true;
  for (const auto& [i, device] : state_.devices()) {
    if (eligible(device) == nullptr || vrf_of(state_, device) != vrf) continue;
    if ((device.link.flags & IFF_LOOPBACK) != 0) return eligible(device)->local;
    if (best == nullptr || device.registered < best->registered) {
      best = &device;
      certain = true;
    } else if (device.registered == best->registered) {
      certain &= device.is_order_known(*best, ip_family::v4);
      if (device.position(ip_family::v4) < best->position(ip_family::v4)) best = &device;
    }
  }
  if (best == nullptr) return std::nullopt;
  if (!certain) static_cast<void>(divert(divert_reason::source_tie));
  return eligible(*best)->local;
}

// ----------------------------------------------------------------------------------------------
// multicast

/// udp_sendmsg() in net/ipv4/udp.c, udpv6_sendmsg() in net/ipv6/udp.c: a bound device counts more,
/// unless it is a VRF (IPv4).
void decider::choose_multicast_device() {
  const flow_class& cls = *question_.cls;
  const std::uint32_t bound = cls.output_interface;
  if (cls.multicast_interface == 0) return;
  if (bound != 0 && (question_.family() == ip_family::v6 || !is_vrf(state_, bound))) return;
  to_group_ = cls;
  to_group_.output_interface = cls.multicast_interface;
  question_.cls = &to_group_;
}

/// A datagram to a group is like any other where the kernel makes no copy of it for this host.
void decider::divert_unless_only_copy() {
  const flow_class& cls = *question_.cls;
  // With TTL 0 it leaves if the group has no members here, and else not.
  if (cls.multicast_ttl == 0 || !is_known_multicast(question_.region))
    static_cast<void>(divert(divert_reason::multicast_destination));
  // Of a sender in a VRF it may leave outside of it: not proven with members and routers there.
  if (cls.output_interface != 0 && vrf_of(state_, cls.output_interface) != 0)
    static_cast<void>(divert(divert_reason::multicast_destination));
  if (cls.multicast_interface_hidden && cls.output_interface == 0)
    static_cast<void>(divert(divert_reason::multicast_interface_unknown));
  for (const path_share& share : result_.shares) {
    if (!share.is_known()) continue;
    const std::uint32_t index = result_.members[share.member].interface_index;
    if (const auto reason = reason_of_copy(index)) static_cast<void>(divert(*reason));
  }
}

/// ip_mc_output() in net/ipv4/ip_output.c, ip6_finish_output2() in net/ipv6/ip6_output.c. Groups
/// with members are regions of their own.
std::optional<divert_reason> decider::reason_of_copy(std::uint32_t index) const {
  const mirror::device* device = state_.find_device(index);
  if (device == nullptr || (device->link.flags & IFF_LOOPBACK) != 0 || vrf_of(state_, *device) != 0)
    return divert_reason::multicast_destination;
  if (!question_.cls->multicast_loop) return std::nullopt;
  if (state_.routes_multicast(question_.family(), index)) return divert_reason::multicast_routing;
  if (!state_.follows_members()) return divert_reason::multicast_members_unknown;
  if (question_.region.is_host() && state_.has_member(index, question_.destination()))
    return divert_reason::multicast_member;
  return std::nullopt;
}

// ----------------------------------------------------------------------------------------------
// exceptions

/// A redirect takes the place of the gateway, and of nothing else: the source was chosen before.
void decider::apply_exception() {
  if (!question_.region.is_host() || question_.ignore_exceptions || result_.type != RTN_UNICAST)
    return;
  const path_exception* const known = state_.find_path_exception(question_.destination());
  if (known == nullptr || !(known->redirected || known->doubtful)) return;
  const auto owner = owner_of(result_, question_);
  const auto answered = std::ranges::find_if(
      known->answers, [&](const path_exception::answer& one) { return one.owner == owner; });
  if (known->doubtful || !owner || answered == known->answers.end())
    static_cast<void>(divert(divert_reason::path_exception));
  else if (answered->redirected)
    result_.members.front().gateway = answered->gateway;
}

// ----------------------------------------------------------------------------------------------
// IPv6

/// Whether the kernel takes a source that comes with the datagram (ip6_datagram_send_ctl() in
/// net/ipv6/datagram.c): a tried address, of the VRF that the socket is bound to. Link-local ones
/// also depend on the device, and anycast ones on what nobody announces.
bool decider::source_may_be_asked_for_v6() const {
  const bool asked_for = question_.as == route_question::send && question_.cls->source_is_asked_for;
  if (!source_ || !asked_for) return true;
  if (source_->is_link_local_v6()) return false;
  return has_address_v6(state_, *source_, vrf_);
}

void decider::decide_v6() {
  if (!source_may_be_asked_for_v6()) {
    static_cast<void>(divert(divert_reason::no_source_address));
    return;
  }
  const ip_address& to = question_.destination();
  strict_ =
      oif_ != 0 && (!source_ || question_.as == route_question::send || question_.is_multicast() ||
                    (question_.region.length() >= 10 && to.is_link_local_v6()) ||
                    (question_.region.is_host() && to.is_loopback()));
  const auto look = [&] { return is_link_scoped() ? look_up_on_link_v6() : walk_rules(); };
  outcome out = look();
  if (out == outcome::error && question_.as == route_question::send && !source_) {
    // The socket tries once more, with a source that it chooses without a route.
    const int error = result_.error;
    source_ = selected_source_v6(is_link_scoped() ? 0 : vrf_);
    if (result_.divert) return;
    if (!source_) {
      result_.error = EADDRNOTAVAIL;
      return;
    }
    result_.error = 0;
    out = look();
    if (out == outcome::error && result_.error == 0) result_.error = error;
    second_question_ = true;
  }
  if (out == outcome::found) finish_v6();
}

/// RTM_GETROUTE tells what would be the source outside of VRFs (rt6_fill_node()).
bool decider::leaks_source_v6(std::uint32_t index) const {
  return question_.as == route_question::send && !is_link_scoped() && leaves_vrf(index);
}

/// In a VRF no rules are asked about what means something on one link only.
bool decider::is_link_scoped() const {
  return vrf_ != 0 && (question_.is_multicast() || (question_.region.length() >= 10 &&
                                                    question_.destination().is_link_local_v6()));
}

/// vrf_link_scope_lookup() in drivers/net/vrf.c: nothing is on the link of the VRF itself.
decider::outcome decider::look_up_on_link_v6() {
  if (device_ == vrf_) return fail(ENETUNREACH);
  const outcome out = look_up(table_of_vrf(state_, vrf_));
  if (out == outcome::again) return fail(ENETUNREACH);
  return out == outcome::leave ? fail(EAGAIN) : out;
}

decider::outcome decider::look_up_v6(const route_table& table) {
  search_(table, question_.region, covers_);
  if (!list_nodes_v6(table)) return divert(divert_reason::source_tree);
  // First with gateways known to be dead left out (hosts only, not routers), then the whole walk
  // again with them.
  for (int pass = state_.forwarding(ip_family::v6) ? 1 : 0; pass < 2; ++pass) {
    for (const node_v6& node : nodes_) {
      const outcome out = select_in_node_v6(node, pass == 0);
      if (out != outcome::again) return out;
    }
  }
  return outcome::again;
}

/// Source-specific routes hang in a tree of their own below their destination. The direct descent
/// passes a destination that has such a tree with nothing for our source in it, its plain routes
/// included; who comes back from a longer one finds those. The root is exempt.
///
/// False: a destination without plain routes of its own may be represented in the kernel's tree by
/// a route of a longer prefix, and then the direct descent passes it whatever the source.
bool decider::list_nodes_v6(const route_table& table) {
  nodes_.clear();
  const ip_address source = source_.value_or(ip_address::any(ip_family::v6));
  for (const cover item : covers_) {
    const auto& [prefix, entries] = *item;
    const auto plain = [](const route_entry& entry) { return entry.route.source.length() == 0; };
    const bool has_tree = !std::ranges::all_of(entries, plain);
    const std::size_t before = nodes_.size();
    for (unsigned length = has_tree ? source.bits() : 0; length > 0; --length) {
      const ip_prefix asked(source, length);
      const auto fits = [&](const auto& entry) { return entry.route.source == asked; };
      if (std::ranges::any_of(entries, fits)) nodes_.push_back({&prefix, &entries, asked});
    }
    const bool has_plain = std::ranges::any_of(entries, plain);
    const bool direct = before == 0 && has_tree && prefix.length() != 0;
    if (direct && !has_plain && nodes_.size() != before) {
      const auto next = table.upper_bound(prefix);
      if (next != table.end() && prefix.contains(next->first)) return false;
    }
    const bool passed_by = direct && nodes_.size() == before;
    if (has_plain && !passed_by)
      nodes_.push_back({&prefix, &entries, ip_prefix::all(ip_family::v6)});
  }
  return true;
}

/// The score of rt6_score_route(), or -1 where the next hop cannot be used.
int decider::score_v6(const route_entry& entry, const path_member& member, bool reachable) {
  const bool on_device = oif_ == 0 || member.interface_index == oif_;
  if (!hop_is_alive(entry, member) || (strict_ && !on_device)) return -1;
  if (reachable && member.gateway && consult(member, consulted_neighbour::aspect::failed))
    return -1;
  constexpr int medium = 2, high = 3, low = 1;
  const int preference = entry.route.preference == 1   ? high
                         : entry.route.preference == 3 ? low
                                                       : medium;
  return (on_device ? 2 : 0) | preference << 2;
}

decider::outcome decider::select_in_node_v6(const node_v6& node, bool reachable) {
  int best = -1;
  const route_entry* first = nullptr;
  const route_entry* chosen = nullptr;
  std::uint32_t chosen_member = 0;
  for (const route_entry& entry : *node.entries) {
    if (entry.route.source != node.source) continue;
    if (first == nullptr) first = &entry;
    // The first metric stands alone; if it has nothing usable, all others compete together.
    if (chosen != nullptr && entry.route.priority != first->route.priority &&
        chosen->route.priority == first->route.priority)
      break;
    bool blackhole = false;
    if (const auto reason = list_members(entry, candidates_, blackhole)) return divert(*reason);
    if (blackhole) return fail(EINVAL);
    if (is_reject(entry.route.type) && candidates_.empty())
      candidates_.push_back({loopback_device(state_), std::nullopt, 1, 0, {}, 0});
    // Any of them may be preferred to all others.
    if (entry.mixed_siblings) static_cast<void>(divert(divert_reason::mixed_siblings));
    for (std::uint32_t m = 0; m < candidates_.size(); ++m) {
      const int score = score_v6(entry, candidates_[m], reachable);
      if (score <= best) continue;
      best = score;
      chosen = &entry;
      chosen_member = m;
      // An object counts with its first member that is better than what came before it.
      if (entry.route.nexthop_id != 0) break;
    }
  }
  if (chosen == nullptr) return outcome::again;
  if (is_reject(chosen->route.type)) return reject(chosen->route.type);
  bool blackhole = false;
  static_cast<void>(list_members(*chosen, result_.members, blackhole));
  result_.entry = chosen;
  result_.matched = *node.destination;
  found_member_ = chosen_member;
  return outcome::found;
}

void decider::finish_v6() {
  const netlink::route& route = result_.entry->route;
  result_.type = route.type;
  if (route.type == RTN_LOCAL || route.type == RTN_ANYCAST) {
    answer_local(route.type);
    return;
  }
  if (route.nexthop_id != 0 && state_.nexthop_is_ambiguous(ip_family::v6, route.nexthop_id))
    static_cast<void>(divert(divert_reason::shared_nexthop));
  share_v6();
  // The hash would see the source of the second question, which differs between destinations.
  if (second_question_ && result_.shares.size() > 1)
    static_cast<void>(divert(divert_reason::chosen_source));
  for (path_member& member : result_.members) {
    // A group's source is chosen for its first member, whoever carries the datagram.
    const std::uint32_t device =
        route.nexthop_id != 0 ? result_.members.front().interface_index : member.interface_index;
    member.source = source_                   ? source_
                    : leaks_source_v6(device) ? selected_source_v6(vrf_)
                    : route.preferred_source  ? route.preferred_source
                                              : selected_source_v6(device);
  }
  if (question_.is_unspecified())  // A socket sends to ::1 instead.
    static_cast<void>(divert(divert_reason::local_destination));
  name_first_share();
  if (question_.is_multicast()) {
    result_.type = RTN_MULTICAST;  // The address decides, whatever the route says.
    divert_unless_only_copy();
  } else if (route.type != RTN_UNICAST)
    static_cast<void>(divert(divert_reason::unsupported_route));
  divert_without_source();
  apply_exception();
}

void decider::share_v6() {
  result_.shares.assign(1, {0x7fffffff, found_member_});
  if (result_.members.size() == 1) return;
  if (share_by_buckets()) {
    // Not seen on newer kernels.
    if (oif_ != 0 && state_.settings().kernel_version > kernel_quirks::bound_multipath_ignored)
      static_cast<void>(divert(divert_reason::bound_multipath));
    return;
  }
  const bool object = result_.entry->route.nexthop_id != 0;
  for (const path_member& member : result_.members)
    if (const mirror::device* device = state_.find_device(member.interface_index);
        !object && device != nullptr && device->has_stale_shares(ip_family::v6))
      static_cast<void>(divert(divert_reason::stale_shares));
  const bool reachable = !state_.forwarding(ip_family::v6);
  std::vector<bool> good(result_.members.size());
  std::optional<std::uint32_t> first_good;
  for (std::uint32_t i = 0; i < good.size(); ++i) {
    const path_member& member = result_.members[i];
    if (object)
      good[i] = hop_is_alive(*result_.entry, member) &&
                (!member.gateway || consult(member, consulted_neighbour::aspect::good));
    else
      good[i] = score_v6(*result_.entry, member, reachable) >= 0;
    if (good[i] && !first_good) first_good = i;
  }
  if (const std::uint32_t oif = oif_; oif != 0) {
    // Seen on 7.3 and not on 6.18: the first usable member over the asked device takes everything.
    const std::uint32_t version = state_.settings().kernel_version;
    const bool taken = version >= kernel_quirks::bound_multipath_taken;
    // What a VRF asks of the link alone was seen to be divided on 7.3 nevertheless.
    if (version > kernel_quirks::bound_multipath_ignored && (!taken || is_link_scoped()))
      static_cast<void>(divert(divert_reason::bound_multipath));
    // Of an object, usable or not: it asks no neighbour (seen with a FAILED one).
    if (taken && object && result_.members[found_member_].interface_index == oif) {
      result_.shares.front().member = found_member_;
      return;
    }
    for (std::uint32_t i = 0; taken && i < good.size(); ++i) {
      if (!good[i] || result_.members[i].interface_index != oif) continue;
      result_.shares.front().member = i;
      return;
    }
  }
  if (object) {
    share_by_bounds(good, first_good.value_or(0));
    return;
  }
  // A sibling that cannot be used leaves its whole share to the one that the selection found.
  share_by_bounds(std::vector<bool>(good.size(), true), found_member_);
  for (path_share& share : result_.shares)
    if (!good[share.member]) share.member = found_member_;
}

std::optional<ip_address> decider::selected_source_v6(std::uint32_t index) {
  if (!state_.settings().default_source_policy)
    static_cast<void>(divert(divert_reason::source_policy));
  const source_choice choice = select_source_v6(state_, index, question_.region);
  if (!choice.certain) static_cast<void>(divert(divert_reason::source_tie));
  return choice.address;
}

}  // namespace cowire::detail

namespace cowire {

std::optional<exception_owner> exception_owner_of(const mirror& state, const flow& question) {
  detail::decider decider(state, detail::covers_by_search);
  detail::decision_question asked;
  asked.cls = &question.cls;
  asked.region = ip_prefix(question.destination, question.destination.bits());
  asked.destination_port = question.destination_port;
  asked.as = route_question::get_route;
  asked.ignore_exceptions = true;
  const detail::decision& decided = decider.decide(asked);
  if (decided.error != 0 || decided.divert || decided.type != RTN_UNICAST) return std::nullopt;
  return detail::owner_of(decided, asked);
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/rule_question.hpp>
#include <cowire/route/agreement.hpp>
#include <cowire/route/resolve_by_search.hpp>
#include <cowire/route/rules.hpp>

#include <linux/rtnetlink.h>

#include <algorithm>
#include <array>
#include <system_error>

namespace cowire::detail {
namespace {

/// Routes of a table that are tried: where one table is consulted and not another, most differ.
constexpr std::size_t tried_per_table = 32;

/// Destinations in table main's routes inside those of table local.
void add_merged(const mirror& state, std::vector<ip_address>& out) {
  const route_table* const local = state.find_table(ip_family::v4, RT_TABLE_LOCAL);
  const route_table* const main = state.find_table(ip_family::v4, RT_TABLE_MAIN);
  if (local == nullptr || main == nullptr) return;
  std::size_t found = 0;
  for (const auto& [outer, ignored] : *local) {
    if (outer.is_host()) continue;
    const auto inside = main->upper_bound(outer);
    if (inside == main->end() || !outer.contains(inside->first)) continue;
    out.push_back(inside->first.address());
    if (++found == tried_per_table) return;
  }
}

/// Destinations for which it may matter that an initial rule is missing.
void add_of_tables(const mirror& state, ip_family family, std::vector<ip_address>& out) {
  for (const std::uint32_t id : {RT_TABLE_LOCAL, RT_TABLE_MAIN, RT_TABLE_DEFAULT}) {
    const route_table* const table = state.find_table(family, id);
    if (table == nullptr) continue;
    std::size_t found = 0;
    for (const auto& [prefix, ignored] : *table) {
      if (prefix.length() == 0 || prefix.address().is_multicast()) continue;
      out.push_back(prefix.address());
      if (!prefix.is_host()) out.push_back(prefix.last());  // The first is often another route's.
      if (++found == tried_per_table) break;
    }
  }
  // What only default routes lead to (RFC 5737, RFC 3849).
  out.push_back(family == ip_family::v4 ? ip_address::v4(0xc0000201)
                                        : *ip_address::parse("2001:db8::1"));
}

/// Whether the kernel's answer can be held against it.
bool can_be_compared(const resolution& answer) {
  return !answer.divert || answer.divert == divert_reason::local_destination;
}

bool looks_the_same(const resolution& left, const resolution& right) {
  const auto gateway = [](const resolution& one) {
    return one.members.empty() ? std::nullopt : one.members.front().gateway;
  };
  return left.error == right.error && left.type == right.type &&
         left.interface_index == right.interface_index && left.source == right.source &&
         gateway(left) == gateway(right);
}

}  // namespace

std::uint64_t rule_question::settle(mirror& state, mirror_changes& changes) {
  asked_ = 0;
  for (const ip_family family : ip_families) {
    std::optional<bool>& before = said_[static_cast<std::size_t>(family)];
    if (state.rules_configured(family)) {
      before.reset();
      continue;
    }
    std::vector<ip_address> destinations;
    if (state.initial_rules_may_count(family))
      add_of_tables(state, family, destinations);
    else if (family == ip_family::v4)
      add_merged(state, destinations);
    std::optional<bool> said;
    for (const ip_address& destination : destinations)
      if (said = ask(state, destination); said) break;
    if (said && before == said) state.set_rules_configured(family, said, changes);
    before = said;
  }
  return asked_;
}

/// What the kernel's answer about a destination means, if anything.
std::optional<bool> rule_question::ask(mirror& state, const ip_address& destination) {
  flow about;
  about.destination = destination;
  mirror_changes ignored;
  const auto suppose = [&](std::optional<bool> configured) {
    state.set_rules_configured(destination.family(), configured, ignored);
    return resolve_by_search(state, about, route_question::get_route);
  };
  const resolution initial = suppose(false), listed = suppose(true);
  std::optional<bool> said;
  if (can_be_compared(initial) && can_be_compared(listed) && !looks_the_same(initial, listed)) {
    ++asked_;
    std::error_code ec;
    const auto kernel = kernel_.get_route(query_of(about), ec);
    // By now it is supposed that rules are configured.
    const bool as_listed = !ec && compare_answers(state, about, listed, kernel).path.empty();
    static_cast<void>(suppose(false));
    const bool as_initial = !ec && compare_answers(state, about, initial, kernel).path.empty();
    if (as_listed != as_initial) said = as_listed;
  }
  state.set_rules_configured(destination.family(), std::nullopt, ignored);
  return said;
}

}  // namespace cowire::detail

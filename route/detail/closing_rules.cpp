// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/closing_rules.hpp>
#include <cowire/route/detail/output_walk.hpp>
#include <cowire/route/detail/xt_match.hpp>

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace cowire::detail {
namespace {

namespace nft = netlink::nft;
namespace ex = netlink::nft::expressions;
using chain_rules = nft::ruleset::chain_rules;

/// Statements that are an obstacle of netfilter's to whatever comes to them.
constexpr std::string_view obstacles[] = {"reject", "log",           "limit",
                                          "queue",  "target:REJECT", "target:LOG"};

bool is_obstacle(const nft::expression& x) {
  if (const auto* i = std::get_if<ex::immediate>(&x.content)) {
    const auto* verdict = std::get_if<nft::verdict>(&i->value);
    return verdict != nullptr && verdict->code == nft::verdict::drop;
  }
  return std::holds_alternative<ex::other>(x.content) &&
         std::ranges::find(obstacles, std::string_view(x.name)) != std::end(obstacles);
}

/// Whether it may read the destination, or what rules change (mark, connection tracking).
bool reads_more(const nft::rule& in, const nft::expression& x) {
  if (const auto* p = std::get_if<ex::payload_load>(&x.content)) {
    const std::uint64_t destination = in.family == nft::family::ipv6 ? 24 : 16;  // Or behind it.
    const std::uint64_t end = std::uint64_t{p->offset} + p->length;
    return p->base != ex::payload_base::transport &&
           (p->base != ex::payload_base::network || end > destination);
  }
  if (const auto* m = std::get_if<ex::meta_load>(&x.content)) return m->key == ex::meta_key::mark;
  if (const auto* l = std::get_if<ex::lookup>(&x.content)) return l->to.has_value();
  if (const auto* m = std::get_if<ex::xt_match>(&x.content))
    return m->name != "udp" && m->name != "multiport";
  if (const auto* i = std::get_if<ex::immediate>(&x.content))
    return !std::holds_alternative<nft::bytes>(i->value);
  return !std::holds_alternative<ex::compare>(x.content) &&
         !std::holds_alternative<ex::range>(x.content) &&
         !std::holds_alternative<ex::bitwise>(x.content) &&
         !std::holds_alternative<ex::byteorder>(x.content) &&
         !std::holds_alternative<ex::soft>(x.content);
}

/// What is behind the obstacle is never come to.
bool only_closes(const nft::rule& one) {
  if (one.not_understood) return false;
  for (const nft::expression& x : one.expressions) {
    if (is_obstacle(x)) return true;
    if (reads_more(one, x)) return false;
  }
  return false;
}

/// Whether datagrams may leave a chain at such an expression without an obstacle.
bool may_lead_away(const nft::expression& x) {
  if (const auto* l = std::get_if<ex::lookup>(&x.content)) return l->to == ex::verdict_register;
  const auto* i = std::get_if<ex::immediate>(&x.content);
  const auto* verdict = i == nullptr ? nullptr : std::get_if<nft::verdict>(&i->value);
  if (verdict == nullptr) return false;
  switch (verdict->code) {
    case nft::verdict::accept:
    case nft::verdict::jump:
    case nft::verdict::go_to:
    case nft::verdict::return_to_caller:
      return true;
    default:
      return false;
  }
}

/// Of any flow: of a compiler's questions this is the part that all of them have in common.
output_flow any_flow(ip_family family) {
  output_flow any;
  any.destination = ip_prefix::all(family);
  any.tos.reset();
  any.passes_vrf = true;
  return any;
}

/// Whether datagrams that are new to connection tracking may leave the chain here. Those of
/// established flows may: what closes a port to the first of a flow closes it.
bool may_let_leave(const nft::ruleset& rules, const chain_rules& chain, const nft::rule& one) {
  if (std::ranges::none_of(one.expressions, may_lead_away)) return false;
  for (const ip_family family : ip_families) {
    const output_flow any = any_flow(family);
    destination_verdicts ignored(any.destination);
    output_sets sets(rules);
    if (output_walk(rules, sets, any, tracking_state::fresh, ignored).may_match_new(chain, one))
      return true;
  }
  return false;
}

bool can_have_closing_rules(const chain_rules& one) {
  const auto& hook = one.chain.hook;
  return one.chain.family != nft::family::netdev && hook && !one.chain.not_understood &&
         (hook->number == hook_local_out || hook->number == hook_post_routing) &&
         (one.chain.type == "filter" || one.chain.type == "route");
}

/// Their places, in order.
std::vector<std::size_t> closing_rules_of(const nft::ruleset& rules, const chain_rules& chain) {
  std::vector<std::size_t> found;
  if (!can_have_closing_rules(chain)) return found;
  std::size_t place = 0;
  for (const nft::rule& one : chain.rules) {
    if (only_closes(one))
      found.push_back(place);
    else if (may_let_leave(rules, chain, one))
      break;
    ++place;
  }
  return found;
}

void take_sets_of(const nft::rule& one, const nft::ruleset& from, nft::ruleset& into) {
  for (const nft::expression& x : one.expressions) {
    const auto* l = std::get_if<ex::lookup>(&x.content);
    if (l == nullptr) continue;
    const auto set = from.sets.find({one.family, one.table, l->set});
    if (set != from.sets.end()) into.sets.insert(*set);
  }
}

}  // namespace

std::optional<divided_ruleset> without_closing_rules(const nft::ruleset& rules) {
  std::optional<divided_ruleset> made;
  for (const auto& [key, chain] : rules.chains) {
    const std::vector<std::size_t> places = closing_rules_of(rules, chain);
    if (places.empty()) continue;
    if (!made) {
      made.emplace();
      made->others = rules;
      made->closing.tables = rules.tables;
    }
    chain_rules& closing = made->closing.chains[key];
    closing.chain = chain.chain;
    closing.chain.policy = nft::verdict::accept;
    closing.chain.policy_counts = false;
    auto& others = made->others.chains[key].rules;
    for (const std::size_t place : places) {
      closing.rules.push_back(chain.rules[place]);
      take_sets_of(closing.rules.back(), rules, made->closing);
    }
    for (auto place = places.rbegin(); place != places.rend(); ++place) others.erase_at(*place);
  }
  return made;
}

}  // namespace cowire::detail

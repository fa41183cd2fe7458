// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/nft_follower.hpp>

#include <algorithm>
#include <iterator>
#include <utility>
#include <variant>

namespace cowire::netlink::nft {
namespace {

/// How many ended transactions are remembered; with more the ruleset is read.
constexpr std::size_t transactions_max = 1024;

/// The kernel leaves zero out.
constexpr std::uint32_t after(std::uint32_t generation) noexcept {
  return generation + 1 == 0 ? 1 : generation + 1;
}

auto find_handle(const shared_list<rule>& in, std::uint64_t handle) {
  return std::ranges::find(in, handle, &rule::handle);
}

bool fills_a_set(const rule& one) {
  return std::ranges::any_of(one.expressions,
                             [](const expression& e) { return !e.filled_set.empty(); });
}

/// False: it is not known where, or what it means to others.
bool apply(ruleset& to, const change& what, const rule& one) {
  const auto chain = to.chains.find({one.family, one.table, one.chain});
  if (chain == to.chains.end() || fills_a_set(one)) return false;
  auto& rules = chain->second.rules;
  const auto known = find_handle(rules, one.handle);
  if (what.removed) {
    if (known == rules.end() || fills_a_set(*known)) return false;
    static_cast<void>(rules.erase(known));
    return true;
  }
  if (known != rules.end()) return false;
  if (what.position != 0) {
    const auto before = find_handle(rules, what.position);
    if (before == rules.end()) return false;
    rules.insert(std::next(before), one);
    return true;
  }
  // Older kernels never say where, so a rule is the first only if there is no other.
  if (!what.appended && !rules.empty()) return false;
  rules.push_back(one);
  return true;
}

bool apply(ruleset& to, const change& what, const set& one) {
  const object_key key{one.family, one.table, one.name};
  if (what.removed) return to.sets.erase(key) != 0;
  return to.sets.try_emplace(key, ruleset::set_contents{one, {}, false}).second;
}

bool apply(ruleset& to, const change& what, const set_elements& some) {
  const auto set = to.sets.find({some.family, some.table, some.set});
  if (set == to.sets.end()) return false;
  for (const element& one : some.elements) {
    if (!what.removed)
      set->second.elements.add(one);
    else if (!set->second.elements.remove(one))
      return false;
  }
  return true;
}

template <class Other>
bool apply(ruleset&, const change&, const Other&) {
  return false;
}

}  // namespace

void follower::on_datagram(std::span<const std::byte> datagram) {
  std::error_code ec;
  while (const auto one = next_envelope(datagram, ec)) keep(*one);
  open_.understood &= !ec;
}

void follower::on_loss() {
  open_.understood = false;
  open_.changes.clear();
}

void follower::keep(const envelope& one) {
  std::error_code ec;
  auto heard = decode_change(one.bytes, ec);
  const auto* number = heard ? std::get_if<generation>(&heard->message) : nullptr;
  if (number != nullptr) {
    open_.generation = number->id;
    ended_.push_back(std::exchange(open_, {}));
    // The oldest is then missing, and what follows it cannot be followed.
    if (ended_.size() > transactions_max) ended_.erase(ended_.begin());
    return;
  }
  open_.understood &= heard && !ec && open_.changes.size() < changes_max;
  if (open_.understood)
    open_.changes.push_back(std::move(*heard));
  else
    open_.changes.clear();
}

follower::outcome follower::follow(ruleset& rules) {
  outcome done = outcome::unchanged;
  ruleset now = rules;
  for (const transaction& each : std::exchange(ended_, {})) {
    // What was read already.
    if (static_cast<std::int32_t>(each.generation - now.generation) <= 0) continue;
    if (!each.understood || each.generation != after(now.generation)) return outcome::must_be_read;
    now.generation = each.generation;
    for (const change& what : each.changes) {
      const bool applied =
          std::visit([&](const auto& content) { return apply(now, what, content); }, what.message);
      if (!applied) return outcome::must_be_read;
      const bool only_elements = std::holds_alternative<set_elements>(what.message);
      done = only_elements ? std::max(done, outcome::elements) : outcome::rules;
    }
    done = std::max(done, outcome::elements);
  }
  if (done != outcome::unchanged) rules = std::move(now);
  return done;
}

}  // namespace cowire::netlink::nft

// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/ruleset_difference.hpp>
#include <cowire/route/detail/shared_list_difference.hpp>

#include <algorithm>
#include <utility>

namespace cowire::detail {
namespace {

namespace nft = netlink::nft;
static_assert(differing_max >= ruleset_difference::size_max);
using chain_rules = nft::ruleset::chain_rules;

/// Between what is the same at the beginning and at the end of a chain.
void compare_rules(const chain_rules& before, const chain_rules& now, ruleset_difference& into) {
  const auto &a = before.rules.chunks(), &b = now.rules.chunks();
  std::size_t first = 0, last = 0;
  const std::size_t shorter = std::min(a.size(), b.size());
  while (first < shorter && a[first] == b[first]) ++first;
  while (last < shorter - first && a[a.size() - 1 - last] == b[b.size() - 1 - last]) ++last;
  const auto listed = [&](const auto& chunks) {
    std::vector<const nft::rule*> all;
    for (std::size_t i = first; i + last < chunks.size(); ++i)
      for (const nft::rule& one : *chunks[i]) all.push_back(&one);
    return all;
  };
  const auto old = listed(a), fresh = listed(b);
  const auto same = [](const nft::rule* x, const nft::rule* y) { return *x == *y; };
  const auto [from_old, from_fresh] =
      std::mismatch(old.begin(), old.end(), fresh.begin(), fresh.end(), same);
  const auto [to_old, to_fresh] =
      std::mismatch(old.rbegin(), std::make_reverse_iterator(from_old), fresh.rbegin(),
                    std::make_reverse_iterator(from_fresh), same);
  for (auto at = from_old; at != to_old.base(); ++at) into.gone.push_back({&before, *at});
  for (auto at = from_fresh; at != to_fresh.base(); ++at) into.come.push_back({&now, *at});
}

bool compare_chains(const nft::ruleset& before, const nft::ruleset& now, ruleset_difference& into) {
  if (before.chains.size() != now.chains.size()) return false;
  for (auto a = before.chains.begin(), b = now.chains.begin(); a != before.chains.end(); ++a, ++b) {
    if (a->first != b->first || a->second.chain != b->second.chain) return false;
    compare_rules(a->second, b->second, into);
    if (into.gone.size() + into.come.size() > ruleset_difference::size_max) return false;
  }
  return true;
}

/// A set that is in one only belongs to rules that are.
bool compare_sets(const nft::ruleset& before, const nft::ruleset& now, ruleset_difference& into) {
  for (const auto& [key, set] : before.sets) {
    const auto other = now.sets.find(key);
    if (other == now.sets.end()) continue;
    if (set.set != other->second.set || set.filled_by_packets != other->second.filled_by_packets)
      return false;
    auto elements = differing(set.elements, other->second.elements, nft::element_list::is_before);
    if (elements.size() > ruleset_difference::size_max) return false;
    if (!elements.empty()) into.elements.emplace(key, std::move(elements));
  }
  return true;
}

}  // namespace

std::optional<ruleset_difference> difference_between(const nft::ruleset& before,
                                                     const nft::ruleset& now) {
  ruleset_difference found;
  if (before.tables != now.tables || before.tracking_objects != now.tracking_objects ||
      !compare_chains(before, now, found) || !compare_sets(before, now, found))
    return std::nullopt;
  return found;
}

}  // namespace cowire::detail

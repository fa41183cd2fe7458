// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/output_sets.hpp>

#include <algorithm>
#include <cstring>

namespace cowire::detail {

using netlink::nft::bytes;

namespace {

constexpr std::size_t aligned(std::size_t length) noexcept {
  return (length + 3) & ~std::size_t{3};
}

}  // namespace

/// One candidate more, which the key is (yes) or may be.
void output_sets::add(set_answer& to, const element& one, ternary is) const {
  to.candidates.push_back(&one);
  to.has_side_effects |= has_side_effects(one);
  to.found = is == ternary::yes && to.candidates.size() == 1 ? ternary::yes : ternary::maybe;
}

std::size_t output_sets::key_length(const netlink::nft::object_key& name) const {
  const auto found = rules_.sets.find(name);
  return found == rules_.sets.end() ? 0 : found->second.set.key_length;
}

void output_sets::search_intervals(const prepared& set, const partial_key& key, set_answer& into,
                                   std::size_t& steps) const {
  const auto least = key.lowest(), most = key.highest();
  for_intervals(
      set.elements(), [&](const bytes& k) { return partial_key::compare(least, k) >= 0; },
      [&](const bytes& k) { return partial_key::compare(most, k) >= 0; },
      [&](const element& first, const bytes* end) {
        ++steps;
        const bool whole = partial_key::compare(least, first.key) >= 0 &&
                           (end == nullptr || partial_key::compare(most, *end) < 0);
        add(into, first, whole ? ternary::yes : ternary::maybe);
      });
}

void output_sets::search_fields(const prepared& set, const partial_key& key, set_answer& into,
                                std::size_t& steps) const {
  bool sure = false;
  for (const element& one : set.elements()) {
    if (one.is_catch_all) continue;
    ++steps;
    const bytes& end = one.key_end ? *one.key_end : one.key;
    ternary all = ternary::yes;
    std::size_t at = 0;
    for (const std::uint32_t length : set.contents->set.fields) {
      const std::span low(one.key.data() + at, length), high(end.data() + at, length);
      const ternary part = key.within(low, high, at);
      if (part == ternary::no) all = ternary::no;
      if (part == ternary::maybe && all == ternary::yes) all = ternary::maybe;
      if (all == ternary::no) break;
      at += aligned(length);
    }
    if (all == ternary::no) continue;
    add(into, one, all);
    sure |= all == ternary::yes;
  }
  // Several may hold the key: which of them answers is not known, but one does.
  if (sure) into.found = ternary::yes;
}

void output_sets::search_exact(const prepared& set, const partial_key& key, set_answer& into,
                               std::size_t& steps) const {
  const auto least = key.lowest(), most = key.highest();
  auto at = set.elements().partition_point([&](const element& one) {
    return one.is_catch_all || partial_key::compare(least, one.key) > 0;
  });
  for (; at != set.elements().end() && partial_key::compare(most, at->key) >= 0; ++at) {
    ++steps;
    const ternary same = key.equals(at->key);
    if (same != ternary::no) add(into, *at, same);
  }
}

const output_sets::prepared* output_sets::find(const netlink::nft::object_key& name,
                                               std::size_t key_size) {
  const auto known = rules_.sets.find(name);
  if (known == rules_.sets.end() || known->second.set.key_length != key_size) return nullptr;
  const auto ready = prepared_.find(name);
  if (ready != prepared_.end()) return &ready->second;
  const auto& contents = known->second;
  // The kernel pads keys; one that is shorter here would be read beyond its end.
  if (!contents.elements.has_keys_of(key_size)) return nullptr;
  std::size_t total = 0;
  for (const std::uint32_t length : contents.set.fields) total += aligned(length);
  if (total > key_size) return nullptr;
  prepared& made = prepared_[name];
  made.contents = &contents;
  made.has_intervals =
      (contents.set.flags & netlink::nft::set_interval) != 0 && contents.set.fields.empty();
  if (!contents.elements.empty() && contents.elements.front().is_catch_all)
    made.catch_all = &contents.elements.front();
  return &made;
}

bool output_sets::may_lose(const prepared& set) noexcept {
  return (set.contents->set.flags & netlink::nft::set_timeout) != 0;
}

bool output_sets::may_gain(const prepared& set) noexcept {
  return set.contents->filled_by_packets || set.contents->set.not_understood ||
         (set.contents->set.flags & netlink::nft::set_eval) != 0;
}

std::optional<set_answer> output_sets::look_up(const netlink::nft::object_key& name,
                                               const partial_key& key, std::size_t& steps) {
  const prepared* const found = find(name, key.size);
  if (found == nullptr) return std::nullopt;
  const prepared& set = *found;
  set_answer answer;
  if (!set.contents->set.fields.empty())
    search_fields(set, key, answer, steps);
  else if (set.has_intervals)
    search_intervals(set, key, answer, steps);
  else
    search_exact(set, key, answer, steps);
  // An element that has gone leaves its keys to the catch-all.
  if (set.catch_all != nullptr && (answer.found != ternary::yes || may_lose(set))) {
    add(answer, *set.catch_all, ternary::maybe);
    answer.found = ternary::yes;  // One of the candidates, if only this.
  }
  if (may_lose(set) && answer.found == ternary::yes) answer.found = ternary::maybe;
  answer.contents_unknown = may_gain(set);
  if (answer.contents_unknown) answer.found = ternary::maybe;
  return answer;
}

}  // namespace cowire::detail

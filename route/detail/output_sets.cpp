// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/output_sets.hpp>

#include <algorithm>
#include <cstring>

namespace cowire::detail {

using netlink::nft::bytes;

namespace {

bool less(const bytes& a, const bytes& b) noexcept {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
}

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

output_sets::prepared output_sets::prepare(const netlink::nft::ruleset::set_contents& contents) {
  prepared out;
  out.contents = &contents;
  const bool intervals =
      (contents.set.flags & netlink::nft::set_interval) != 0 && contents.set.fields.empty();
  for (const element& one : contents.elements) {
    if (one.is_catch_all)
      out.catch_all = &one;
    else
      out.elements.push_back(&one);
  }
  // Where one interval ends another may begin: then the beginning counts, so it comes last.
  std::ranges::sort(out.elements, [](const element* a, const element* b) {
    return a->key != b->key ? less(a->key, b->key) : a->ends_interval && !b->ends_interval;
  });
  if (!intervals) return out;
  const bytes* next = nullptr;  // The nearest key above.
  const bytes* here = nullptr;
  for (auto one = out.elements.rbegin(); one != out.elements.rend(); ++one) {
    if (here == nullptr || (*one)->key != *here) {
      next = here;
      here = &(*one)->key;
    }
    if (!(*one)->ends_interval) out.intervals.push_back({*one, next});
  }
  std::ranges::reverse(out.intervals);
  out.elements.clear();
  return out;
}

void output_sets::search_intervals(const prepared& set, const partial_key& key, set_answer& into,
                                   std::size_t& steps) const {
  const auto least = key.lowest(), most = key.highest();
  // The first interval that does not end below the key.
  auto at = std::ranges::partition_point(set.intervals, [&](const interval& i) {
    return i.end != nullptr && partial_key::compare(least, *i.end) >= 0;
  });
  for (; at != set.intervals.end() && partial_key::compare(most, at->first->key) >= 0; ++at) {
    ++steps;
    const bool whole = partial_key::compare(least, at->first->key) >= 0 &&
                       (at->end == nullptr || partial_key::compare(most, *at->end) < 0);
    add(into, *at->first, whole ? ternary::yes : ternary::maybe);
  }
}

void output_sets::search_fields(const prepared& set, const partial_key& key, set_answer& into,
                                std::size_t& steps) const {
  bool sure = false;
  for (const element* one : set.elements) {
    ++steps;
    const bytes& end = one->key_end ? *one->key_end : one->key;
    ternary all = ternary::yes;
    std::size_t at = 0;
    for (const std::uint32_t length : set.contents->set.fields) {
      const std::span low(one->key.data() + at, length), high(end.data() + at, length);
      const ternary part = key.within(low, high, at);
      if (part == ternary::no) all = ternary::no;
      if (part == ternary::maybe && all == ternary::yes) all = ternary::maybe;
      if (all == ternary::no) break;
      at += aligned(length);
    }
    if (all == ternary::no) continue;
    add(into, *one, all);
    sure |= all == ternary::yes;
  }
  // Several may hold the key: which of them answers is not known, but one does.
  if (sure) into.found = ternary::yes;
}

void output_sets::search_exact(const prepared& set, const partial_key& key, set_answer& into,
                               std::size_t& steps) const {
  const auto least = key.lowest(), most = key.highest();
  auto at = std::ranges::partition_point(
      set.elements, [&](const element* one) { return partial_key::compare(least, one->key) > 0; });
  for (; at != set.elements.end() && partial_key::compare(most, (*at)->key) >= 0; ++at) {
    ++steps;
    const ternary same = key.equals((*at)->key);
    if (same != ternary::no) add(into, **at, same);
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
  for (const element& one : contents.elements)
    if (!one.is_catch_all &&
        (one.key.size() != key_size || (one.key_end && one.key_end->size() != key_size)))
      return nullptr;
  std::size_t total = 0;
  for (const std::uint32_t length : contents.set.fields) total += aligned(length);
  if (total > key_size) return nullptr;
  return &prepared_.emplace(name, prepare(contents)).first->second;
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
  else if ((set.contents->set.flags & netlink::nft::set_interval) != 0)
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

// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/route/detail/hasher.hpp>
#include <cowire/route/detail/situation.hpp>

#include <linux/rtnetlink.h>

#include <algorithm>

namespace cowire::detail {
namespace {

/// No decision tells longer prefixes apart, unless lengths are compared.
constexpr unsigned length_that_counts = 4;
constexpr std::size_t step_words = 3, part_words = 2;
/// Context and zone come first.
constexpr std::size_t head_words = 2;

/// All of a route but its prefix and what no decision looks at.
std::size_t decision_hash(const route_entries::list& entries) noexcept {
  hasher h;
  for (const route_entry& entry : entries) {
    const netlink::route& r = entry.route;
    h.add(std::uint64_t{r.tos} << 24 | std::uint64_t{r.scope} << 16 | std::uint64_t{r.type} << 8 |
          static_cast<std::uint64_t>(entry.gateway));
    add_ways(h, r);
    h.add(std::uint64_t{r.metrics.mtu} << 32 | r.metrics.hop_limit);
  }
  return h.result();
}

bool same_entry(const route_entry& a, const route_entry& b) noexcept {
  const netlink::route &x = a.route, &y = b.route;
  return x.next_hops == y.next_hops && x.priority == y.priority && x.tos == y.tos &&
         x.scope == y.scope && x.type == y.type && x.nexthop_id == y.nexthop_id &&
         x.preferred_source == y.preferred_source && x.metrics == y.metrics &&
         x.preference == y.preference && x.source == y.source && x.unknown == y.unknown &&
         a.gateway == b.gateway && a.mixed_siblings == b.mixed_siblings;
}

bool same_entries(const route_entries& a, const route_entries& b) noexcept {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same_entry);
}

}  // namespace

// ------------------------------------------------------------------------------------------------
// words

std::size_t word_interner::hash::operator()(
    const std::vector<std::uint32_t>& words) const noexcept {
  hasher h;
  for (const std::uint32_t word : words) h.add(word);
  return h.result();
}

std::uint32_t word_interner::intern(const std::vector<std::uint32_t>& words, bool& fresh) {
  const auto [found, is_new] = ids_.try_emplace(words, 0);
  fresh = is_new;
  if (!is_new) return found->second;
  if (free_.empty()) {
    found->second = end();
    items_.emplace_back();
  } else {
    found->second = free_.back();
    free_.pop_back();
  }
  items_[found->second] = {&found->first, 0};
  return found->second;
}

void word_interner::add_reference(std::uint32_t id) noexcept {
  referenced_ += items_[id].references++ == 0;
}

void word_interner::drop_reference(std::uint32_t id) noexcept {
  COWIRE_DEBUG_ASSERT(items_[id].references > 0);
  referenced_ -= --items_[id].references == 0;
}

void word_interner::clear() {
  ids_.clear();
  items_.clear();
  free_.clear();
  referenced_ = 0;
}

// ------------------------------------------------------------------------------------------------
// shapes and leaves

shape_id situation_store::shape_of(const route_entries& entries) {
  const auto [known, fresh] = shapes_by_list_.try_emplace(entries.identity());
  if (fresh) known->second = {entries, find_or_make_shape(entries)};
  return known->second.shape;
}

shape_id situation_store::find_or_make_shape(const route_entries& entries) {
  const std::size_t hash = decision_hash(entries.get());
  const auto [first, last] = shapes_by_hash_.equal_range(hash);
  for (auto at = first; at != last; ++at)
    if (same_entries(shapes_[at->second].entries, entries)) return at->second;
  shape_id id;
  if (free_shapes_.empty()) {
    id = static_cast<shape_id>(shapes_.size());
    shapes_.emplace_back();
  } else {
    id = free_shapes_.back();
    free_shapes_.pop_back();
  }
  shapes_[id].entries = entries;
  shapes_[id].effect = ask_(entries.get());
  shapes_[id].live = true;
  shapes_by_hash_.emplace(hash, id);
  return id;
}

std::uint32_t situation_store::number_of_table(std::uint32_t table) {
  const auto known = std::ranges::find(table_ids_, table);
  if (known != table_ids_.end()) return static_cast<std::uint32_t>(known - table_ids_.begin());
  table_ids_.push_back(table);
  return static_cast<std::uint32_t>(table_ids_.size()) - 1;
}

leaf_id situation_store::leaf_of(const ip_prefix* context, zone_id zone, std::vector<part> parts) {
  for (part& one : parts) one.table = number_of_table(one.table);
  std::ranges::sort(parts, {}, &part::table);
  std::vector<std::uint32_t> words{0, zone};
  if (context != nullptr) {
    const auto [found, fresh] = context_numbers_.try_emplace(*context, 0);
    if (fresh && free_contexts_.empty()) {
      found->second = static_cast<std::uint32_t>(contexts_.size());
      contexts_.push_back(*context);
    } else if (fresh) {
      found->second = free_contexts_.back();
      free_contexts_.pop_back();
      contexts_[found->second] = *context;
    }
    words[0] = found->second;
  }
  for (const part& one : parts) words.insert(words.end(), {one.table, one.shape});
  bool fresh = false;
  return leaves_.intern(words, fresh);
}

std::uint64_t situation_store::ending_tables(leaf_id leaf) const {
  const auto& words = leaves_.words(leaf);
  std::uint64_t bits = 0;
  for (std::size_t i = head_words; i < words.size(); i += part_words)
    if (shapes_[words[i + 1]].effect.ends) bits |= bit_of(words[i]);
  return bits;
}

std::uint64_t situation_store::differing_tables(leaf_id a, leaf_id b) const {
  const auto &left = leaves_.words(a), &right = leaves_.words(b);
  if (left[0] != right[0] || left[1] != right[1]) return ~std::uint64_t{0};
  std::uint64_t bits = 0;
  const auto compare = [&](const auto& from, const auto& with) {
    for (std::size_t i = head_words; i < from.size(); i += part_words) {
      bool same = false;
      for (std::size_t j = head_words; j < with.size(); j += part_words)
        same |= from[i] == with[j] && from[i + 1] == with[j + 1];
      if (same) continue;
      // A table without a bit of its own never ends a search as far as summaries say.
      bits |= bit_of(from[i]) != 0 ? bit_of(from[i]) : ~std::uint64_t{0};
    }
  };
  compare(left, right);
  compare(right, left);
  return bits;
}

bool situation_store::refresh_effects() {
  bool lost = false;
  for (shape& one : shapes_) {
    if (!one.live) continue;
    const search_effect now = ask_(one.entries.get());
    lost |= one.effect.ends && !now.ends;
    one.effect = now;
  }
  if (lost) forget_transitions();
  return lost;
}

bool situation_store::anything_hides() const {
  if (std::ranges::none_of(shapes_, [](const shape& one) { return one.live && one.effect.hides; }))
    return false;
  for (leaf_id leaf = 0; leaf < leaves_.end(); ++leaf) {
    if (!leaves_.is_referenced(leaf)) continue;
    const auto& words = leaves_.words(leaf);
    for (std::size_t i = head_words; i < words.size(); i += part_words)
      if (shapes_[words[i + 1]].effect.hides) return true;
  }
  return false;
}

bool situation_store::names_nexthops() const {
  return std::ranges::any_of(shapes_, [](const shape& one) {
    return std::ranges::any_of(
        one.entries, [](const route_entry& entry) { return entry.route.nexthop_id != 0; });
  });
}

bool situation_store::set_exact_lengths(bool exact) {
  if (exact == exact_lengths_) return false;
  exact_lengths_ = exact;
  forget_transitions();
  return true;
}

// ------------------------------------------------------------------------------------------------
// situations

situation_id situation_store::inside(situation_id outer, leaf_id own, unsigned length) {
  const std::uint64_t mixed =
      (std::uint64_t{outer} << 32 | own << 8 | length) * 0x9e3779b97f4a7c15u;
  transition& known = transitions_[mixed >> (64 - transition_bits)];
  if (known.inner == no_situation || known.outer != outer || known.own != own ||
      known.length != length)
    known = {outer, own, length, derive(outer, own, length)};
  return known.inner;
}

situation_id situation_store::derive(situation_id outer, leaf_id own, unsigned length) {
  static const std::vector<std::uint32_t> nothing{0, 0};
  const std::vector<std::uint32_t>& above =
      outer == no_situation ? nothing : situations_.words(outer);
  const std::vector<std::uint32_t>& here = leaves_.words(own);
  const std::uint32_t local = number_of_table(RT_TABLE_LOCAL);
  const auto is_local = [&](std::uint32_t table) { return table == local; };
  bool exact = exact_lengths_;
  // Whether another table has a longer match than the local one matters to IPv4.
  for (std::size_t i = head_words; i < above.size(); i += step_words) exact |= is_local(above[i]);
  for (std::size_t i = head_words; i < here.size(); i += part_words) exact |= is_local(here[i]);
  const std::uint32_t shown = exact ? length : std::min(length, length_that_counts);

  std::vector<std::uint32_t> words{here[0] != 0 ? here[0] : above[0],
                                   here[1] != 0 ? here[1] : above[1]};
  std::size_t from = head_words;
  const auto inherit = [&](std::uint32_t below_table) {
    for (; from < above.size() && above[from] < below_table; from += step_words)
      words.insert(words.end(), above.begin() + static_cast<std::ptrdiff_t>(from),
                   above.begin() + static_cast<std::ptrdiff_t>(from + step_words));
  };
  for (std::size_t i = head_words; i < here.size(); i += part_words) {
    const std::uint32_t table = here[i], held = here[i + 1];
    inherit(table);
    words.insert(words.end(), {table, held, shown});
    if (!shapes_[held].effect.ends) continue;
    while (from < above.size() && above[from] == table) from += step_words;
  }
  inherit(0xffffffff);
  bool fresh = false;
  return situations_.intern(words, fresh);
}

const ip_prefix& situation_store::context_of(situation_id situation) const {
  return contexts_[situations_.words(situation)[0]];
}

zone_id situation_store::zone_of(situation_id situation) const {
  return situations_.words(situation)[1];
}

cover situation_store::cover_of(shape_id id, unsigned length) const {
  shape& of = shapes_[id];
  auto& made = of.covers[length];
  if (!made)
    made = std::make_unique<route_table::value_type>(
        route_table::value_type{ip_prefix(ip_address::any(family_), length), of.entries});
  return made.get();
}

void situation_store::steps(situation_id situation,
                            const std::function<void(std::uint32_t table, cover)>& f) const {
  const auto& words = situations_.words(situation);
  for (std::size_t i = head_words; i < words.size(); i += step_words)
    f(table_ids_[words[i]], cover_of(words[i + 1], words[i + 2]));
}

void situation_store::purge(const std::function<void(situation_id)>& tell) {
  forget_transitions();
  situations_.purge(tell);
  leaves_.purge([](leaf_id) {});
  std::vector<bool> used(shapes_.size()), used_contexts(contexts_.size());
  const auto mark = [&](const word_interner& users, std::size_t stride) {
    for (std::uint32_t id = 0; id < users.end(); ++id) {
      if (!users.is_referenced(id)) continue;
      const auto& words = users.words(id);
      used_contexts[words[0]] = true;
      for (std::size_t i = head_words; i < words.size(); i += stride) used[words[i + 1]] = true;
    }
  };
  mark(leaves_, part_words);
  mark(situations_, step_words);
  std::erase_if(context_numbers_, [&](const auto& item) {
    if (used_contexts[item.second]) return false;
    free_contexts_.push_back(item.second);
    return true;
  });
  shapes_by_list_.clear();
  std::erase_if(shapes_by_hash_, [&](const auto& item) {
    if (used[item.second]) return false;
    shapes_[item.second] = {};
    free_shapes_.push_back(item.second);
    return true;
  });
}

void situation_store::clear() {
  shapes_.clear();
  free_shapes_.clear();
  shapes_by_hash_.clear();
  shapes_by_list_.clear();
  table_ids_.clear();
  contexts_.assign(1, ip_prefix::all(family_));
  free_contexts_.clear();
  context_numbers_.clear();
  leaves_.clear();
  situations_.clear();
  forget_transitions();
  bool fresh = false;
  static_cast<void>(leaves_.intern({0, 0}, fresh));      // The empty leaf.
  static_cast<void>(situations_.intern({0, 0}, fresh));  // Nothing anywhere.
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// What decisions depend on, with everything else left out.
///
/// A million prefixes know a few dozen answers. So a region's decision is not taken from the route
/// tables each time, but from its *situation*, which many regions share:
///
/// - a *shape* is what one table holds at one prefix, without the prefix itself;
/// - a *leaf* is the shapes of all tables at one prefix, its *context* where it has one, a prefix
///   that rules, address ranges or quarantines treat differently from what surrounds it, and its
///   *zone* where the output path does;
/// - a situation is the innermost context and zone and, for each table, the shapes that a search
///   for the region may meet, longest prefix first, up to the first one where every search ends.
///
/// Equal content has equal ids. Regions count references to leaves and situations; what nothing
/// refers to is kept until purge(), because it usually comes back.
///
/// One store serves one family. The compiler's thread only.
#pragma once

#include <cowire/route/detail/decision.hpp>
#include <cowire/route/detail/region_map.hpp>
#include <cowire/route/detail/zone_map.hpp>
#include <cowire/route/mirror.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

namespace cowire::detail {

using shape_id = std::uint32_t;

/// Contents as vectors of words, each with one id.
class word_interner {
 public:
  struct item {
    const std::vector<std::uint32_t>* words = nullptr;  ///< Null: the id is free.
    std::uint32_t references = 0;
  };
  /// The id of this content; `fresh` tells whether it was unknown.
  std::uint32_t intern(const std::vector<std::uint32_t>& words, bool& fresh);
  [[nodiscard]] const std::vector<std::uint32_t>& words(std::uint32_t id) const noexcept {
    return *items_[id].words;
  }
  void add_reference(std::uint32_t id) noexcept;
  void drop_reference(std::uint32_t id) noexcept;
  [[nodiscard]] bool is_referenced(std::uint32_t id) const noexcept {
    return items_[id].words != nullptr && items_[id].references > 0;
  }
  [[nodiscard]] std::uint32_t references(std::uint32_t id) const noexcept {
    return items_[id].references;
  }
  /// Ids are less than this.
  [[nodiscard]] std::uint32_t end() const noexcept {
    return static_cast<std::uint32_t>(items_.size());
  }
  [[nodiscard]] std::size_t idle() const noexcept { return ids_.size() - referenced_; }
  [[nodiscard]] std::size_t referenced() const noexcept { return referenced_; }
  /// Frees the ids without references, except 0, and tells each of them first.
  template <class F>
  void purge(F&& tell);
  void clear();

 private:
  struct hash {
    std::size_t operator()(const std::vector<std::uint32_t>& words) const noexcept;
  };
  std::unordered_map<std::vector<std::uint32_t>, std::uint32_t, hash> ids_;
  std::vector<item> items_;
  std::vector<std::uint32_t> free_;
  std::size_t referenced_ = 0;
};

class situation_store {
 public:
  explicit situation_store(ip_family family) : family_(family) { clear(); }

  /// What a search may do at the entries of a prefix; asked once for each shape and again by
  /// refresh_effects().
  using effect_of = std::function<search_effect(const route_entries::list&)>;
  void set_effect_of(effect_of ask) { ask_ = std::move(ask); }

  [[nodiscard]] shape_id shape_of(const route_entries& entries);
  /// One table's part of a leaf.
  struct part {
    std::uint32_t table = 0;
    shape_id shape = 0;
  };
  /// `context` null: none of its own; `zone` 0: likewise. Parts in any order, no table twice. The
  /// empty leaf is 0.
  [[nodiscard]] leaf_id leaf_of(const ip_prefix* context, zone_id zone, std::vector<part> parts);
  /// The situation of a region with this leaf directly inside a region in situation `outer`
  /// (no_situation: inside none).
  [[nodiscard]] situation_id inside(situation_id outer, leaf_id own, unsigned length);

  /// The tables (a bit each, none beyond 63) in which every search ends at this leaf.
  [[nodiscard]] std::uint64_t ending_tables(leaf_id leaf) const;
  /// The tables in which two leaves differ; all bits if their contexts differ.
  [[nodiscard]] std::uint64_t differing_tables(leaf_id a, leaf_id b) const;
  [[nodiscard]] bool has_context(leaf_id leaf) const { return leaves_.words(leaf)[0] != 0; }

  /// Asks again what searches do at each shape. True: situations may say too little, derive all of
  /// them anew.
  [[nodiscard]] bool refresh_effects();
  /// Whether a leaf in use hides shorter prefixes (decision.hpp): then no situation is complete.
  [[nodiscard]] bool anything_hides() const;
  /// Whether any known shape names a nexthop object.
  [[nodiscard]] bool names_nexthops() const;
  /// Whether the exact lengths of matched prefixes count. A change means: derive all anew.
  [[nodiscard]] bool set_exact_lengths(bool exact);

  [[nodiscard]] const ip_prefix& context_of(situation_id situation) const;
  /// 0 = none.
  [[nodiscard]] zone_id zone_of(situation_id situation) const;
  /// Calls f(table, cover) for each step of the search, longest prefix first in each table. The
  /// prefix of a cover has the right length (above 3 a smaller one, where nothing asks for it) and
  /// not the region's address.
  void steps(situation_id situation,
             const std::function<void(std::uint32_t table, cover)>& f) const;

  [[nodiscard]] word_interner& situations() noexcept { return situations_; }
  [[nodiscard]] const word_interner& situations() const noexcept { return situations_; }
  [[nodiscard]] word_interner& leaves() noexcept { return leaves_; }

  [[nodiscard]] bool wants_purge() const noexcept {
    return situations_.idle() > 256 + situations_.referenced() ||
           leaves_.idle() > 256 + leaves_.referenced() ||
           shapes_by_list_.size() > 1024 + 2 * shapes_.size();
  }
  /// Forgets what nothing refers to, after telling each such situation.
  void purge(const std::function<void(situation_id)>& tell);
  void clear();

 private:
  struct shape {
    route_entries entries;
    search_effect effect;
    /// As covers, by length.
    std::unordered_map<unsigned, std::unique_ptr<route_table::value_type>> covers;
    bool live = false;
  };
  /// A remembered result of inside().
  struct transition {
    situation_id outer = 0;
    leaf_id own = 0;
    std::uint32_t length = 0;
    situation_id inner = no_situation;
  };
  static constexpr std::size_t transition_bits = 12;

  [[nodiscard]] static std::uint64_t bit_of(std::uint32_t table) noexcept {
    return table < 64 ? std::uint64_t{1} << table : 0;
  }
  [[nodiscard]] shape_id find_or_make_shape(const route_entries& entries);
  [[nodiscard]] std::uint32_t number_of_table(std::uint32_t table);
  [[nodiscard]] cover cover_of(shape_id id, unsigned length) const;
  void forget_transitions() { transitions_.assign(std::size_t{1} << transition_bits, {}); }
  [[nodiscard]] situation_id derive(situation_id outer, leaf_id own, unsigned length);

  ip_family family_;
  effect_of ask_;
  bool exact_lengths_ = false;
  mutable std::vector<shape> shapes_;
  std::vector<shape_id> free_shapes_;
  std::unordered_multimap<std::size_t, shape_id> shapes_by_hash_;
  /// A list that has a shape; held, so that its identity stays its own.
  struct known_list {
    route_entries entries;
    shape_id shape = 0;
  };
  std::unordered_map<const void*, known_list> shapes_by_list_;
  std::vector<std::uint32_t> table_ids_;  ///< Table ids by number.
  std::vector<ip_prefix> contexts_;       ///< By number; 0 is none.
  std::vector<std::uint32_t> free_contexts_;
  std::unordered_map<ip_prefix, std::uint32_t> context_numbers_;
  /// Context and zone, then table and shape of each part, by table.
  word_interner leaves_;
  /// Context and zone, then table, shape and length of each step, by table and falling length.
  word_interner situations_;
  std::vector<transition> transitions_;  ///< By hash; a new one takes an old one's place.
};

template <class F>
void word_interner::purge(F&& tell) {
  for (std::uint32_t id = 1; id < items_.size(); ++id) {
    if (items_[id].words == nullptr || items_[id].references > 0) continue;
    tell(id);
    ids_.erase(ids_.find(*items_[id].words));
    items_[id].words = nullptr;
    free_.push_back(id);
  }
}

}  // namespace cowire::detail

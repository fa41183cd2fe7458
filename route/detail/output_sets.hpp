// SPDX-License-Identifier: Apache-2.0
/// Look-ups in nf_tables sets with keys of which some bits are known.
#pragma once

#include <cowire/netlink/nft_message.hpp>
#include <cowire/route/detail/address_set.hpp>
#include <cowire/route/detail/partial_bytes.hpp>

#include <cstddef>
#include <map>
#include <optional>
#include <vector>

namespace cowire::detail {

/// What a look-up may come to.
struct set_answer {
  ternary found = ternary::no;
  /// The elements that it may be, the catch-all included; one alone where `found` is `yes` and
  /// nothing else is possible.
  std::vector<const netlink::nft::element*> candidates;
  /// The set may hold more than what was read: elements with any value.
  bool contents_unknown = false;
  /// A candidate does more than counting, or what it does is not understood; or it counts and that
  /// matters.
  bool has_side_effects = false;
};

/// What a look-up may come to for each destination.
struct destination_answer {
  /// Elements that answer the same.
  struct group {
    const netlink::nft::element* one = nullptr;  ///< Any of them.
    address_set possible, sure;
  };
  std::vector<group> groups;
  address_set possible, sure;     ///< Of all groups.
  address_set has_side_effects;   ///< As in set_answer.
  bool contents_unknown = false;  ///< As in set_answer.
};

/// A ruleset's sets, made ready for look-ups when first used. The ruleset outlives it.
class output_sets {
 public:
  using element = netlink::nft::element;
  /// From the first key inside to the first that is no longer: none = to the last there is.
  struct interval {
    const element* first = nullptr;
    const netlink::nft::bytes* end = nullptr;
  };
  struct prepared {
    const netlink::nft::ruleset::set_contents* contents = nullptr;
    const element* catch_all = nullptr;
    std::vector<interval> intervals;       ///< Sorted. Of sets with intervals, without fields.
    std::vector<const element*> elements;  ///< Sorted by key. Of all others.
    /// By family: of a key that is the destination and nothing else; made when first asked for.
    mutable std::optional<destination_answer> by_destination[2];
  };

  /// `strict_counters`: an element that counts has side effects.
  explicit output_sets(const netlink::nft::ruleset& rules, bool strict_counters = false)
      : rules_(rules), strict_counters_(strict_counters) {}

  /// Empty where there is no such set, or its key is of another length than `key`. `steps` grows by
  /// what it costs.
  [[nodiscard]] std::optional<set_answer> look_up(const netlink::nft::object_key& name,
                                                  const partial_key& key, std::size_t& steps);
  /// Null: as where look_up() is empty.
  [[nodiscard]] const prepared* find(const netlink::nft::object_key& name, std::size_t key_size);
  /// Whether elements vanish without a word, and whether there may be others than those read.
  [[nodiscard]] static bool may_lose(const prepared& set) noexcept;
  [[nodiscard]] static bool may_gain(const prepared& set) noexcept;
  [[nodiscard]] bool strict_counters() const noexcept { return strict_counters_; }
  [[nodiscard]] bool has_side_effects(const element& one) const noexcept {
    return one.not_understood || (strict_counters_ && one.counts);
  }
  /// Bytes of a set's key; 0 = no such set.
  [[nodiscard]] std::size_t key_length(const netlink::nft::object_key& name) const;

 private:
  [[nodiscard]] static prepared prepare(const netlink::nft::ruleset::set_contents& contents);
  void add(set_answer& to, const element& one, ternary is) const;
  void search_intervals(const prepared& set, const partial_key& key, set_answer& into,
                        std::size_t& steps) const;
  void search_fields(const prepared& set, const partial_key& key, set_answer& into,
                     std::size_t& steps) const;
  void search_exact(const prepared& set, const partial_key& key, set_answer& into,
                    std::size_t& steps) const;

  const netlink::nft::ruleset& rules_;
  const bool strict_counters_;
  std::map<netlink::nft::object_key, prepared> prepared_;
};

}  // namespace cowire::detail

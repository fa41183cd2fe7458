// SPDX-License-Identifier: Apache-2.0
/// Look-ups in nf_tables sets with keys of which some bits are known.
#pragma once

#include <cowire/netlink/nft_message.hpp>
#include <cowire/route/detail/address_set.hpp>
#include <cowire/route/detail/partial_bytes.hpp>

#include <cstddef>
#include <iterator>
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
  using element_list = netlink::nft::element_list;
  struct prepared {
    const netlink::nft::ruleset::set_contents* contents = nullptr;
    const element* catch_all = nullptr;
    bool has_intervals = false;  ///< Whose elements are their bounds.
    /// By family: of a key that is the destination and nothing else; made when first asked for.
    mutable std::optional<destination_answer> by_destination[2];
    [[nodiscard]] const element_list& elements() const noexcept { return contents->elements; }
  };
  /// Calls `visit(first, end)` for the intervals that meet a range of keys: `end` is the first key
  /// that is no longer inside, null = none. `from_here(key)`: key <= the range's first; `to_here`:
  /// key <= its last.
  template <class FromHere, class ToHere, class Visit>
  static void for_intervals(const element_list& all, const FromHere& from_here,
                            const ToHere& to_here, const Visit& visit) {
    auto at =
        all.partition_point([&](const element& e) { return e.is_catch_all || from_here(e.key); });
    // At one key an end comes before a beginning.
    if (at != all.begin()) --at;
    for (; at != all.end(); ++at) {
      if (at->is_catch_all) continue;
      if (!from_here(at->key) && !to_here(at->key)) return;
      if (at->ends_interval) continue;
      auto next = std::next(at);
      while (next != all.end() && next->key == at->key) ++next;
      visit(*at, next == all.end() ? nullptr : &next->key);
    }
  }

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
  [[nodiscard]] const netlink::nft::ruleset& rules() const noexcept { return rules_; }
  /// A place for tracks_connections() of the rules' namespace, by family.
  std::optional<bool> tracked_families[2];
  [[nodiscard]] bool strict_counters() const noexcept { return strict_counters_; }
  [[nodiscard]] bool has_side_effects(const element& one) const noexcept {
    return one.not_understood || (strict_counters_ && one.counts);
  }
  /// Bytes of a set's key; 0 = no such set.
  [[nodiscard]] std::size_t key_length(const netlink::nft::object_key& name) const;

 private:
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

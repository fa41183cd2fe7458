// SPDX-License-Identifier: Apache-2.0
/// The tries of one address family: which regions there are, what each of them depends on, and the
/// path lists that follow from it, kept up to date with the smallest change of the tries.
///
/// The compiler's thread only.
#pragma once

#include <cowire/route/detail/class_set.hpp>
#include <cowire/route/detail/decision.hpp>
#include <cowire/route/detail/hop_planner.hpp>
#include <cowire/route/detail/hop_store.hpp>
#include <cowire/route/detail/region_map.hpp>
#include <cowire/route/detail/situation.hpp>
#include <cowire/route/mirror.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

namespace cowire::detail {

[[nodiscard]] inline ip_prefix host_prefix(const ip_address& address) {
  return {address, address.bits()};
}

class family_compiler {
 public:
  /// All outlive it. `performance_mode` false: every region is asked for itself, by walks.
  family_compiler(ip_family family, const mirror& state, bool performance_mode,
                  hop_planner& planner, class_set& classes, hop_store& hops);
  family_compiler(const family_compiler&) = delete;
  family_compiler& operator=(const family_compiler&) = delete;

  /// Forgets everything, for other class tables. Call build() next.
  void clear();
  /// All regions, as the mirror says.
  void build();
  /// Follows the mirror. `state_changed`: decisions may differ although no route did.
  void change(const mirror_changes& changes, bool state_changed);
  /// Whether neighbours look to decisions otherwise than when they were asked.
  [[nodiscard]] bool neighbours_look_different(const mirror_changes& changes) const;
  [[nodiscard]] bool names_nexthops() const { return situations_.names_nexthops(); }
  /// Forgets situations that no region has any more, once they are many.
  void purge_if_due() {
    if (situations_.wants_purge()) purge();
  }

  [[nodiscard]] std::size_t region_count() const noexcept { return regions_.size(); }
  [[nodiscard]] std::size_t situation_count() const noexcept {
    return situations_.situations().referenced();
  }
  [[nodiscard]] std::size_t bytes() const noexcept { return regions_.bytes(); }
  /// Decisions taken since the last call.
  [[nodiscard]] std::size_t take_evaluated() noexcept { return std::exchange(evaluated_, 0); }

 private:
  /// One path list for each class table.
  using path_list_ids = std::vector<path_list_id>;
  struct situation_path_lists {
    path_list_ids path_lists;  ///< Empty: not asked yet.
    /// A member sends straight to the destination: a host has a hop, hence path lists, of its own.
    bool on_link = false;
  };
  struct consulted_key {
    neighbour_key key;
    consulted_neighbour::aspect what;
    auto operator<=>(const consulted_key& other) const noexcept {
      return std::tie(key.index, key.destination, what) <=>
             std::tie(other.key.index, other.key.destination, other.what);
    }
  };
  /// A region around others, and what those inside it inherit.
  struct enclosing {
    ip_prefix prefix;
    situation_id situation;
  };
  /// The path lists that somebody shall have instead of `from`.
  struct path_list_change {
    path_list_id from = 0;
    path_list_key key;
    path_list_id* place = nullptr;
    std::size_t weight = 1;  ///< Regions that follow.
    situation_id situation = no_situation;
    const ip_prefix* individual = nullptr;
    std::size_t table = 0;
  };

  [[nodiscard]] std::vector<ip_prefix> list_contexts() const;
  [[nodiscard]] std::vector<std::uint32_t> list_reachable() const;
  [[nodiscard]] bool exact_lengths_count() const;
  [[nodiscard]] bool has_context(const ip_prefix& prefix) const;
  [[nodiscard]] leaf_id leaf_at(const ip_prefix& prefix);
  [[nodiscard]] zone_id zone_at(const ip_prefix& prefix) const;
  [[nodiscard]] bool matters_to_hosts(const ip_prefix& prefix) const;

  void follow_changes(const mirror_changes& changes, bool state_changed);
  void build_regions();
  void follow_zones();
  [[nodiscard]] std::vector<ip_prefix> take_zones();
  /// Then to build anew is less work than to follow each.
  [[nodiscard]] bool are_many(const std::vector<ip_prefix>& touched) const noexcept {
    return touched.size() > 1000 + regions_.size() / 4;
  }
  [[nodiscard]] std::vector<ip_prefix> prefixes_beside_tables() const;
  [[nodiscard]] std::vector<region> list_regions();
  void derive_all();
  void refresh_region(const ip_prefix& prefix, bool reconsider);
  void derive_inside(const enclosing& outer, std::uint64_t changed_tables);
  void derive_one(region& one, std::vector<enclosing>& around);
  void list_ancestors(const enclosing& outermost, const ip_prefix& of,
                      std::vector<enclosing>& around);
  void settle(region& one, situation_id next);
  void drop_region(region& one);
  void assign_path_lists(const ip_prefix& prefix, const path_list_ids* before,
                         const path_list_ids& now);

  [[nodiscard]] const situation_path_lists& path_lists_in(situation_id situation);
  [[nodiscard]] std::vector<path_list_key> judge(situation_id situation, bool& on_link);
  [[nodiscard]] std::vector<path_list_key> judge_alone(const ip_prefix& region,
                                                       situation_id situation);
  [[nodiscard]] path_list_ids intern(const std::vector<path_list_key>& keys);
  [[nodiscard]] path_list_key key_of(decider& decides, const flow_class& cls,
                                     const ip_prefix& region, const ip_prefix& out, bool& on_link);
  void forget_situation(situation_id situation);
  void purge();

  [[nodiscard]] std::vector<ip_prefix> list_touched(const mirror_changes& changes,
                                                    bool rules_changed);
  [[nodiscard]] bool reconsider_all();
  void carry_out(std::vector<path_list_change>& changes);

  const ip_family family_;
  const mirror& state_;
  const bool performance_mode_;
  hop_planner& planner_;
  class_set& classes_;
  hop_store& hops_;
  decider individual_decider_;  ///< Searches the mirror.
  decider situation_decider_;   ///< Searches what a situation says.
  std::vector<std::pair<const route_table*, std::vector<cover>>> situation_covers_;

  region_map regions_;
  situation_store situations_;
  std::vector<situation_path_lists> decided_;  ///< By situation.
  std::unordered_map<ip_prefix, path_list_ids> individual_path_lists_;
  /// Situations cannot tell everything, so every region is asked for itself.
  bool all_individual_ = false;
  std::vector<ip_prefix> contexts_;  ///< Sorted: regions that rules and ranges tell apart.
  std::vector<zone_prefix> zones_;   ///< As the output path told last.
  std::uint64_t zones_version_ = 0;
  std::vector<std::uint32_t> reachable_;     ///< Sorted: tables that a rule names.
  std::map<consulted_key, bool> consulted_;  ///< Neighbours that decisions saw, and how.
  std::size_t evaluated_ = 0;
};

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// Routes by family, table and prefix, in the kernel's order: how messages change them, what the
/// kernel changes without one, and mark and sweep.
///
/// A value, part of a mirror; the mirror's thread only.
#pragma once

#include <cowire/route/detail/device_store.hpp>
#include <cowire/route/mirror_changes.hpp>
#include <cowire/route/route_table.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace cowire::detail {

class route_store {
 public:
  /// How a message is taken in.
  struct taking {
    const device_store& devices;
    message_origin origin;
    mirror_changes& changes;
  };
  enum class loss : std::uint8_t { admin_down, addresses_gone, unregistered };

  [[nodiscard]] const std::map<std::uint32_t, route_table>& tables(
      ip_family family) const noexcept {
    return route_tables_[number_of(family)];
  }
  [[nodiscard]] const route_table* find_table(ip_family family, std::uint32_t id) const noexcept;
  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  /// Configured on any device, or a local route of table 255.
  [[nodiscard]] bool is_local_address(const ip_address& address,
                                      const device_store& devices) const noexcept;
  /// Per nexthop object: what the kernel would cache for each kind of route over it -> number of
  /// such routes.
  [[nodiscard]] const auto& nexthop_users() const noexcept { return nexthop_users_; }
  /// Whether some entry, perhaps one that no prefix has any more, has pred(entry).
  template <class Predicate>
  [[nodiscard]] bool any_entry(Predicate&& pred) const {
    return pool_.any_of(pred);
  }

  void apply(const netlink::route& message, const taking& how);
  /// As mirror::confirm().
  [[nodiscard]] bool confirm(const netlink::route& route, const device_store& devices);
  /// What equal routes become may differ from now on.
  void forget_made() noexcept { made_.clear(); }

  /// Does `change(list)` to the entries of every prefix of a family, once for each distinct list;
  /// false: nothing was changed.
  template <class Change>
  void edit(ip_family family, Change&& change, mirror_changes& changes);
  /// Removes the entries for which `gone(entry)` is true, in all tables of a family.
  template <class Predicate>
  void remove_if(ip_family family, Predicate&& gone, mirror_changes& changes) {
    const auto change = [&](route_entries::list& entries) {
      return std::erase_if(entries, gone) > 0;
    };
    edit(family, change, changes);
  }
  /// What goes, or dies, with a device.
  void purge_v4(std::uint32_t index, loss how, mirror_changes& changes);
  void purge_v6(std::uint32_t index, loss how, mirror_changes& changes);
  /// Dead next hops over a device live again.
  void revive(std::uint32_t index, ip_family family, mirror_changes& changes);

  /// Mark: what no message names from now on goes with sweep().
  void begin_refresh();
  void sweep(mirror_changes& changes);
  /// Frees up to `count` prefixes, and takes them off `count`; true while there are some left.
  [[nodiscard]] bool dismantle(std::size_t& count) noexcept;

 private:
  /// A message and what it came to where nothing else had that prefix.
  struct made_route {
    netlink::route told;
    message_origin origin = message_origin::dump;
    route_entries entries;
  };

  void add_route_v4(const netlink::route& route, const taking& how);
  void add_route_v6(const netlink::route& route, const taking& how);
  static void update_flags(netlink::route& route, const device_store& devices);
  [[nodiscard]] route_entries& entries_at(const netlink::route& route);
  [[nodiscard]] made_route* place_in_made(const netlink::route& route);
  void set_entries(route_entries& at, route_entries::list&& next);
  void replace_entry(route_entries& at, std::size_t index, route_entry&& next);
  void refresh_entry(route_entries& at, std::size_t index, const netlink::route& route,
                     const taking& how);
  void insert_entry(route_entries& at, route_entries::list::const_iterator place, bool replaces,
                    const netlink::route& route, const taking& how);
  void add_sibling(route_entries& at, std::size_t index, const netlink::route& route,
                   const taking& how);
  void mark_named(route_entries& at, const netlink::route& route, const route_entry* known);
  void count_named(const netlink::route& route, std::uint32_t generation);
  void remove_route(const netlink::route& route, mirror_changes& changes);
  template <class Predicate>
  bool remove_entries_if(const netlink::route& where, Predicate&& gone, mirror_changes& changes);
  bool remove_exactly(const netlink::route& route, mirror_changes& changes);
  void remove_rivals(const netlink::route& route, mirror_changes& changes);
  void remove_siblings(const netlink::route& route, mirror_changes& changes);
  void change_entries(route_table& table, route_table::value_type& item, route_entries::list&& next,
                      mirror_changes& changes);
  void count_nexthop_user(const netlink::route& route, int step, mirror_changes& changes);
  [[nodiscard]] static route_entry entry_as_told(const netlink::route& route,
                                                 const device_store& devices);
  [[nodiscard]] route_entry make_entry(const netlink::route& route, const taking& how) const;

  std::map<std::uint32_t, route_table> route_tables_[2];
  route_entries_pool pool_;
  /// By a hash of the next hop: routes of a dump that differ in their destination alone.
  std::vector<made_route> made_;
  std::size_t count_ = 0;
  /// Devices that may have dead next hops; of all others none needs to be looked for.
  std::set<std::uint32_t> dead_hops_[2];
  std::unordered_map<std::uint32_t, std::map<std::string, std::size_t>> nexthop_users_;
  std::uint32_t generation_ = 0;
  /// During a refresh: by table and prefix, those beside one that was named.
  std::map<std::pair<std::uint32_t, ip_prefix>, std::vector<route_entry>> unnamed_routes_;
  bool refreshing_ = false;
};

template <class Change>
void route_store::edit(ip_family family, Change&& change, mirror_changes& changes) {
  struct outcome {
    route_entries before, after;
    bool changed = false;
  };
  std::unordered_map<const void*, outcome> outcomes;  // Holds the lists: identities stay theirs.
  const auto outcome_of = [&](const route_entries& entries) -> const outcome& {
    const auto [found, fresh] = outcomes.try_emplace(entries.identity());
    outcome& one = found->second;
    if (!fresh) return one;
    route_entries::list next = entries.get();
    one.before = entries;
    one.changed = change(next);
    if (one.changed) set_entries(one.after, std::move(next));
    return one;
  };
  std::size_t count = count_;
  for (auto& [id, table] : route_tables_[number_of(family)]) {
    bool any_empty = false;
    table.items_.for_each([&](route_table::value_type& item) {
      const outcome& one = outcome_of(item.second);
      if (!one.changed) return;
      for (const route_entry& entry : one.after) count_nexthop_user(entry.route, 1, changes);
      for (const route_entry& entry : one.before) count_nexthop_user(entry.route, -1, changes);
      count = count + one.after.size() - one.before.size();
      item.second.list_ = one.after.list_;
      any_empty |= item.second.empty();
      // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): of the map that is being walked.
      changes.routes.push_back({id, item.first});
    });
    if (any_empty) table.items_.erase_if([](const auto& item) { return item.second.empty(); });
  }
  count_ = count;
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/family_compiler.hpp>
#include <cowire/route/detail/path_facts.hpp>
#include <cowire/route/detail/source_v6.hpp>
#include <cowire/route/rules.hpp>

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <set>
#include <tuple>
#include <utility>

namespace cowire::detail {
namespace {

/// `address` with bit `index` flipped.
ip_address flipped(const ip_address& address, unsigned index) {
  auto bytes = address.bytes();
  bytes[index / 8] ^= static_cast<std::uint8_t>(0x80 >> index % 8);
  return ip_address::from_bytes(address.family(), bytes.data());
}

/// The entries of groups say nothing that the groups' addresses do not, unless somebody made them.
bool makes_region(const netlink::neighbour& entry) noexcept {
  return !entry.destination.is_multicast() || !is_groups_own(entry);
}

/// Boundaries at which the choice of an IPv6 source may change: a prefix and, for each of its bits,
/// the prefix that differs there. Together they divide the whole address space, so that inside each
/// region every destination has the same label, scope and number of bits in common with our
/// addresses.
void collect_source_boundaries(const mirror& state, std::set<ip_prefix>& into) {
  std::set<ip_prefix> boundaries(source_policy_prefixes().begin(), source_policy_prefixes().end());
  for (const auto& [index, device] : state.devices())
    for (const netlink::address& own : device.v6) {
      boundaries.insert(ip_prefix(own.local, own.prefix_length));
      into.insert(host_prefix(own.local));  // An own address is the best source for itself.
    }
  for (const ip_prefix& boundary : boundaries) {
    into.insert(boundary);
    for (unsigned bit = 0; bit < boundary.length(); ++bit)
      into.insert(ip_prefix(flipped(boundary.address(), bit), bit + 1));
  }
}

}  // namespace

family_compiler::family_compiler(ip_family family, const mirror& state, bool performance_mode,
                                 hop_planner& planner, class_set& classes, hop_store& hops)
    : family_(family),
      state_(state),
      performance_mode_(performance_mode),
      planner_(planner),
      classes_(classes),
      hops_(hops),
      individual_decider_(state, performance_mode ? covers_by_search : covers_by_walk,
                          planner.mirrored_tables()),
      situation_decider_(
          state,
          [this](const route_table& table, const ip_prefix&, std::vector<cover>& out) {
            out.clear();
            for (const auto& [known, covers] : situation_covers_)
              if (known == &table) out = covers;
          },
          planner.mirrored_tables()),
      situations_(family) {
  situations_.set_effect_of([this](const route_entries::list& entries) {
    return individual_decider_.effect_of(family_, entries, classes_.any_is_bound_to_a_device());
  });
}

// ------------------------------------------------------------------------------------------------
// what there is

std::vector<ip_prefix> family_compiler::list_contexts() const {
  std::set<ip_prefix> all;
  if (family_ == ip_family::v4) {
    all.insert(ip_prefix(ip_address::v4(0xe0000000), 4));
    all.insert(ip_prefix(ip_address::v4(0xe0000000), 24));
    all.insert(host_prefix(ip_address::v4(0xffffffff)));
  } else {
    static constexpr std::array<std::uint8_t, 16> multicast{0xff},
        loopback{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    all.insert(ip_prefix(ip_address::v6(multicast), 8));
    for (const ip_prefix& scope : multicast_scopes_v6()) all.insert(scope);
    all.insert(host_prefix(ip_address::v6(loopback)));
    collect_source_boundaries(state_, all);
  }
  all.insert(host_prefix(ip_address::any(family_)));
  all.insert(ip_prefix::all(family_));
  for (const netlink::rule& rule : state_.rules(family_))
    if (rule.to) all.insert(*rule.to);
  for (const ip_prefix& prefix : planner_.quarantined())
    if (prefix.family() == family_) all.insert(prefix);
  if (const auto& prefixes = planner_.restrictions().tunnel_prefixes)
    for (const ip_prefix& prefix : *prefixes)
      if (prefix.family() == family_) all.insert(prefix);
  return {all.begin(), all.end()};
}

std::vector<std::uint32_t> family_compiler::list_reachable() const {
  std::set<std::uint32_t> all;
  for (const netlink::rule& rule : state_.rules(family_))
    if (rule.kind == FR_ACT_TO_TBL) all.insert(rule.table);
  for (const auto& [index, device] : state_.devices())
    if (const auto* vrf = std::get_if<netlink::vrf_info>(&device.link.info)) all.insert(vrf->table);
  if (state_.initial_rules_may_count(family_))
    for (const netlink::rule& rule : initial_rules(family_)) all.insert(rule.table);
  return {all.begin(), all.end()};
}

bool family_compiler::exact_lengths_count() const {
  return std::ranges::any_of(state_.rules(family_), [](const netlink::rule& rule) {
    return rule.suppress_prefix_length.has_value();
  });
}

bool family_compiler::has_context(const ip_prefix& prefix) const {
  return std::ranges::binary_search(contexts_, prefix);
}

zone_id family_compiler::zone_at(const ip_prefix& prefix) const {
  const auto found = std::ranges::lower_bound(zones_, prefix, {}, &zone_prefix::prefix);
  return found != zones_.end() && found->prefix == prefix ? found->zone : 0;
}

/// What context, output path and tables say of exactly this prefix.
leaf_id family_compiler::leaf_at(const ip_prefix& prefix) {
  std::vector<situation_store::part> parts;
  for (const std::uint32_t id : reachable_) {
    const route_table* table = state_.find_table(prefix.family(), id);
    if (table == nullptr) continue;
    if (const route_entries* const found = table->find(prefix))
      parts.push_back({id, situations_.shape_of(*found)});
  }
  return situations_.leaf_of(has_context(prefix) ? &prefix : nullptr, zone_at(prefix),
                             std::move(parts));
}

/// Whether a host is a region without any route: it has a neighbour entry or a path exception, or
/// it is a group with members here.
bool family_compiler::matters_to_hosts(const ip_prefix& prefix) const {
  if (!prefix.is_host()) return false;
  if (state_.find_path_exception(prefix.address()) != nullptr) return true;
  if (state_.has_member(prefix.address())) return true;
  return std::ranges::any_of(state_.devices(), [&](const auto& item) {
    const netlink::neighbour* known = state_.find_neighbour(item.first, prefix.address());
    return known != nullptr && makes_region(*known);
  });
}

// ------------------------------------------------------------------------------------------------
// building

/// In any order, some of them several times.
std::vector<ip_prefix> family_compiler::prefixes_beside_tables() const {
  std::vector<ip_prefix> all = contexts_;
  for (const zone_prefix& zone : zones_) all.push_back(zone.prefix);
  state_.for_each_neighbour([&](const netlink::neighbour& neighbour) {
    if (neighbour.destination.family() == family_ && makes_region(neighbour))
      all.push_back(host_prefix(neighbour.destination));
  });
  for (const ip_address& group : state_.groups(family_)) all.push_back(host_prefix(group));
  for (const ip_address& destination : state_.path_exception_destinations())
    if (destination.family() == family_) all.push_back(host_prefix(destination));
  return all;
}

/// All regions with their leaves, in order, as the mirror says.
std::vector<region> family_compiler::list_regions() {
  struct found {
    ip_prefix prefix;
    std::uint32_t table;
    shape_id shape;
  };
  constexpr std::uint32_t no_table = 0;  // RT_TABLE_UNSPEC
  std::vector<found> all;
  const auto by_prefix = [](const found& a, const found& b) { return a.prefix < b.prefix; };
  // Each source is in order already; so is what a merge makes of two.
  const auto merge_from = [&](std::size_t middle) {
    const auto at = all.begin() + static_cast<std::ptrdiff_t>(middle);
    if (at == all.begin() || at == all.end() || !by_prefix(*at, *(at - 1))) return;
    std::vector<found> both;
    both.reserve(all.size());
    std::merge(all.begin(), at, at, all.end(), std::back_inserter(both), by_prefix);
    all.swap(both);
  };
  for (const ip_prefix& prefix : prefixes_beside_tables()) all.push_back({prefix, no_table, 0});
  std::ranges::sort(all, by_prefix);
  std::vector<const route_table*> tables;
  for (const std::uint32_t id : reachable_) tables.push_back(state_.find_table(family_, id));
  std::vector<std::size_t> order(tables.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::erase_if(order, [&](std::size_t i) { return tables[i] == nullptr; });
  std::ranges::sort(order, {}, [&](std::size_t i) { return tables[i]->size(); });
  for (const std::size_t i : order) {
    const std::size_t middle = all.size();
    all.reserve(middle + tables[i]->size());
    for (const auto& [prefix, entries] : *tables[i])
      all.push_back({prefix, reachable_[i], situations_.shape_of(entries)});
    merge_from(middle);
  }

  std::vector<region> regions;
  regions.reserve(all.size());
  std::vector<situation_store::part> parts;
  struct known_leaf {
    std::uint32_t table = no_table;
    leaf_id leaf = 0;
  };
  std::vector<known_leaf> by_shape;  // Of prefixes that one table alone knows: nearly all.
  for (std::size_t i = 0, next = 0; i < all.size(); i = next) {
    parts.clear();
    for (next = i; next < all.size() && all[next].prefix == all[i].prefix; ++next)
      if (all[next].table != no_table) parts.push_back({all[next].table, all[next].shape});
    region made;
    made.prefix = all[i].prefix;
    const bool more = next - i > parts.size();  // Than tables know of it.
    const bool context = more && has_context(made.prefix);
    const bool plain = next - i == 1 && parts.size() == 1;
    if (plain && by_shape.size() <= parts.front().shape) by_shape.resize(parts.front().shape + 1);
    known_leaf* const known = plain ? &by_shape[parts.front().shape] : nullptr;
    if (known == nullptr) {
      made.leaf = situations_.leaf_of(context ? &made.prefix : nullptr,
                                      more ? zone_at(made.prefix) : 0, parts);
    } else {
      if (known->table != parts.front().table)
        *known = {parts.front().table, situations_.leaf_of(nullptr, 0, parts)};
      made.leaf = known->leaf;
    }
    regions.push_back(made);
  }
  return regions;
}

void family_compiler::clear() {
  for (const auto& [prefix, path_lists] : individual_path_lists_)
    for (const path_list_id id : path_lists) hops_.drop_reference(id);
  individual_path_lists_.clear();
  for (situation_id id = 0; id < decided_.size(); ++id) forget_situation(id);
  decided_.clear();
  regions_.clear();
  situations_.clear();
}

void family_compiler::build() {
  build_regions();
  follow_zones();
}

/// What was decided on the way may have been asked of the output path for the first time, and may
/// divide regions further. Questions are few, and a division brings no new ones but about hops.
void family_compiler::follow_zones() {
  while (zones_version_ != planner_.output().zones_version(family_)) {
    const std::vector<ip_prefix> touched = take_zones();
    if (are_many(touched)) {
      build_regions();
      continue;
    }
    for (const ip_prefix& prefix : touched) refresh_region(prefix, false);
  }
}

/// The prefixes that are of another zone now.
std::vector<ip_prefix> family_compiler::take_zones() {
  std::vector<ip_prefix> touched;
  if (zones_version_ == planner_.output().zones_version(family_)) return touched;
  std::vector<zone_prefix> next = planner_.output().zones(family_), differing;
  std::ranges::set_symmetric_difference(next, zones_, std::back_inserter(differing));
  for (const zone_prefix& one : differing)
    if (touched.empty() || touched.back() != one.prefix) touched.push_back(one.prefix);
  zones_ = std::move(next);
  zones_version_ = planner_.output().zones_version(family_);
  return touched;
}

void family_compiler::build_regions() {
  static_cast<void>(take_zones());
  contexts_ = list_contexts();
  reachable_ = list_reachable();
  static_cast<void>(situations_.set_exact_lengths(exact_lengths_count()));
  std::vector<region> next = list_regions();

  // What stays keeps its situation and path lists; derive_all() changes those that differ.
  auto at = next.begin();
  regions_.for_each([&](region& known) {
    at = std::lower_bound(at, next.end(), known.prefix,
                          [](const region& one, const ip_prefix& p) { return one.prefix < p; });
    if (at == next.end() || at->prefix != known.prefix) {
      drop_region(known);
      return;
    }
    at->situation = known.situation;
    at->individual = known.individual;
    situations_.leaves().drop_reference(known.leaf);
  });
  for (const region& one : next) situations_.leaves().add_reference(one.leaf);
  regions_.assign(next);
  derive_all();
}

// ------------------------------------------------------------------------------------------------
// situations of regions

/// Derives the situation of every region from those around it.
void family_compiler::derive_all() {
  all_individual_ = !performance_mode_ || situations_.anything_hides();
  regions_.forget_summaries();
  std::vector<enclosing> around;
  regions_.for_each([&](region& one) { derive_one(one, around); });
}

/// `around` holds the regions that contain the one before this in order; it gets this one.
void family_compiler::derive_one(region& one, std::vector<enclosing>& around) {
  while (!around.empty() && !around.back().prefix.contains(one.prefix)) around.pop_back();
  const situation_id outer = around.empty() ? no_situation : around.back().situation;
  settle(one, situations_.inside(outer, one.leaf, one.prefix.length()));
  if (!one.prefix.is_host()) around.push_back({one.prefix, one.situation});
}

/// The regions around `of` from `outermost` inwards, which is there or stands for those around it.
void family_compiler::list_ancestors(const enclosing& outermost, const ip_prefix& of,
                                     std::vector<enclosing>& around) {
  around.clear();
  for (region* at = regions_.parent(of);
       at != nullptr && at->prefix.length() > outermost.prefix.length();
       at = regions_.parent(at->prefix))
    around.push_back({at->prefix, at->situation});
  around.push_back(outermost);
  std::ranges::reverse(around);
}

/// Derives anew what lies inside `outer` after what these tables hold at `outer` has changed. Where
/// every search in them ends before it would come to `outer`, nothing can be different: chunks of
/// only such regions are passed over.
void family_compiler::derive_inside(const enclosing& outer, std::uint64_t changed_tables) {
  auto& chunks = regions_.chunks();
  std::vector<enclosing> around{outer};
  bool landed = false;
  auto at = regions_.upper_bound(outer.prefix);
  while (!regions_.is_end(at) && outer.prefix.contains(regions_.at(at).prefix)) {
    auto& chunk = chunks[at.chunk];
    if (at.index == 0 && !all_individual_ && outer.prefix.contains(chunk.items.back().prefix)) {
      if (!chunk.summary) {
        chunk.summary = ~std::uint64_t{0};
        for (const region& one : chunk.items) *chunk.summary &= situations_.ending_tables(one.leaf);
      }
      if ((*chunk.summary & changed_tables) == changed_tables) {
        at = {at.chunk + 1, 0};
        landed = true;
        continue;
      }
    }
    region& one = regions_.at(at);
    if (std::exchange(landed, false)) list_ancestors(outer, one.prefix, around);
    derive_one(one, around);
    at = regions_.next(at);
  }
}

/// Makes a region, or lets it go, or gives it its new leaf, as the mirror says, and follows the
/// consequences inside. `reconsider`: a host's own path lists may differ although nothing else
/// does.
void family_compiler::refresh_region(const ip_prefix& prefix, bool reconsider) {
  const leaf_id leaf = leaf_at(prefix);
  const bool wanted = leaf != 0 || matters_to_hosts(prefix);
  region* known = regions_.find(prefix);
  if (known == nullptr && !wanted) return;
  const leaf_id before = known != nullptr ? known->leaf : 0;
  if (known != nullptr && wanted && before == leaf && !reconsider) return;
  const std::uint64_t changed = situations_.differing_tables(before, leaf);
  const region* outer = regions_.parent(prefix);
  enclosing inside{prefix, outer != nullptr ? outer->situation : no_situation};
  if (!wanted) {
    drop_region(*known);
    regions_.erase(prefix);
  } else {
    region& one = known != nullptr ? *known : regions_.insert(prefix);
    situations_.leaves().add_reference(leaf);
    if (known != nullptr) situations_.leaves().drop_reference(before);
    if (one.leaf != leaf) {
      one.leaf = leaf;
      regions_.chunk_with(prefix).summary.reset();
    }
    settle(one, situations_.inside(inside.situation, leaf, prefix.length()));
    inside.situation = one.situation;
  }
  if (changed != 0 && !prefix.is_host()) derive_inside(inside, changed);
}

/// Gives a region its situation and the tries the path lists that follow from it.
void family_compiler::settle(region& one, situation_id next) {
  const bool fresh = one.situation == no_situation;
  const bool alone =
      all_individual_ ||
      (one.prefix.is_host() && (path_lists_in(next).on_link || situations_.has_context(one.leaf) ||
                                state_.has_member(one.prefix.address()) ||
                                state_.find_path_exception(one.prefix.address())));
  if (one.situation == next && !one.individual && !alone) return;
  const path_list_ids* before = nullptr;
  path_list_ids own_before;
  if (one.individual) {
    own_before = std::move(individual_path_lists_[one.prefix]);
    before = &own_before;
  } else if (!fresh) {
    before = &decided_[one.situation].path_lists;
  }
  situations_.situations().add_reference(next);
  if (alone) {
    path_list_ids own = intern(judge_alone(one.prefix, next));
    assign_path_lists(one.prefix, before, own);
    individual_path_lists_[one.prefix] = std::move(own);
  } else {
    const path_list_ids& now = path_lists_in(next).path_lists;
    if (!fresh && !one.individual) before = &decided_[one.situation].path_lists;
    assign_path_lists(one.prefix, before, now);
    if (one.individual) individual_path_lists_.erase(one.prefix);
  }
  for (const path_list_id id : own_before) hops_.drop_reference(id);
  if (!fresh) situations_.situations().drop_reference(one.situation);
  one.situation = next;
  one.individual = alone;
}

void family_compiler::assign_path_lists(const ip_prefix& prefix, const path_list_ids* before,
                                        const path_list_ids& now) {
  for (std::size_t i = 0; i < classes_.tables().size(); ++i)
    if (before == nullptr || (*before)[i] != now[i])
      classes_.tables()[i].tries->assign(prefix, now[i]);
}

void family_compiler::drop_region(region& one) {
  for (class_set::table& table : classes_.tables()) table.tries->erase(one.prefix);
  if (one.individual) {
    const auto own = individual_path_lists_.find(one.prefix);
    for (const path_list_id id : own->second) hops_.drop_reference(id);
    individual_path_lists_.erase(own);
  }
  situations_.situations().drop_reference(one.situation);
  situations_.leaves().drop_reference(one.leaf);
}

// ------------------------------------------------------------------------------------------------
// decisions

/// The shares that a class has in a region. `on_link` is set where they depend on the host.
path_list_key family_compiler::key_of(decider& decides, const flow_class& cls,
                                      const ip_prefix& region, const ip_prefix& out,
                                      bool& on_link) {
  const hop_plan plan = planner_.plan(decides, cls, region, out);
  if (plan.decided != nullptr) {
    ++evaluated_;
    for (const consulted_neighbour& seen : plan.decided->consulted)
      consulted_[{seen.key, seen.what}] = seen.seen;
  }
  path_list_key key;
  for (const planned_share& share : plan.shares) {
    on_link |= share.on_link;
    key.push_back({share.bound, share.divert ? divert_adjacency(family_, *share.divert)
                                             : hops_.intern(share.hop)});
  }
  return key;
}

std::vector<path_list_key> family_compiler::judge_alone(const ip_prefix& region,
                                                        situation_id situation) {
  // Longer prefixes inside a region may be of other zones.
  const ip_prefix out = region.is_host()
                            ? region
                            : planner_.output().example_of(family_, situations_.zone_of(situation));
  std::vector<path_list_key> keys;
  bool ignored = false;
  for (const class_set::table& table : classes_.tables())
    keys.push_back(key_of(individual_decider_, table.cls, region, out, ignored));
  return keys;
}

std::vector<path_list_key> family_compiler::judge(situation_id situation, bool& on_link) {
  const ip_prefix& context = situations_.context_of(situation);
  situation_covers_.clear();
  situations_.steps(situation, [&](std::uint32_t table, cover step) {
    const route_table* key = state_.find_table(context.family(), table);
    if (situation_covers_.empty() || situation_covers_.back().first != key)
      situation_covers_.push_back({key, {}});
    situation_covers_.back().second.push_back(step);
  });
  const ip_prefix out = planner_.output().example_of(family_, situations_.zone_of(situation));
  std::vector<path_list_key> keys;
  on_link = false;
  for (const class_set::table& table : classes_.tables())
    keys.push_back(key_of(situation_decider_, table.cls, context, out, on_link));
  return keys;
}

family_compiler::path_list_ids family_compiler::intern(const std::vector<path_list_key>& keys) {
  path_list_ids path_lists;
  for (const path_list_key& key : keys) {
    path_lists.push_back(hops_.intern(key));
    hops_.add_reference(path_lists.back());
  }
  return path_lists;
}

const family_compiler::situation_path_lists& family_compiler::path_lists_in(
    situation_id situation) {
  if (situation >= decided_.size()) decided_.resize(situation + 1);
  situation_path_lists& known = decided_[situation];
  if (known.path_lists.empty() && !classes_.tables().empty())
    known.path_lists = intern(judge(situation, known.on_link));
  return known;
}

void family_compiler::forget_situation(situation_id situation) {
  if (situation >= decided_.size()) return;
  for (const path_list_id id : decided_[situation].path_lists) hops_.drop_reference(id);
  decided_[situation] = {};
}

void family_compiler::purge() {
  situations_.purge([&](situation_id id) { forget_situation(id); });
}

// ------------------------------------------------------------------------------------------------
// when decisions themselves may differ

/// Decides every situation again, and every region that has path lists of its own. Whoever shared
/// one usually wants the same new one, so the path list is redefined and no trie changes, however
/// many prefixes there are. True: hosts may need path lists of their own now, derive all anew.
bool family_compiler::reconsider_all() {
  purge();
  consulted_.clear();
  std::vector<path_list_change> changes;
  bool hosts_differ = false;
  const auto add = [&](const std::vector<path_list_key>& keys, path_list_ids& path_lists,
                       path_list_change base) {
    for (std::size_t i = 0; i < path_lists.size(); ++i) {
      base.from = path_lists[i];
      base.key = keys[i];
      base.place = &path_lists[i];
      base.table = i;
      changes.push_back(base);
    }
  };
  for (situation_id id = 0; id < decided_.size(); ++id) {
    situation_path_lists& known = decided_[id];
    if (known.path_lists.empty()) continue;
    path_list_change base;
    base.situation = id;
    base.weight = situations_.situations().references(id);
    const bool was_on_link = known.on_link;
    const auto keys = judge(id, known.on_link);
    hosts_differ |= known.on_link != was_on_link;
    add(keys, known.path_lists, base);
  }
  for (auto& [prefix, path_lists] : individual_path_lists_) {
    path_list_change base;
    base.individual = &prefix;
    const auto keys = judge_alone(prefix, regions_.find(prefix)->situation);
    add(keys, path_lists, base);
  }
  carry_out(changes);
  return hosts_differ;
}

void family_compiler::carry_out(std::vector<path_list_change>& changes) {
  std::ranges::sort(changes, [](const path_list_change& a, const path_list_change& b) {
    return std::tie(a.from, a.key) < std::tie(b.from, b.key);
  });
  for (auto first = changes.begin(); first != changes.end();) {
    const auto last = std::find_if(
        first, changes.end(), [&](const path_list_change& one) { return one.from != first->from; });
    // The path list follows those with the most regions; the others get another one.
    auto heaviest = first;
    std::size_t most = 0, sum = 0;
    for (auto at = first; at != last; ++at) {
      sum = at != first && at->key == (at - 1)->key ? sum + at->weight : at->weight;
      if (sum <= most) continue;
      most = sum;
      heaviest = at;
    }
    hops_.redefine(first->from, heaviest->key);
    first = last;
  }
  // Only now that every path list means what it will mean, others can be looked for.
  std::vector<bool> moved(decided_.size());
  bool any_moved = false;
  for (const path_list_change& one : changes) {
    if (hops_.key_of(one.from) == one.key) continue;
    const path_list_id other = hops_.intern(one.key);
    hops_.add_reference(other);
    hops_.drop_reference(one.from);
    *one.place = other;
    if (one.individual != nullptr) {
      classes_.tables()[one.table].tries->assign(*one.individual, other);
    } else {
      moved[one.situation] = any_moved = true;
    }
  }
  if (!any_moved) return;
  regions_.for_each([&](const region& one) {
    if (!one.individual && moved[one.situation])
      assign_path_lists(one.prefix, nullptr, decided_[one.situation].path_lists);
  });
}

// ------------------------------------------------------------------------------------------------
// changes

bool family_compiler::neighbours_look_different(const mirror_changes& changes) const {
  using aspect = consulted_neighbour::aspect;
  return std::ranges::any_of(changes.neighbours, [&](const neighbour_key& key) {
    return std::ranges::any_of(
        std::array{aspect::failed, aspect::good, aspect::alive_default}, [&](aspect what) {
          const auto seen = consulted_.find({key, what});
          return seen != consulted_.end() && neighbour_aspect(state_, key, what) != seen->second;
        });
  });
}

/// The prefixes whose leaves may differ, sorted.
std::vector<ip_prefix> family_compiler::list_touched(const mirror_changes& changes,
                                                     bool rules_changed) {
  std::vector<ip_prefix> touched;
  std::vector<std::uint32_t> concerned = reachable_;
  if (rules_changed) {
    std::vector<ip_prefix> contexts = list_contexts();
    std::ranges::set_symmetric_difference(contexts, contexts_, std::back_inserter(touched));
    contexts_ = std::move(contexts);
    std::vector<std::uint32_t> reachable = list_reachable(), differing;
    std::ranges::set_symmetric_difference(reachable, reachable_, std::back_inserter(differing));
    reachable_ = std::move(reachable);
    concerned.insert(concerned.end(), differing.begin(), differing.end());
    for (const std::uint32_t id : differing)
      if (const route_table* table = state_.find_table(family_, id))
        for (const auto& [prefix, entries] : *table) touched.push_back(prefix);
  }
  const std::vector<ip_prefix> rezoned = take_zones();
  touched.insert(touched.end(), rezoned.begin(), rezoned.end());
  for (const auto& change : changes.routes)
    if (change.destination.family() == family_ &&
        std::ranges::find(concerned, change.table) != concerned.end())
      touched.push_back(change.destination);
  for (const neighbour_key& key : changes.neighbours)
    if (key.destination.family() == family_ && !key.destination.is_multicast())
      touched.push_back(host_prefix(key.destination));
  if (touched.size() > 1) {
    std::ranges::sort(touched);
    touched.erase(std::ranges::unique(touched).begin(), touched.end());
  }
  return touched;
}

void family_compiler::change(const mirror_changes& changes, bool state_changed) {
  follow_changes(changes, state_changed);
  // What was decided for a zone without destinations was decided for somebody else's.
  if (state_changed) purge();
}

void family_compiler::follow_changes(const mirror_changes& changes, bool state_changed) {
  bool derive = false;
  // Where a search ends depends on IPv6 neighbours, asked for or not.
  if (state_changed || (family_ == ip_family::v6 && !changes.neighbours.empty()))
    derive = situations_.refresh_effects();
  if (state_changed) {
    derive |= reconsider_all();
    derive |= situations_.set_exact_lengths(exact_lengths_count());
  }
  const bool noted = family_ == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6;
  const std::vector<ip_prefix> touched = list_touched(changes, noted);
  if (are_many(touched)) {
    build();
    return;
  }
  for (const ip_prefix& prefix : touched) refresh_region(prefix, false);
  for (const ip_address& destination : changes.path_mtus)
    if (destination.family() == family_) refresh_region(host_prefix(destination), true);
  for (const ip_address& group : changes.groups)
    if (group.family() == family_) refresh_region(host_prefix(group), true);
  for (const neighbour_key& key : changes.neighbours)  // Whether a group has one decides.
    if (key.destination.family() == family_ && key.destination.is_multicast())
      refresh_region(host_prefix(key.destination), true);
  // An IPv6 source tree depends on whether longer prefixes exist.
  derive |= family_ == ip_family::v6 && all_individual_ && !touched.empty();
  if (derive || (performance_mode_ && all_individual_ != situations_.anything_hides()))
    derive_all();
  follow_zones();
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/cover.hpp>
#include <cowire/route/detail/hasher.hpp>
#include <cowire/route/detail/route_store.hpp>

#include <linux/rtnetlink.h>

#include <algorithm>

namespace cowire::detail {
namespace {

/// A power of two; more next hops than a table usually has.
constexpr std::size_t made_max = 256;

bool same_hops(const netlink::route& a, const netlink::route& b) noexcept {
  return std::equal(a.next_hops.begin(), a.next_hops.end(), b.next_hops.begin(), b.next_hops.end(),
                    [](const netlink::next_hop& x, const netlink::next_hop& y) {
                      return x.index == y.index && x.gateway == y.gateway && x.weight == y.weight;
                    });
}

/// The same alias: everything that the kernel compares when it looks for one, flags aside. IPv4
/// aliases may differ in metrics alone; an IPv6 one takes on new metrics. With a nexthop object the
/// hops are the object's.
bool same_route(const netlink::route& a, const netlink::route& b) noexcept {
  return a.tos == b.tos && a.priority == b.priority && a.type == b.type && a.scope == b.scope &&
         a.protocol == b.protocol && a.source == b.source &&
         a.preferred_source == b.preferred_source && a.nexthop_id == b.nexthop_id &&
         (a.destination.family() == ip_family::v6 || a.metrics == b.metrics) &&
         (a.nexthop_id != 0 || same_hops(a, b));
}

/// Routes over a nexthop object are announced, as if they replaced others, when the object or a
/// member of it changes (nexthop_replace_notify in net/ipv4/nexthop.c). One that is there already
/// cannot be meant to replace: the kernel refuses that.
bool is_said_again(const netlink::route& route) noexcept { return route.nexthop_id != 0; }

/// May be a sibling of an IPv6 multipath route (rt6_qualify_for_ecmp).
bool multipath_capable(const netlink::route& route) noexcept {
  return route.nexthop_id == 0 && route.type == RTN_UNICAST && route.protocol != RTPROT_RA &&
         !route.next_hops.empty() && std::ranges::all_of(route.next_hops, [](const auto& hop) {
           return hop.gateway.has_value();
         });
}

bool same_attributes(const netlink::route& a, const netlink::route& b) noexcept {
  return a.preferred_source == b.preferred_source && a.metrics == b.metrics &&
         a.preference == b.preference;
}

/// What the kernel would cache on a nexthop object for this route (per CPU, shared by all routes
/// over it).
std::string cached_attributes(const netlink::route& route) {
  const auto& m = route.metrics;
  std::string key = std::to_string(number_of(route.destination.family()));
  for (const std::uint32_t v : {m.mtu, m.hop_limit, m.advmss, m.features, m.lock})
    key += '/' + std::to_string(v);
  if (route.destination.family() == ip_family::v4)
    key += "/scope " + std::to_string(route.scope);
  else if (route.preferred_source)
    key += "/source " + route.preferred_source->to_string();
  return key;
}

/// As entries keep it: for every prefix that has it.
netlink::route without_destination(const netlink::route& route) {
  netlink::route kept = route;
  kept.placement = {};
  kept.destination = ip_prefix::all(route.destination.family());
  return kept;
}

}  // namespace

const route_table* route_store::find_table(ip_family family, std::uint32_t id) const noexcept {
  const auto found = route_tables_[number_of(family)].find(id);
  return found == route_tables_[number_of(family)].end() ? nullptr : &found->second;
}

bool route_store::is_local_address(const ip_address& address,
                                   const device_store& devices) const noexcept {
  if (const route_table* local = find_table(address.family(), RT_TABLE_LOCAL)) {
    const auto* longest = longest_cover(*local, ip_prefix(address, address.bits()));
    if (longest != nullptr && longest->second.front().route.type == RTN_LOCAL) return true;
  }
  return devices.has_address(address);
}

void route_store::begin_refresh() {
  ++generation_;
  refreshing_ = true;
  unnamed_routes_.clear();
}

bool route_store::dismantle(std::size_t& count) noexcept {
  for (auto& tables : route_tables_)
    for (auto& [id, table] : tables) {
      const std::size_t here = std::min(count, table.size());
      table.items_.drop_back(here);  // From the end: nothing is moved.
      count -= here;
      if (!table.empty()) return true;
    }
  return false;
}

// ----------------------------------------------------------------------------------------------
// what follows from devices

void route_store::purge_v4(std::uint32_t index, loss how, mirror_changes& changes) {
  bool touched = false;
  const auto gone = [&](route_entry& entry) {
    netlink::route& route = entry.route;
    if (route.nexthop_id != 0 || route.next_hops.empty())
      return false;  // Nexthop objects go their own way.
    if (route.next_hops.size() == 1) {
      if (route.next_hops.front().index != index) return false;
      // Local routes (scope host) outlive an interface that is only down.
      return how != loss::admin_down || route.scope != RT_SCOPE_HOST;
    }
    bool all_dead = true;
    for (netlink::next_hop& hop : route.next_hops) {
      if (hop.index == index) {
        if (how == loss::unregistered) return true;
        touched |= (hop.flags & RTNH_F_DEAD) == 0;
        hop.flags |= RTNH_F_DEAD;
      }
      all_dead &= (hop.flags & RTNH_F_DEAD) != 0;
    }
    return all_dead;
  };
  const auto change = [&](route_entries::list& entries) {
    touched = false;
    return std::erase_if(entries, gone) > 0 || touched;
  };
  edit(ip_family::v4, change, changes);
}

void route_store::purge_v6(std::uint32_t index, loss how, mirror_changes& changes) {
  bool touched = false;
  const auto gone = [&](route_entry& entry) {
    netlink::route& route = entry.route;
    if (route.nexthop_id != 0 || route.next_hops.empty()) return false;
    if (route.next_hops.size() == 1) return route.next_hops.front().index == index;
    if (how == loss::unregistered) {
      touched |=
          std::erase_if(route.next_hops, [&](const auto& hop) { return hop.index == index; }) > 0;
    } else {
      for (netlink::next_hop& hop : route.next_hops) {
        if (hop.index != index) continue;
        touched |= (hop.flags & RTNH_F_DEAD) == 0;
        hop.flags |= RTNH_F_DEAD;
      }
    }
    return std::ranges::all_of(route.next_hops,
                               [](const auto& hop) { return (hop.flags & RTNH_F_DEAD) != 0; });
  };
  const auto change = [&](route_entries::list& entries) {
    touched = false;
    return std::erase_if(entries, gone) > 0 || touched;
  };
  edit(ip_family::v6, change, changes);
}

void route_store::revive(std::uint32_t index, ip_family family, mirror_changes& changes) {
  if (dead_hops_[number_of(family)].erase(index) == 0) return;
  const auto change = [&](route_entries::list& entries) {
    bool revived = false;
    for (route_entry& entry : entries)
      for (netlink::next_hop& hop : entry.route.next_hops)
        if (hop.index == index && (hop.flags & RTNH_F_DEAD) != 0) {
          hop.flags &= ~static_cast<std::uint32_t>(RTNH_F_DEAD);
          revived = true;
        }
    return revived;
  };
  edit(family, change, changes);
}

// ----------------------------------------------------------------------------------------------
// routes

/// Another kind of route over an object, or one kind less, may change what all of them mean.
void route_store::count_nexthop_user(const netlink::route& route, int step,
                                     mirror_changes& changes) {
  if (route.nexthop_id == 0) return;
  auto& users = nexthop_users_[route.nexthop_id];
  const auto [at, fresh] = users.try_emplace(cached_attributes(route), 0);
  at->second += static_cast<std::size_t>(step);
  if (fresh || at->second == 0) changes.nexthops.push_back(route.nexthop_id);
  if (at->second == 0) users.erase(at);
  if (users.empty()) nexthop_users_.erase(route.nexthop_id);
}

/// Gives the next hops the flags that follow from what is known now.
void route_store::update_flags(netlink::route& route, const device_store& devices) {
  for (netlink::next_hop& hop : route.next_hops) {
    // Follows from the link, which may change without a word about the route.
    hop.flags &= ~static_cast<std::uint32_t>(RTNH_F_LINKDOWN);
    // A dump shows DEAD also for "carrier lost and ignored", which follows from the link and may
    // end without a word.
    if (devices.shows_all_dead(route.destination.family(), hop.index))
      hop.flags &= ~static_cast<std::uint32_t>(RTNH_F_DEAD);
  }
}

route_entry route_store::entry_as_told(const netlink::route& route, const device_store& devices) {
  route_entry entry;
  entry.route = without_destination(route);
  update_flags(entry.route, devices);
  if (route.expires_s)
    entry.expires = std::chrono::steady_clock::now() + std::chrono::seconds(*route.expires_s);
  return entry;
}

route_entry route_store::make_entry(const netlink::route& route, const taking& how) const {
  route_entry entry = entry_as_told(route, how.devices);
  if (route.destination.family() == ip_family::v6 || route.nexthop_id != 0) return entry;
  for (const netlink::next_hop& hop : route.next_hops) {
    if (!hop.gateway || hop.gateway->is_v6() || (hop.flags & RTNH_F_ONLINK) != 0) continue;
    if (!is_local_address(*hop.gateway, how.devices)) continue;
    // What fib_check_nh_v4_gw() in net/ipv4/fib_semantics.c found is certain where it asked table
    // local first, and that for the device: not in the route's own table.
    const mirrored_device* const over = how.devices.find(hop.index);
    const auto owns = [&](const netlink::address& own) { return own.local == *hop.gateway; };
    const bool told = how.origin == message_origin::notification && route.next_hops.size() == 1 &&
                      route.table == RT_TABLE_MAIN && over != nullptr &&
                      std::ranges::any_of(over->v4, owns);
    entry.gateway = told ? route_entry::gateway_use::on_link : route_entry::gateway_use::unknown;
  }
  return entry;
}

/// The kernel said again what we have.
void route_store::refresh_entry(route_entries& at, std::size_t index, const netlink::route& route,
                                const taking& how) {
  const route_entry& entry = at.get()[index];
  mark_named(at, route, &entry);
  route_entry next = entry_as_told(route, how.devices);
  next.gateway = entry.gateway;
  next.mixed_siblings = entry.mixed_siblings && route.next_hops.size() > 1;
  if (!next.expires) next.expires = entry.expires;
  for (std::size_t i = 0; i < next.route.next_hops.size() && i < entry.route.next_hops.size(); ++i)
    if (how.devices.shows_all_dead(route.destination.family(), next.route.next_hops[i].index))
      next.route.next_hops[i].flags |= entry.route.next_hops[i].flags & RTNH_F_DEAD;
  const auto expires_s = std::exchange(next.route.expires_s, entry.route.expires_s);
  const bool same = next.route == entry.route && next.mixed_siblings == entry.mixed_siblings;
  if (same && next.expires == entry.expires) return;
  next.route.expires_s = expires_s;
  if (!same) {
    count_nexthop_user(next.route, 1, how.changes);
    count_nexthop_user(entry.route, -1, how.changes);
    how.changes.routes.push_back({route.table, route.destination});
  }
  replace_entry(at, index, std::move(next));
}

void route_store::apply(const netlink::route& message, const taking& how) {
  if ((message.flags & RTM_F_CLONED) != 0) return;  // A cached answer, not a route.
  if (message.action == netlink::action::remove) {
    remove_route(message, how.changes);
    return;
  }
  if (message.placement.exclusive) remove_rivals(message, how.changes);
  if (message.destination.family() == ip_family::v4)
    add_route_v4(message, how);
  else
    add_route_v6(message, how);
}

route_entries& route_store::entries_at(const netlink::route& route) {
  return route_tables_[number_of(route.destination.family())][route.table]
      .items_.insert(route.destination)
      .second;
}

/// The place of this message in `made_`; null: not every prefix gets the same of it.
route_store::made_route* route_store::place_in_made(const netlink::route& route) {
  if (route.nexthop_id != 0 || route.expires_s || route.next_hops.empty()) return nullptr;
  made_.resize(made_max);
  const netlink::next_hop& hop = route.next_hops.front();
  hasher h;
  h.add(std::uint64_t{hop.index} << 32 | route.table);
  h.add(hop.gateway);
  return &made_[h.result() % made_max];
}

void route_store::set_entries(route_entries& at, route_entries::list&& next) {
  for (const route_entry& entry : next)
    for (const netlink::next_hop& hop : entry.route.next_hops)
      if ((hop.flags & RTNH_F_DEAD) != 0)
        dead_hops_[number_of(entry.route.destination.family())].insert(hop.index);
  count_ += next.size() - at.size();
  at.list_ = pool_.intern(std::move(next)).list_;
}

void route_store::replace_entry(route_entries& at, std::size_t index, route_entry&& next) {
  route_entries::list entries = at.get();
  entries[index] = std::move(next);
  set_entries(at, std::move(entries));
}

/// A message has named `known`, an entry at the prefix of `route`, or (null) one that comes now.
/// The others there are swept unless they are named, too.
void route_store::mark_named(route_entries& at, const netlink::route& route,
                             const route_entry* known) {
  const std::uint32_t now = generation_;
  const bool first = std::exchange(at.generation_, now) != now;
  if (!refreshing_) return;
  if (first) count_named(route, now);
  if (!first && unnamed_routes_.empty()) return;
  const std::pair where(route.table, route.destination);
  if (first) {
    for (const route_entry& entry : at)
      if (&entry != known) unnamed_routes_[where].push_back(entry);
    return;
  }
  const auto found = unnamed_routes_.find(where);
  if (known != nullptr && found != unnamed_routes_.end())
    std::erase_if(found->second,
                  [&](const auto& entry) { return same_route(entry.route, known->route); });
}

/// The summary of a chunk: a generation, and how many of its prefixes were named since.
void route_store::count_named(const netlink::route& route, std::uint32_t generation) {
  auto& items = route_tables_[number_of(route.destination.family())][route.table].items_;
  auto& summary = items.chunk_with(route.destination).summary;
  if (!summary || *summary >> 32 != generation) summary = std::uint64_t{generation} << 32;
  ++*summary;
}

bool route_store::confirm(const netlink::route& route, const device_store& devices) {
  if (route.action != netlink::action::add || route.expires_s) return false;
  const auto table = route_tables_[number_of(route.destination.family())].find(route.table);
  if (table == route_tables_[number_of(route.destination.family())].end()) return false;
  auto* const item = table->second.items_.find(route.destination);
  if (item == nullptr) return false;
  constexpr std::uint32_t derived = RTNH_F_DEAD | RTNH_F_LINKDOWN;
  std::optional<netlink::route> current;  // Where something of it follows from a device.
  if (std::ranges::any_of(route.next_hops,
                          [](const auto& hop) { return (hop.flags & derived) != 0; }))
    update_flags(current.emplace(route), devices);
  const auto is_said = [&](const route_entry& entry) {
    return entry.route.same_but_destination(current ? *current : route);
  };
  const auto known = std::ranges::find_if(item->second, is_said);
  if (known == item->second.end()) return false;
  mark_named(item->second, route, &*known);
  return true;
}

void route_store::sweep(mirror_changes& changes) {
  const std::uint32_t now = generation_;
  refreshing_ = false;
  for (auto& tables : route_tables_)
    for (auto& [id, table] : tables) {
      bool any_gone = false;
      for (auto& chunk : table.items_.chunks()) {
        const std::uint64_t all_named = std::uint64_t{now} << 32 | chunk.items.size();
        if (std::exchange(chunk.summary, std::nullopt) == all_named) continue;
        for (route_table::value_type& item : chunk.items) {
          if (item.second.generation_ == now) continue;
          any_gone = true;
          for (const route_entry& entry : item.second) count_nexthop_user(entry.route, -1, changes);
          set_entries(item.second, {});
          changes.routes.push_back({id, item.first});
        }
      }
      if (any_gone) table.items_.erase_if([](const auto& item) { return item.second.empty(); });
    }
  for (const auto& [where, entries] : std::exchange(unnamed_routes_, {}))
    for (const route_entry& entry : entries) {
      const route_table* const table = find_table(where.second.family(), where.first);
      const route_entries* const at = table == nullptr ? nullptr : table->find(where.second);
      if (at == nullptr) break;  // Notifications have removed all of it meanwhile.
      if (!may_be_left_out(entry, at->get())) remove_exactly(entry.route_to(where.second), changes);
    }
}

void route_store::add_route_v4(const netlink::route& route, const taking& how) {
  route_entries& at = entries_at(route);
  const route_entries::list& entries = at.get();
  const auto before = [](const route_entry& entry, const netlink::route& other) {
    return entry.route.tos != other.tos ? entry.route.tos > other.tos
                                        : entry.route.priority < other.priority;
  };
  const auto first = std::lower_bound(entries.begin(), entries.end(), route, before);
  auto last = first;
  while (last != entries.end() && last->route.tos == route.tos &&
         last->route.priority == route.priority)
    ++last;

  const auto known =
      std::find_if(first, last, [&](const auto& entry) { return same_route(entry.route, route); });
  if (known != last && (known == first || !route.placement.replace || is_said_again(route))) {
    refresh_entry(at, static_cast<std::size_t>(known - entries.begin()), route, how);
    return;
  }
  if (known != last) {
    // The kernel replaces by what is not there yet: a dump has told of it before its announcement.
    static_cast<void>(remove_exactly(route, how.changes));
    add_route_v4(route, how);
    return;
  }
  const bool replaces = route.placement.replace && first != last;
  const bool prepends =
      route.placement.create && !route.placement.exclusive && !route.placement.append;
  insert_entry(at, replaces || prepends ? first : last, replaces, route, how);
}

/// In front of `place`, or instead of it.
void route_store::insert_entry(route_entries& at, route_entries::list::const_iterator place,
                               bool replaces, const netlink::route& route, const taking& how) {
  mark_named(at, route, replaces ? &*place : nullptr);
  how.changes.routes.push_back({route.table, route.destination});
  const bool alone = at.size() == (replaces ? 1 : 0);
  made_route* const known = alone ? place_in_made(route) : nullptr;
  if (known != nullptr && known->origin == how.origin &&
      known->told.destination.family() == route.destination.family() &&
      known->told.same_but_destination(route)) {
    if (replaces) count_nexthop_user(place->route, -1, how.changes);
    count_ += replaces ? 0 : 1;
    at.list_ = known->entries.list_;
    return;
  }
  count_nexthop_user(route, 1, how.changes);
  if (replaces) count_nexthop_user(place->route, -1, how.changes);
  const route_entries::list& entries = at.get();
  route_entries::list next;
  next.reserve(entries.size() + 1);
  next.insert(next.end(), entries.begin(), place);
  next.push_back(make_entry(route, how));
  next.insert(next.end(), place + (replaces ? 1 : 0), entries.end());
  set_entries(at, std::move(next));
  if (known != nullptr) *known = {route, how.origin, at};
}

void route_store::add_route_v6(const netlink::route& route, const taking& how) {
  if (route.expires_s == 0u) return;  // Expired and not collected yet: no longer used.
  route_entries& at = entries_at(route);
  const route_entries::list& entries = at.get();
  // The kernel keeps a list for each source prefix; that theirs come one after the other is ours.
  const auto place_of = [](const netlink::route& r) { return std::pair(r.source, r.priority); };
  const auto [first, last] =
      std::ranges::equal_range(entries, place_of(route), {},
                               [&](const route_entry& entry) { return place_of(entry.route); });
  const auto known =
      std::find_if(first, last, [&](const auto& entry) { return same_route(entry.route, route); });
  const bool capable = multipath_capable(route);
  const auto sibling = std::find_if(first, last, [&](const route_entry& entry) {
    return multipath_capable(entry.route) == capable;
  });
  const auto victim = sibling != last ? sibling : first;
  if (known != last && (known == victim || !route.placement.replace || is_said_again(route))) {
    refresh_entry(at, static_cast<std::size_t>(known - entries.begin()), route, how);
    return;
  }
  if (known != last) {  // As in add_route_v4().
    static_cast<void>(remove_exactly(route, how.changes));
    add_route_v6(route, how);
    return;
  }
  if (capable && sibling != last && !route.placement.replace) {
    add_sibling(at, static_cast<std::size_t>(sibling - entries.begin()), route, how);
    how.changes.routes.push_back({route.table, route.destination});
    return;
  }
  const bool replaces = route.placement.replace && first != last;
  insert_entry(at, replaces ? victim : last, replaces, route, how);
}

/// The set of siblings has grown (or, in a re-dump, is seen anew). A notification may list the
/// newcomer first; the kernel's own list has it last.
void route_store::add_sibling(route_entries& at, std::size_t index, const netlink::route& route,
                              const taking& how) {
  const route_entry& known = at.get()[index];
  mark_named(at, route, &known);
  route_entry grown = known;
  auto& hops = grown.route.next_hops;
  if (!same_attributes(known.route, route)) grown.mixed_siblings = true;
  const auto find_in = [](auto& list, const netlink::next_hop& hop) {
    return std::ranges::find_if(list, [&](const netlink::next_hop& other) {
      return other.index == hop.index && other.gateway == hop.gateway;
    });
  };
  netlink::route current = route;
  update_flags(current, how.devices);
  // A weight is told of several only.
  for (netlink::next_hop& hop : current.next_hops)
    if (const auto same = find_in(hops, hop); current.next_hops.size() == 1 && same != hops.end())
      hop.weight = same->weight;
  if (how.origin == message_origin::dump) {
    grown = entry_as_told(current, how.devices);  // What it shows are the first one's attributes.
    grown.mixed_siblings = current.next_hops.size() > 1 &&
                           (known.mixed_siblings || !same_attributes(known.route, route));
  } else {
    const std::size_t before = hops.size();
    const bool newcomer_first = find_in(hops, route.next_hops.front()) == hops.end();
    for (const netlink::next_hop& hop : current.next_hops) {
      const auto same = find_in(hops, hop);
      if (same == hops.end())
        hops.push_back(hop);
      else
        same->weight = hop.weight;
    }
    // Only a single newcomer stands first and shows its own attributes; several hide theirs.
    const std::size_t fresh = hops.size() - before;
    if (fresh > 1 || (fresh == 1 && !newcomer_first)) grown.mixed_siblings = true;
  }
  replace_entry(at, index, std::move(grown));
}

/// Removes the entries at the prefix of `where` for which `gone(entry)` is true, if there are any.
template <class Predicate>
bool route_store::remove_entries_if(const netlink::route& where, Predicate&& gone,
                                    mirror_changes& changes) {
  auto& tables = route_tables_[number_of(where.destination.family())];
  const auto table = tables.find(where.table);
  auto* const item = table != tables.end() ? table->second.items_.find(where.destination) : nullptr;
  if (item == nullptr || std::ranges::none_of(item->second, gone)) return false;
  route_entries::list next;
  for (const route_entry& entry : item->second) {
    if (gone(entry))
      count_nexthop_user(entry.route, -1, changes);
    else
      next.push_back(entry);
  }
  change_entries(table->second, *item, std::move(next), changes);
  return true;
}

/// Whether there was an entry that is the same alias.
bool route_store::remove_exactly(const netlink::route& route, mirror_changes& changes) {
  const auto same = [&](const route_entry& entry) { return same_route(entry.route, route); };
  return remove_entries_if(route, same, changes);
}

/// The kernel had no other entry of this rank when it announced this one: those that are known are
/// of a dump that was ahead of the announcement, and are announced later.
void route_store::remove_rivals(const netlink::route& route, mirror_changes& changes) {
  const auto rivals = [&](const route_entry& entry) {
    return entry.route.tos == route.tos && entry.route.priority == route.priority &&
           entry.route.source == route.source && !same_route(entry.route, route);
  };
  static_cast<void>(remove_entries_if(route, rivals, changes));
}

/// A notification of IPv6 siblings names those that are gone.
void route_store::remove_siblings(const netlink::route& route, mirror_changes& changes) {
  route_table& table = route_tables_[number_of(ip_family::v6)][route.table];
  auto* const item = table.items_.find(route.destination);
  if (item == nullptr) return;
  route_entries::list next = item->second.get();
  std::size_t removed = 0;
  for (route_entry& entry : next) {
    if (entry.route.nexthop_id != 0) continue;
    if (removed > 0 || entry.route.priority != route.priority || entry.route.source != route.source)
      continue;
    removed = std::erase_if(entry.route.next_hops, [&](const netlink::next_hop& hop) {
      return std::ranges::any_of(route.next_hops, [&](const auto& other) {
        return other.index == hop.index && other.gateway == hop.gateway;
      });
    });
    // What was known of it may have been the attributes of one that is gone.
    changes.refresh_advised |= removed > 0 && entry.mixed_siblings;
  }
  if (removed == 0) return;
  std::erase_if(next, [](const auto& entry) {
    return entry.route.next_hops.empty() && entry.route.nexthop_id == 0 &&
           !is_reject(entry.route.type);
  });
  change_entries(table, *item, std::move(next), changes);
}

void route_store::change_entries(route_table& table, route_table::value_type& item,
                                 route_entries::list&& next, mirror_changes& changes) {
  changes.routes.push_back({item.second.front().route.table, item.first});
  set_entries(item.second, std::move(next));
  if (item.second.empty()) table.items_.erase(ip_prefix(item.first));
}

void route_store::remove_route(const netlink::route& route, mirror_changes& changes) {
  if (!route_tables_[number_of(route.destination.family())].contains(route.table)) return;
  if (remove_exactly(route, changes)) return;
  if (route.destination.family() == ip_family::v6 && route.nexthop_id == 0)
    remove_siblings(route, changes);
}

}  // namespace cowire::detail

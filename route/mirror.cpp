// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/route/detail/cover.hpp>
#include <cowire/route/detail/hasher.hpp>
#include <cowire/route/kernel_quirks.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/rules.hpp>

#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/netconf.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <utility>

namespace cowire {
namespace {

constexpr std::size_t slot(ip_family family) noexcept { return static_cast<std::size_t>(family); }
constexpr std::size_t slot(object_kind kind) noexcept { return static_cast<std::size_t>(kind); }

/// A power of two; more next hops than a table usually has.
constexpr std::size_t described_max = 256;

constexpr std::uint32_t lower_up = 0x10000;  // IFF_LOWER_UP, missing in linux/if.h beside net/if.h.

bool is_reject(std::uint8_t type) noexcept {
  return type == RTN_BLACKHOLE || type == RTN_UNREACHABLE || type == RTN_PROHIBIT ||
         type == RTN_THROW;
}

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
  std::string key = std::to_string(slot(route.destination.family()));
  for (const std::uint32_t v : {m.mtu, m.hop_limit, m.advmss, m.features, m.lock})
    key += '/' + std::to_string(v);
  if (route.destination.family() == ip_family::v4)
    key += "/scope " + std::to_string(route.scope);
  else if (route.preferred_source)
    key += "/source " + route.preferred_source->to_string();
  return key;
}

/// Whether an equal route might be described otherwise afterwards.
bool may_change_descriptions(const netlink::message& message) noexcept {
  if (const auto* route = std::get_if<netlink::route>(&message))
    return route->type == RTN_LOCAL || route->table == RT_TABLE_LOCAL;
  return !std::holds_alternative<netlink::neighbour>(message);
}

/// As entries keep it: for every prefix that has it.
netlink::route described(const netlink::route& route) {
  netlink::route kept = route;
  kept.placement = {};
  kept.destination = ip_prefix::all(route.destination.family());
  return kept;
}

/// netif_oper_up(): an IPv6 route over a device that came up stays dead until then.
bool is_operational(const netlink::link& link) noexcept { return (link.flags & IFF_RUNNING) != 0; }

/// RFC 4007 order of scopes is hidden in RT_SCOPE_*: a larger number is a narrower scope.
bool goes_before_v6(const netlink::address& fresh, const netlink::address& listed) noexcept {
  return fresh.scope <= listed.scope;
}

template <class Map>
std::vector<typename Map::key_type> keys_of_generation_other_than(const Map& map,
                                                                  std::uint32_t generation) {
  std::vector<typename Map::key_type> keys;
  for (const auto& [key, value] : map)
    if (value.generation != generation) keys.push_back(key);
  return keys;
}

}  // namespace

bool is_in_detection(const netlink::address& address) noexcept {
  return address.local.is_v6() && (address.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) != 0;
}

void mirror_changes::merge(mirror_changes&& other) {
  const auto append = [](auto& to, auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  append(routes, other.routes);
  append(links, other.links);
  append(neighbours, other.neighbours);
  append(path_mtus, other.path_mtus);
  append(nexthops, other.nexthops);
  decisions_v4 |= other.decisions_v4;
  decisions_v6 |= other.decisions_v6;
  refresh_advised |= other.refresh_advised;
  buckets_advised |= other.buckets_advised;
  addresses_advised |= other.addresses_advised;
  netconf_advised |= other.netconf_advised;
  other = {};
}

std::vector<netlink::dump_scope> mirror_changes::advised() const {
  std::vector<netlink::dump_scope> scopes;
  if (addresses_advised) scopes.push_back({object_kind::address, {}});
  if (netconf_advised) scopes.push_back({object_kind::netconf, {ip_family::v4, 0, 0}});
  if (refresh_advised) scopes.push_back({object_kind::nexthop, {}});
  if (buckets_advised) scopes.push_back({object_kind::nexthop_bucket, {}});
  if (refresh_advised) scopes.push_back({object_kind::route, {}});
  return scopes;
}

// ----------------------------------------------------------------------------------------------
// look-ups

const mirror::device* mirror::find_device(std::uint32_t index) const noexcept {
  const auto found = devices_.find(index);
  return found == devices_.end() ? nullptr : &found->second;
}

const mirror::device* mirror::find_device(std::string_view name) const noexcept {
  for (const auto& [index, known_device] : devices_)
    if (known_device.link.name == name) return &known_device;
  return nullptr;
}

const route_table* mirror::find_table(ip_family family, std::uint32_t id) const noexcept {
  const auto found = tables_[slot(family)].find(id);
  return found == tables_[slot(family)].end() ? nullptr : &found->second;
}

const netlink::nexthop_object* mirror::find_nexthop(std::uint32_t id) const noexcept {
  const auto found = nexthops_.find(id);
  return found == nexthops_.end() ? nullptr : &found->second.object;
}

std::span<const std::uint32_t> mirror::buckets_of(std::uint32_t group) const noexcept {
  const auto found = nexthops_.find(group);
  if (found == nexthops_.end()) return {};
  return found->second.buckets;
}

const netlink::neighbour* mirror::find_neighbour(std::uint32_t index,
                                                 const ip_address& destination) const noexcept {
  const auto found = neighbours_.find({index, destination});
  return found == neighbours_.end() ? nullptr : &found->second.neighbour;
}

bool mirror::forwarding(ip_family family) const noexcept {
  const auto all = netconf_[slot(family)].find(NETCONFA_IFINDEX_ALL);
  return all != netconf_[slot(family)].end() && all->second.forwarding.value_or(false);
}

bool mirror::ignores_linkdown(ip_family family, std::uint32_t index) const noexcept {
  const auto& settings = netconf_[slot(family)];
  const auto ignores = [&](std::int32_t key) {
    const auto found = settings.find(key);
    return found != settings.end() && found->second.ignore_linkdown.value_or(false);
  };
  // IPv4 looks at both; IPv6 copies "all" to every device when it is written.
  return ignores(static_cast<std::int32_t>(index)) ||
         (family == ip_family::v4 && ignores(NETCONFA_IFINDEX_ALL));
}

bool mirror::shows_all_dead(ip_family family, std::uint32_t index) const noexcept {
  const device* on = find_device(index);
  return on != nullptr && on->up() && !detail::has_carrier(on->link) &&
         ignores_linkdown(family, index);
}

std::uint32_t mirror::path_mtu(const ip_address& destination) const noexcept {
  const path_exception* const known = find_path_exception(destination);
  return known == nullptr ? 0 : known->mtu;
}

const path_exception* mirror::find_path_exception(const ip_address& destination) const noexcept {
  const auto found = path_exceptions_.find(destination);
  return found == path_exceptions_.end() ? nullptr : &found->second;
}

std::vector<ip_address> mirror::path_exception_destinations() const {
  std::vector<ip_address> all;
  for (const auto& [destination, known] : path_exceptions_) all.push_back(destination);
  return all;
}

bool mirror::is_local_address(const ip_address& address) const noexcept {
  if (const route_table* local = find_table(address.family(), RT_TABLE_LOCAL)) {
    const auto* longest = detail::longest_cover(*local, ip_prefix(address, address.bits()));
    if (longest != nullptr && longest->second.front().route.type == RTN_LOCAL) return true;
  }
  for (const auto& [index, known_device] : devices_)
    for (const netlink::address& own : known_device.addresses(address.family()))
      if (own.local == address && !is_in_detection(own)) return true;
  return false;
}

std::optional<bool> mirror::rules_configured(ip_family family) const noexcept {
  const rule_list& rules = rules_[slot(family)];
  if (rules.added_live) return true;
  if (!std::ranges::all_of(rules.list, is_initial)) return true;
  // In IPv6 only an addition ever counted.
  const bool removal_counts = family == ip_family::v4 &&
                              settings_.kernel_version < kernel_quirks::removed_rules_do_not_count;
  const bool removed = rules.removed_live || rules.list.size() < initial_rules(family).size();
  if (removal_counts && removed) return true;
  return std::nullopt;
}

bool mirror::initial_rules_may_count(ip_family family) const noexcept {
  return !rules_configured(family) &&
         rules_[slot(family)].list.size() < initial_rules(family).size();
}

bool mirror::nexthop_is_ambiguous(ip_family family, std::uint32_t id) const {
  const netlink::nexthop_object* object = find_nexthop(id);
  if (object == nullptr) return false;
  std::vector<std::uint32_t> leaves;
  for (const auto& member : object->group) leaves.push_back(member.id);
  if (leaves.empty()) leaves.push_back(id);
  const auto uses = [&](std::uint32_t user, std::uint32_t leaf) {
    const netlink::nexthop_object* candidate = find_nexthop(user);
    return user == leaf ||
           (candidate != nullptr && std::ranges::any_of(candidate->group, [&](const auto& member) {
              return member.id == leaf;
            }));
  };
  // IPv6 chooses the source for the first member of whichever route's group filled the cache.
  const auto first_device = [&](std::uint32_t user) {
    if (family == ip_family::v4) return 0u;
    const netlink::nexthop_object* candidate = find_nexthop(user);
    if (candidate != nullptr && !candidate->group.empty())
      candidate = find_nexthop(candidate->group.front().id);
    return candidate != nullptr ? candidate->index : 0u;
  };
  const char tag = static_cast<char>('0' + slot(family));
  for (const std::uint32_t leaf : leaves) {
    std::optional<std::pair<std::string_view, std::uint32_t>> first;
    const auto differs = [&](std::uint32_t user, const auto& attributes) {
      for (const auto& [key, count] : attributes) {
        if (key.front() != tag) continue;
        const std::pair cached(std::string_view(key), first_device(user));
        if (first == cached) continue;  // Whether it uses the leaf or not.
        if (!uses(user, leaf)) return false;
        if (first) return true;
        first = cached;
      }
      return false;
    };
    // Its own first: all others are usually like them.
    const auto own = nexthop_users_.find(leaf);
    if (own != nexthop_users_.end() && differs(leaf, own->second)) return true;
    for (const auto& [user, attributes] : nexthop_users_)
      if (differs(user, attributes)) return true;
  }
  return false;
}

// ----------------------------------------------------------------------------------------------
// links

void mirror::apply(const netlink::message& message, mirror_changes& changes,
                   message_origin origin) {
  origin_ = origin;
  if (may_change_descriptions(message)) described_.clear();
  std::visit([&](const auto& one) { apply_one(one, changes); }, message);
}

bool mirror::named_by_rule(std::string_view name) const noexcept {
  for (const rule_list& rules : rules_)
    for (const netlink::rule& rule : rules.list)
      if (rule.input_interface == name || rule.output_interface == name) return true;
  return false;
}

bool mirror::same_link(const netlink::link& a, const netlink::link& b) {
  return a.flags == b.flags && a.name == b.name && a.mtu == b.mtu && a.address == b.address &&
         a.master == b.master && a.lower == b.lower && a.group == b.group && a.kind == b.kind &&
         a.info == b.info && a.bond_slave == b.bond_slave && a.carrier == b.carrier &&
         a.lower_in_other_namespace == b.lower_in_other_namespace;
}

void mirror::apply_one(const netlink::link& message, mirror_changes& changes) {
  if (message.action == netlink::action::remove) {
    remove_device(message.index, changes);
    return;
  }
  auto [found, fresh] = devices_.try_emplace(message.index);
  device& now = found->second;
  now.generation = generations_[slot(object_kind::link)];
  tell_peer(message);
  if (fresh) {
    now.link = message;
    if (origin_ == message_origin::notification) now.registered = ++registrations_;
    if (named_by_rule(message.name)) changes.decisions_v4 = changes.decisions_v6 = true;
    changes.links.push_back(message.index);
    return;
  }
  if (same_link(now.link, message)) return;
  const netlink::link before = std::exchange(now.link, message);
  link_state_changed(now, before, changes);
}

/// The first end of a new pair is announced before it has a peer, and not again when it gets one
/// (veth_newlink() in drivers/net/veth.c); the other end's announcement names the first.
void mirror::tell_peer(const netlink::link& end) {
  if (end.kind != "veth" || end.lower == 0 || end.lower_in_other_namespace) return;
  const auto peer = devices_.find(end.lower);
  if (peer == devices_.end() || peer->second.link.kind != "veth") return;
  if (peer->second.link.lower == 0) peer->second.link.lower = end.index;
}

void mirror::link_state_changed(device& now, const netlink::link& before, mirror_changes& changes) {
  const std::uint32_t index = now.link.index;
  const std::uint32_t changed = before.flags ^ now.link.flags;
  changes.links.push_back(index);
  if (before.name != now.link.name && (named_by_rule(before.name) || named_by_rule(now.link.name)))
    changes.decisions_v4 = changes.decisions_v6 = true;
  if (before.group != now.link.group || before.kind != now.link.kind)
    changes.decisions_v4 = changes.decisions_v6 = true;
  if (before.mtu != now.link.mtu) mtu_changed(now, before.mtu, changes);
  if ((changed & IFF_UP) != 0) {
    if (now.up()) {
      source_caches_are_void(changes);
      revive(index, ip_family::v4, changes);
      if (is_operational(now.link)) revive(index, ip_family::v6, changes);
    } else {
      purge_routes_v4(index, loss::admin_down, changes);
      purge_routes_v6(index, loss::admin_down, changes);
      remove_nexthops_on(index, changes);
      // Those that keep_addr_on_down keeps have to be detected anew; of the others a word follows.
      for (netlink::address& own : now.v6)
        if ((own.flags & IFA_F_NODAD) == 0) own.flags |= IFA_F_TENTATIVE;
    }
    changes.decisions_v4 = changes.decisions_v6 = true;
    changes.refresh_advised = true;
  } else if ((changed & (lower_up | IFF_RUNNING)) != 0 || before.carrier != now.link.carrier) {
    // Nexthop objects die with the carrier and do not come back; routes of their own only turn
    // LINKDOWN.
    if (!detail::has_carrier(now.link)) remove_nexthops_on(index, changes);
    if (now.up() && is_operational(now.link)) revive(index, ip_family::v6, changes);
    if (std::exchange(now.stale_shares, {}) != decltype(now.stale_shares){})
      changes.decisions_v4 = changes.decisions_v6 = true;
    if (ignores_linkdown(ip_family::v4, index)) changes.decisions_v4 = true;
    if (ignores_linkdown(ip_family::v6, index)) changes.decisions_v6 = true;
    changes.refresh_advised = true;
  }
  if (before.master != now.link.master) {
    purge_routes_v4(index, loss::addresses_gone, changes);
    changes.decisions_v4 = changes.decisions_v6 = true;
    changes.refresh_advised = true;
  }
}

/// IPv6 MTU metrics that are not locked follow the device's MTU without a word (rt6_mtu_change() in
/// net/ipv6/route.c): down with it, and up where they were what it was. Each sibling has its own,
/// of which a dump shows the first one's; the users of an object have one for all its members.
void mirror::mtu_changed(const device& now, std::uint32_t before, mirror_changes& changes) {
  const std::uint32_t mtu = now.link.mtu;
  const auto own = settings_.device_mtus_v6.find(now.link.index);
  const std::uint32_t before_v6 = own != settings_.device_mtus_v6.end() ? own->second : before;
  const auto is_over = [&](const auto& hop) { return hop.index == now.link.index; };
  const auto object_is_over = [&](std::uint32_t id) {
    const netlink::nexthop_object* object = find_nexthop(id);
    if (object == nullptr || object->group.empty()) return object != nullptr && is_over(*object);
    return std::ranges::any_of(object->group, [&](const auto& member) {
      const netlink::nexthop_object* leaf = find_nexthop(member.id);
      return leaf != nullptr && is_over(*leaf);
    });
  };
  const auto edit = [&](route_entries::list& entries) {
    bool changed = false;
    for (route_entry& entry : entries) {
      netlink::route& route = entry.route;
      const std::uint32_t metric = route.metrics.mtu;
      const bool locked = (route.metrics.lock >> RTAX_MTU & 1) != 0;
      const bool follows = metric != 0 && metric != mtu && (metric > mtu || metric == before_v6);
      if (locked || !follows) continue;
      const auto& hops = route.next_hops;
      if (route.nexthop_id != 0 ? !object_is_over(route.nexthop_id)
                                : std::ranges::none_of(hops, is_over))
        continue;
      if (route.nexthop_id != 0 || is_over(hops.front())) route.metrics.mtu = mtu;
      entry.mixed_siblings |= route.nexthop_id == 0 && !std::ranges::all_of(hops, is_over);
      changed = true;
    }
    return changed;
  };
  edit_routes(ip_family::v6, edit, changes);
}

void mirror::remove_device(std::uint32_t index, mirror_changes& changes) {
  const auto found = devices_.find(index);
  if (found == devices_.end()) return;
  if (!found->second.v4.empty()) changes.decisions_v4 = true;
  if (!found->second.v6.empty()) changes.decisions_v6 = true;
  if (named_by_rule(found->second.link.name)) changes.decisions_v4 = changes.decisions_v6 = true;
  devices_.erase(found);
  changes.links.push_back(index);
  purge_routes_v4(index, loss::unregistered, changes);
  purge_routes_v6(index, loss::unregistered, changes);
  remove_nexthops_on(index, changes);
  std::erase_if(neighbours_, [&](const auto& item) {
    if (item.first.index != index) return false;
    changes.neighbours.push_back(item.first);
    return true;
  });
  for (auto& settings : netconf_) settings.erase(static_cast<std::int32_t>(index));
  changes.refresh_advised = true;
}

template <class Edit>
void mirror::edit_routes(ip_family family, Edit&& edit, mirror_changes& changes) {
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
    one.changed = edit(next);
    if (one.changed) set_entries(one.after, std::move(next));
    return one;
  };
  std::size_t count = route_count_;
  for (auto& [id, table] : tables_[slot(family)]) {
    bool any_empty = false;
    table.items_.for_each([&](route_table::value_type& item) {
      const outcome& one = outcome_of(item.second);
      if (!one.changed) return;
      for (const route_entry& entry : one.after) count_nexthop_user(entry.route, 1, changes);
      for (const route_entry& entry : one.before) count_nexthop_user(entry.route, -1, changes);
      count = count + one.after.size() - one.before.size();
      item.second.list_ = one.after.list_;
      any_empty |= item.second.empty();
      changes.routes.push_back({id, item.first});
    });
    if (any_empty) table.items_.erase_if([](const auto& item) { return item.second.empty(); });
  }
  route_count_ = count;
}

template <class Predicate>
void mirror::remove_routes_if(ip_family family, Predicate&& gone, mirror_changes& changes) {
  const auto edit = [&](route_entries::list& entries) { return std::erase_if(entries, gone) > 0; };
  edit_routes(family, edit, changes);
}

void mirror::purge_routes_v4(std::uint32_t index, loss how, mirror_changes& changes) {
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
  const auto edit = [&](route_entries::list& entries) {
    touched = false;
    return std::erase_if(entries, gone) > 0 || touched;
  };
  edit_routes(ip_family::v4, edit, changes);
}

void mirror::purge_routes_v6(std::uint32_t index, loss how, mirror_changes& changes) {
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
  const auto edit = [&](route_entries::list& entries) {
    touched = false;
    return std::erase_if(entries, gone) > 0 || touched;
  };
  edit_routes(ip_family::v6, edit, changes);
}

void mirror::revive(std::uint32_t index, ip_family family, mirror_changes& changes) {
  if (dead_hops_[slot(family)].erase(index) == 0) return;
  const auto edit = [&](route_entries::list& entries) {
    bool revived = false;
    for (route_entry& entry : entries)
      for (netlink::next_hop& hop : entry.route.next_hops)
        if (hop.index == index && (hop.flags & RTNH_F_DEAD) != 0) {
          hop.flags &= ~static_cast<std::uint32_t>(RTNH_F_DEAD);
          revived = true;
        }
    return revived;
  };
  edit_routes(family, edit, changes);
}

// ----------------------------------------------------------------------------------------------
// addresses

/// Next hops look their source up anew (dev_addr_genid in net/ipv4/fib_frontend.c).
void mirror::source_caches_are_void(mirror_changes& changes) {
  if (origin_ == message_origin::dump) return;
  for (auto& [index, known_device] : devices_)
    if (std::exchange(known_device.localnet_changed, false)) changes.decisions_v4 = true;
}

void mirror::insert_address(device& on, const netlink::address& message) {
  auto& list = message.local.is_v4() ? on.v4 : on.v6;
  auto at = list.end();
  if (origin_ == message_origin::dump) {
    // A dump is in list order.
  } else if (message.local.is_v6()) {
    at = std::ranges::find_if(list,
                              [&](const auto& listed) { return goes_before_v6(message, listed); });
  } else if ((message.flags & IFA_F_SECONDARY) == 0) {
    // After the last primary whose scope number is not smaller.
    at = list.begin();
    for (auto i = list.begin(); i != list.end(); ++i)
      if ((i->flags & IFA_F_SECONDARY) == 0 && i->scope >= message.scope) at = i + 1;
  }
  list.insert(at, message);
}

void mirror::apply_one(const netlink::address& message, mirror_changes& changes) {
  if (message.action == netlink::action::add && refreshing_addresses_) {
    std::size_t& place = named_addresses_[{message.index, message.local}];
    if (origin_ == message_origin::dump && place == 0) place = ++dumped_addresses_;
  }
  const auto found = devices_.find(message.index);
  if (found == devices_.end()) return;
  device& on = found->second;
  const ip_family family = message.local.family();
  auto& list = family == ip_family::v4 ? on.v4 : on.v6;
  const auto same = std::ranges::find_if(list, [&](const netlink::address& listed) {
    return listed.local == message.local && listed.prefix_length == message.prefix_length &&
           (family == ip_family::v6 || listed.peer == message.peer);
  });
  bool& decisions = family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6;
  if (message.action == netlink::action::remove) {
    if (same == list.end()) return;
    list.erase(same);
    decisions = true;
    if (family == ip_family::v6) {
      // The kernel strips the address from routes that prefer it, without a word.
      const auto strip = [&](route_entries::list& entries) {
        bool stripped = false;
        for (route_entry& entry : entries) {
          if (entry.route.preferred_source != message.local || !on.up()) continue;
          entry.route.preferred_source.reset();
          stripped = true;
        }
        return stripped;
      };
      edit_routes(family, strip, changes);
      return;
    }
    on.renumbered = true;
    source_caches_are_void(changes);
    if (list.empty()) {
      purge_routes_v4(message.index, loss::addresses_gone, changes);
      changes.refresh_advised = true;
    }
    return;
  }
  if (same != list.end()) {
    const bool moved =
        family == ip_family::v4 && ((same->flags ^ message.flags) & IFA_F_SECONDARY) != 0;
    if (same->flags != message.flags || same->scope != message.scope) decisions = true;
    if (moved) {
      list.erase(same);
      insert_address(on, message);
    } else {
      *same = message;
    }
    return;
  }
  // Its place in the list is from before its detection.
  changes.addresses_advised |= origin_ == message_origin::notification && message.local.is_v6() &&
                               (message.flags & IFA_F_NODAD) == 0 && !list.empty();
  insert_address(on, message);
  decisions = true;
  if (family == ip_family::v4) source_caches_are_void(changes);
  if (origin_ == message_origin::notification && on.up() && family == ip_family::v4)
    revive(message.index, family, changes);
}

// ----------------------------------------------------------------------------------------------
// routes

/// Another kind of route over an object, or one kind less, may change what all of them mean.
void mirror::count_nexthop_user(const netlink::route& route, int step, mirror_changes& changes) {
  if (route.nexthop_id == 0) return;
  auto& users = nexthop_users_[route.nexthop_id];
  const auto [at, fresh] = users.try_emplace(cached_attributes(route), 0);
  at->second += static_cast<std::size_t>(step);
  if (fresh || at->second == 0) changes.nexthops.push_back(route.nexthop_id);
  if (at->second == 0) users.erase(at);
  if (users.empty()) nexthop_users_.erase(route.nexthop_id);
}

/// Gives the next hops the flags that follow from what is known now.
void mirror::update_flags(netlink::route& route) const {
  for (netlink::next_hop& hop : route.next_hops) {
    // Follows from the link, which may change without a word about the route.
    hop.flags &= ~static_cast<std::uint32_t>(RTNH_F_LINKDOWN);
    // A dump shows DEAD also for "carrier lost and ignored", which follows from the link and may
    // end without a word.
    if (shows_all_dead(route.destination.family(), hop.index))
      hop.flags &= ~static_cast<std::uint32_t>(RTNH_F_DEAD);
  }
}

route_entry mirror::describe_entry(const netlink::route& route) const {
  route_entry entry;
  entry.route = described(route);
  update_flags(entry.route);
  if (route.expires_s)
    entry.expires = std::chrono::steady_clock::now() + std::chrono::seconds(*route.expires_s);
  return entry;
}

route_entry mirror::make_entry(const netlink::route& route) const {
  route_entry entry = describe_entry(route);
  if (route.destination.family() == ip_family::v6 || route.nexthop_id != 0) return entry;
  for (const netlink::next_hop& hop : route.next_hops) {
    if (!hop.gateway || hop.gateway->is_v6() || (hop.flags & RTNH_F_ONLINK) != 0) continue;
    if (!is_local_address(*hop.gateway)) continue;
    // What fib_check_nh_v4_gw() in net/ipv4/fib_semantics.c found is certain where it asked table
    // local first, and that for the device: not in the route's own table.
    const device* const over = find_device(hop.index);
    const auto owns = [&](const netlink::address& own) { return own.local == *hop.gateway; };
    const bool told = origin_ == message_origin::notification && route.next_hops.size() == 1 &&
                      route.table == RT_TABLE_MAIN && over != nullptr &&
                      std::ranges::any_of(over->v4, owns);
    entry.gateway = told ? route_entry::gateway_use::on_link : route_entry::gateway_use::unknown;
  }
  return entry;
}

/// The kernel said again what we have.
void mirror::refresh_entry(route_entries& at, std::size_t index, const netlink::route& route,
                           mirror_changes& changes) {
  const route_entry& entry = at.get()[index];
  mark_named(at, route, &entry);
  route_entry next = describe_entry(route);
  next.gateway = entry.gateway;
  next.mixed_siblings = entry.mixed_siblings && route.next_hops.size() > 1;
  if (!next.expires) next.expires = entry.expires;
  for (std::size_t i = 0; i < next.route.next_hops.size() && i < entry.route.next_hops.size(); ++i)
    if (shows_all_dead(route.destination.family(), next.route.next_hops[i].index))
      next.route.next_hops[i].flags |= entry.route.next_hops[i].flags & RTNH_F_DEAD;
  const auto expires_s = std::exchange(next.route.expires_s, entry.route.expires_s);
  const bool same = next.route == entry.route && next.mixed_siblings == entry.mixed_siblings;
  if (same && next.expires == entry.expires) return;
  next.route.expires_s = expires_s;
  if (!same) {
    count_nexthop_user(next.route, 1, changes);
    count_nexthop_user(entry.route, -1, changes);
    changes.routes.push_back({route.table, route.destination});
  }
  replace_entry(at, index, std::move(next));
}

void mirror::apply_one(const netlink::route& message, mirror_changes& changes) {
  if ((message.flags & RTM_F_CLONED) != 0) return;  // A cached answer, not a route.
  if (message.action == netlink::action::remove) {
    remove_route(message, changes);
    return;
  }
  if (message.placement.exclusive) remove_rivals(message, changes);
  if (message.destination.family() == ip_family::v4)
    add_route_v4(message, changes);
  else
    add_route_v6(message, changes);
}

route_entries& mirror::entries_at(const netlink::route& route) {
  return tables_[slot(route.destination.family())][route.table]
      .items_.insert(route.destination)
      .second;
}

/// The place of this message in `described_`; null: not every prefix gets the same of it.
mirror::described_route* mirror::description_of(const netlink::route& route) {
  if (route.nexthop_id != 0 || route.expires_s || route.next_hops.empty()) return nullptr;
  described_.resize(described_max);
  const netlink::next_hop& hop = route.next_hops.front();
  detail::hasher h;
  h.add(std::uint64_t{hop.index} << 32 | route.table);
  h.add(hop.gateway);
  return &described_[h.result() % described_max];
}

void mirror::set_entries(route_entries& at, route_entries::list&& next) {
  for (const route_entry& entry : next)
    for (const netlink::next_hop& hop : entry.route.next_hops)
      if ((hop.flags & RTNH_F_DEAD) != 0)
        dead_hops_[slot(entry.route.destination.family())].insert(hop.index);
  route_count_ += next.size() - at.size();
  at.list_ = pool_.intern(std::move(next)).list_;
}

void mirror::replace_entry(route_entries& at, std::size_t index, route_entry&& next) {
  route_entries::list entries = at.get();
  entries[index] = std::move(next);
  set_entries(at, std::move(entries));
}

/// A message has named `known`, an entry at the prefix of `route`, or (null) one that comes now.
/// The others there are swept unless they are named, too.
void mirror::mark_named(route_entries& at, const netlink::route& route, const route_entry* known) {
  const std::uint32_t now = generations_[slot(object_kind::route)];
  const bool first = std::exchange(at.generation_, now) != now;
  if (!refreshing_routes_) return;
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
void mirror::count_named(const netlink::route& route, std::uint32_t generation) {
  auto& items = tables_[slot(route.destination.family())][route.table].items_;
  auto& summary = items.chunk_with(route.destination).summary;
  if (!summary || *summary >> 32 != generation) summary = std::uint64_t{generation} << 32;
  ++*summary;
}

bool mirror::confirm(const netlink::message& message) {
  const auto* const route = std::get_if<netlink::route>(&message);
  if (route == nullptr || route->action != netlink::action::add || route->expires_s) return false;
  const auto table = tables_[slot(route->destination.family())].find(route->table);
  if (table == tables_[slot(route->destination.family())].end()) return false;
  auto* const item = table->second.items_.find(route->destination);
  if (item == nullptr) return false;
  constexpr std::uint32_t derived = RTNH_F_DEAD | RTNH_F_LINKDOWN;
  std::optional<netlink::route> current;  // Where something of it follows from a device.
  if (std::ranges::any_of(route->next_hops,
                          [](const auto& hop) { return (hop.flags & derived) != 0; }))
    update_flags(current.emplace(*route));
  const auto is_said = [&](const route_entry& entry) {
    return entry.route.same_but_destination(current ? *current : *route);
  };
  const auto known = std::ranges::find_if(item->second, is_said);
  if (known == item->second.end()) return false;
  mark_named(item->second, *route, &*known);
  return true;
}

void mirror::sweep_routes(mirror_changes& changes) {
  const std::uint32_t now = generations_[slot(object_kind::route)];
  refreshing_routes_ = false;
  for (auto& tables : tables_)
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
  for (const auto& [where, entries] : std::exchange(unnamed_routes_, {})) {
    const route_entries* at = find_table(where.second.family(), where.first)->find(where.second);
    for (const route_entry& entry : entries)
      if (!may_be_left_out(entry, at->get())) remove_exactly(entry.route_to(where.second), changes);
  }
}

void mirror::add_route_v4(const netlink::route& route, mirror_changes& changes) {
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
  if (known != last && (known == first || !route.placement.replace)) {
    refresh_entry(at, static_cast<std::size_t>(known - entries.begin()), route, changes);
    return;
  }
  if (known != last) {
    // The kernel replaces by what is not there yet: a dump has told of it before its announcement.
    static_cast<void>(remove_exactly(route, changes));
    add_route_v4(route, changes);
    return;
  }
  const bool replaces = route.placement.replace && first != last;
  const bool prepends =
      route.placement.create && !route.placement.exclusive && !route.placement.append;
  insert_entry(at, replaces || prepends ? first : last, replaces, route, changes);
}

/// In front of `place`, or instead of it.
void mirror::insert_entry(route_entries& at, route_entries::list::const_iterator place,
                          bool replaces, const netlink::route& route, mirror_changes& changes) {
  mark_named(at, route, replaces ? &*place : nullptr);
  changes.routes.push_back({route.table, route.destination});
  const bool alone = at.size() == (replaces ? 1 : 0);
  described_route* const known = alone ? description_of(route) : nullptr;
  if (known != nullptr && known->origin == origin_ &&
      known->told.destination.family() == route.destination.family() &&
      known->told.same_but_destination(route)) {
    if (replaces) count_nexthop_user(place->route, -1, changes);
    route_count_ += replaces ? 0 : 1;
    at.list_ = known->entries.list_;
    return;
  }
  count_nexthop_user(route, 1, changes);
  if (replaces) count_nexthop_user(place->route, -1, changes);
  const route_entries::list& entries = at.get();
  route_entries::list next;
  next.reserve(entries.size() + 1);
  next.insert(next.end(), entries.begin(), place);
  next.push_back(make_entry(route));
  next.insert(next.end(), place + (replaces ? 1 : 0), entries.end());
  set_entries(at, std::move(next));
  if (known != nullptr) *known = {route, origin_, at};
}

void mirror::add_route_v6(const netlink::route& route, mirror_changes& changes) {
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
  if (known != last && (known == victim || !route.placement.replace)) {
    refresh_entry(at, static_cast<std::size_t>(known - entries.begin()), route, changes);
    return;
  }
  if (known != last) {  // As in add_route_v4().
    static_cast<void>(remove_exactly(route, changes));
    add_route_v6(route, changes);
    return;
  }
  if (capable && sibling != last && !route.placement.replace) {
    add_sibling(at, static_cast<std::size_t>(sibling - entries.begin()), route);
    changes.routes.push_back({route.table, route.destination});
    return;
  }
  const bool replaces = route.placement.replace && first != last;
  insert_entry(at, replaces ? victim : last, replaces, route, changes);
}

/// The set of siblings has grown (or, in a re-dump, is seen anew). A notification may list the
/// newcomer first; the kernel's own list has it last.
void mirror::add_sibling(route_entries& at, std::size_t index, const netlink::route& route) {
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
  update_flags(current);
  // A weight is told of several only.
  for (netlink::next_hop& hop : current.next_hops)
    if (const auto same = find_in(hops, hop); current.next_hops.size() == 1 && same != hops.end())
      hop.weight = same->weight;
  if (origin_ == message_origin::dump) {
    grown = describe_entry(current);  // What it shows are the first one's attributes.
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
bool mirror::remove_entries_if(const netlink::route& where, Predicate&& gone,
                               mirror_changes& changes) {
  auto& tables = tables_[slot(where.destination.family())];
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
bool mirror::remove_exactly(const netlink::route& route, mirror_changes& changes) {
  const auto same = [&](const route_entry& entry) { return same_route(entry.route, route); };
  return remove_entries_if(route, same, changes);
}

/// The kernel had no other entry of this rank when it announced this one: those that are known are
/// of a dump that was ahead of the announcement, and are announced later.
void mirror::remove_rivals(const netlink::route& route, mirror_changes& changes) {
  const auto rivals = [&](const route_entry& entry) {
    return entry.route.tos == route.tos && entry.route.priority == route.priority &&
           entry.route.source == route.source && !same_route(entry.route, route);
  };
  static_cast<void>(remove_entries_if(route, rivals, changes));
}

/// A notification of IPv6 siblings names those that are gone.
void mirror::remove_siblings(const netlink::route& route, mirror_changes& changes) {
  route_table& table = tables_[slot(ip_family::v6)][route.table];
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

void mirror::change_entries(route_table& table, route_table::value_type& item,
                            route_entries::list&& next, mirror_changes& changes) {
  changes.routes.push_back({item.second.front().route.table, item.first});
  set_entries(item.second, std::move(next));
  if (item.second.empty()) table.items_.erase(ip_prefix(item.first));
}

void mirror::remove_route(const netlink::route& route, mirror_changes& changes) {
  if (!tables_[slot(route.destination.family())].contains(route.table)) return;
  if (remove_exactly(route, changes)) return;
  if (route.destination.family() == ip_family::v6 && route.nexthop_id == 0)
    remove_siblings(route, changes);
}

// ----------------------------------------------------------------------------------------------
// nexthop objects

void mirror::apply_one(const netlink::nexthop_object& message, mirror_changes& changes) {
  if (message.action == netlink::action::remove) {
    remove_nexthop(message.id, changes);
    return;
  }
  nexthop_entry& entry = nexthops_[message.id];
  entry.generation = generations_[slot(object_kind::nexthop)];
  netlink::nexthop_object next = message;
  next.replace = false;
  const bool same = entry.object == next;
  // What a change of the group does to the buckets is not told, even where nothing else changes.
  if (next.resilient_buckets != 0 && (!same || origin_ == message_origin::notification))
    changes.buckets_advised = true;
  if (same) return;
  entry.object = std::move(next);
  entry.buckets.resize(entry.object.resilient_buckets);
  changes.nexthops.push_back(message.id);
}

void mirror::apply_one(const netlink::nexthop_bucket& message, mirror_changes& changes) {
  const auto found = nexthops_.find(message.group);
  if (found == nexthops_.end() || message.index >= found->second.buckets.size()) return;
  const std::uint32_t member = message.action == netlink::action::add ? message.member : 0;
  if (std::exchange(found->second.buckets[message.index], member) != member)
    changes.nexthops.push_back(message.group);
}

void mirror::remove_nexthop(std::uint32_t id, mirror_changes& changes) {
  if (nexthops_.erase(id) == 0) return;
  changes.nexthops.push_back(id);
  std::vector<std::uint32_t> empty_groups;
  for (auto& [other, entry] : nexthops_) {
    if (std::erase_if(entry.object.group, [&](const auto& member) { return member.id == id; }) == 0)
      continue;
    changes.nexthops.push_back(other);
    changes.buckets_advised |= !entry.buckets.empty();
    if (entry.object.group.empty()) empty_groups.push_back(other);
  }
  if (nexthop_users_.contains(id)) {
    const auto gone = [&](const route_entry& entry) { return entry.route.nexthop_id == id; };
    remove_routes_if(ip_family::v4, gone, changes);
    remove_routes_if(ip_family::v6, gone, changes);
  }
  for (const std::uint32_t group : empty_groups) remove_nexthop(group, changes);
  changes.refresh_advised = true;
}

void mirror::remove_nexthops_on(std::uint32_t index, mirror_changes& changes) {
  std::vector<std::uint32_t> ids;
  for (const auto& [id, entry] : nexthops_)
    if (entry.object.index == index && entry.object.group.empty() && !entry.object.blackhole)
      ids.push_back(id);
  for (const std::uint32_t id : ids) remove_nexthop(id, changes);
}

// ----------------------------------------------------------------------------------------------
// rules, neighbours

void mirror::apply_one(const netlink::rule& message, mirror_changes& changes) {
  rule_list& rules = rules_[slot(message.family)];
  const std::uint32_t generation = generations_[slot(object_kind::rule)];
  const auto same = [&](const netlink::rule& listed) {
    netlink::rule other = message;
    other.action = listed.action;
    other.input_detached = other.output_detached = false;
    return listed == other;
  };
  const auto known = std::ranges::find_if(rules.list, same);
  const auto position = known - rules.list.begin();
  bool& decisions = message.family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6;
  if (message.action == netlink::action::remove) {
    rules.removed_live |= origin_ == message_origin::notification;
    rules.added_live |= !is_initial(message);  // Once.
    if (known == rules.list.end()) return;
    rules.list.erase(known);
    rules.generations.erase(rules.generations.begin() + position);
    decisions = true;
    return;
  }
  if (origin_ == message_origin::notification) rules.added_live = true;
  if (known != rules.list.end()) {
    rules.generations[static_cast<std::size_t>(position)] = generation;
    return;
  }
  const auto at =
      std::ranges::upper_bound(rules.list, message.priority, {}, &netlink::rule::priority);
  rules.generations.insert(rules.generations.begin() + (at - rules.list.begin()), generation);
  netlink::rule& added = *rules.list.insert(at, message);
  added.action = netlink::action::add;
  // Follows from the devices there are: they come and go without a word about the rule.
  added.input_detached = added.output_detached = false;
  decisions = true;
}

void mirror::apply_one(const netlink::neighbour& message, mirror_changes& changes) {
  if ((message.flags & NTF_PROXY) != 0) return;  // Answers others; never resolves our own traffic.
  const neighbour_key key{message.index, message.destination};
  if (message.action == netlink::action::remove) {
    if (neighbours_.erase(key) > 0) changes.neighbours.push_back(key);
    return;
  }
  const auto [found, fresh] = neighbours_.try_emplace(key);
  netlink::neighbour& known = found->second.neighbour;
  found->second.generation = generations_[slot(object_kind::neighbour)];
  if (!fresh && known.state == message.state && known.link_address == message.link_address) {
    known = message;
    return;
  }
  known = message;
  changes.neighbours.push_back(key);
}

void mirror::apply_one(const netlink::netconf& message, mirror_changes& changes) {
  if (message.action == netlink::action::remove) {
    auto& settings = netconf_[slot(message.family)];
    const auto known = settings.find(message.index);
    if (known == settings.end()) return;
    if (known->second.ignore_linkdown.value_or(false))
      (message.family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6) = true;
    settings.erase(known);
    return;
  }
  // Devices without a setting of their own follow the default without a word
  // (devinet_copy_dflt_conf() in net/ipv4/devinet.c), and which those are nobody tells.
  changes.netconf_advised |= origin_ == message_origin::notification &&
                             message.family == ip_family::v4 &&
                             message.index == NETCONFA_IFINDEX_DEFAULT;
  device_settings& settings = netconf_[slot(message.family)][message.index];
  bool& decisions = message.family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6;
  if (message.forwarding && settings.forwarding != message.forwarding) {
    settings.forwarding = message.forwarding;
    decisions |= message.index == NETCONFA_IFINDEX_ALL;
  }
  if (message.ignore_routes_with_linkdown &&
      settings.ignore_linkdown != message.ignore_routes_with_linkdown) {
    const bool first = !settings.ignore_linkdown.has_value();
    settings.ignore_linkdown = message.ignore_routes_with_linkdown;
    decisions = true;
    // Unknown counts as off: a device that gets a new name is told of anew, after a removal.
    if (first && (origin_ == message_origin::dump || !*message.ignore_routes_with_linkdown)) return;
    // Shares are recomputed at the next carrier event, not now. IPv6 tells of each device.
    const bool all = message.family == ip_family::v4 && message.index < 0;
    for (auto& [index, known_device] : devices_)
      if (!detail::has_carrier(known_device.link) &&
          (all || static_cast<std::uint32_t>(message.index) == index))
        known_device.stale_shares[slot(message.family)] = true;
  }
}

void mirror::set_settings(const mirror_settings& settings, mirror_changes& changes) {
  for (auto& [index, known_device] : devices_) {
    const bool localnet = settings.route_localnet.contains(index);
    const auto before = std::exchange(known_device.localnet, localnet);
    known_device.localnet_changed |= before && *before != localnet;
  }
  if (settings == settings_) return;
  settings_ = settings;
  changes.decisions_v4 = changes.decisions_v6 = true;
}

void mirror::set_path_mtu(const ip_address& destination, std::uint32_t mtu,
                          std::chrono::steady_clock::time_point expires, mirror_changes& changes) {
  const path_exception* const known = find_path_exception(destination);
  path_exception next = known != nullptr ? *known : path_exception{};
  next.mtu = mtu;
  next.mtu_locked &= mtu != 0;
  next.expires = expires;
  if (next.mtu == 0 && !next.redirected && !next.doubtful)
    set_path_exception(destination, std::nullopt, changes);
  else
    set_path_exception(destination, std::move(next), changes);
}

void mirror::set_path_exception(const ip_address& destination, std::optional<path_exception> known,
                                mirror_changes& changes) {
  if (!known) {
    if (path_exceptions_.erase(destination) > 0) changes.path_mtus.push_back(destination);
    return;
  }
  const auto [at, fresh] = path_exceptions_.try_emplace(destination);
  path_exception before = std::exchange(at->second, std::move(*known));
  before.expires = at->second.expires;  // That it lasts longer changes nothing now.
  if (fresh || before != at->second) changes.path_mtus.push_back(destination);
}

void mirror::expire(std::chrono::steady_clock::time_point now, mirror_changes& changes) {
  std::erase_if(path_exceptions_, [&](const auto& item) {
    if (item.second.expires > now) return false;
    changes.path_mtus.push_back(item.first);
    return true;
  });
  const auto gone = [&](const route_entry& entry) {
    return entry.expires && *entry.expires <= now;
  };
  if (pool_.any_of(gone)) remove_routes_if(ip_family::v6, gone, changes);
}

// ----------------------------------------------------------------------------------------------
// refresh, re-sync

void mirror::begin_refresh(object_kind kind) {
  ++generations_[slot(kind)];
  if (kind == object_kind::address) {
    refreshing_addresses_ = true;
    named_addresses_.clear();
    dumped_addresses_ = 0;
  }
  if (kind != object_kind::route) return;
  refreshing_routes_ = true;
  unnamed_routes_.clear();
}

void mirror::end_refresh(object_kind kind, mirror_changes& changes) {
  const std::uint32_t now = generations_[slot(kind)];
  described_.clear();
  switch (kind) {
    case object_kind::link:
      for (const std::uint32_t index : keys_of_generation_other_than(devices_, now))
        remove_device(index, changes);
      break;
    case object_kind::route:
      sweep_routes(changes);
      break;
    case object_kind::nexthop:
      for (const std::uint32_t id : keys_of_generation_other_than(nexthops_, now))
        remove_nexthop(id, changes);
      break;
    case object_kind::neighbour:
      for (const neighbour_key& key : keys_of_generation_other_than(neighbours_, now)) {
        neighbours_.erase(key);
        changes.neighbours.push_back(key);
      }
      break;
    case object_kind::rule:
      for (rule_list& rules : rules_) {
        for (std::size_t i = rules.list.size(); i-- > 0;) {
          if (rules.generations[i] == now) continue;
          (rules.list[i].family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6) =
              true;
          rules.list.erase(rules.list.begin() + static_cast<std::ptrdiff_t>(i));
          rules.generations.erase(rules.generations.begin() + static_cast<std::ptrdiff_t>(i));
        }
      }
      break;
    case object_kind::address: {
      std::vector<netlink::address> gone;
      for (const auto& [index, known_device] : devices_)
        for (const auto* list : {&known_device.v4, &known_device.v6})
          for (const netlink::address& listed : *list)
            if (!named_addresses_.contains({listed.index, listed.local})) gone.push_back(listed);
      for (auto& [index, known_device] : devices_)
        for (const ip_family family : {ip_family::v4, ip_family::v6})
          sort_as_dumped(known_device, family, changes);
      named_addresses_.clear();
      refreshing_addresses_ = false;
      for (netlink::address& address : gone) {
        address.action = netlink::action::remove;
        apply_one(address, changes);
      }
      break;
    }
    case object_kind::nexthop_bucket:  // Groups take theirs with them,
    case object_kind::netconf:         // and devices theirs.
      break;
  }
}

/// The addresses that a dump has named change places until they are in its order.
void mirror::sort_as_dumped(device& on, ip_family family, mirror_changes& changes) {
  auto& list = family == ip_family::v4 ? on.v4 : on.v6;
  std::vector<std::size_t> places;
  std::vector<std::pair<std::size_t, netlink::address>> named;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto at = named_addresses_.find({list[i].index, list[i].local});
    if (at == named_addresses_.end() || at->second == 0) continue;
    places.push_back(i);
    named.emplace_back(at->second, list[i]);
  }
  const auto position = [](const auto& one) { return one.first; };
  if (std::ranges::is_sorted(named, {}, position)) return;
  std::ranges::sort(named, {}, position);
  for (std::size_t i = 0; i < places.size(); ++i) list[places[i]] = std::move(named[i].second);
  (family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6) = true;
}

void mirror::exchange_with(mirror& shadow) {
  shadow.settings_ = settings_;
  shadow.path_exceptions_ = std::move(path_exceptions_);
  shadow.registrations_ = registrations_;
  for (std::size_t family = 0; family < 2; ++family)
    shadow.rules_[family].added_live |=
        rules_configured(static_cast<ip_family>(family)).value_or(false);
  for (auto& [index, fresh] : shadow.devices_) {
    const mirror::device* known = find_device(index);
    if (known == nullptr) {
      if (!devices_.empty()) fresh.registered = ++shadow.registrations_;
      continue;
    }
    fresh.registered = known->registered;
    fresh.stale_shares = known->stale_shares;
    fresh.renumbered = known->renumbered;
    fresh.localnet_changed = known->localnet_changed;
    fresh.localnet = known->localnet;
  }
  std::swap(*this, shadow);
}

void mirror::forget(object_kind kind, std::optional<ip_family> family) {
  mirror_changes ignored;
  described_.clear();
  for (const ip_family one : {ip_family::v4, ip_family::v6}) {
    if (family && *family != one) continue;
    switch (kind) {
      case object_kind::address:
        for (auto& [index, known_device] : devices_)
          (one == ip_family::v4 ? known_device.v4 : known_device.v6).clear();
        break;
      case object_kind::netconf:
        netconf_[slot(one)].clear();
        break;
      case object_kind::rule:
        rules_[slot(one)].list.clear();
        rules_[slot(one)].generations.clear();
        break;
      case object_kind::route:
        remove_routes_if(
            one, [](const route_entry&) { return true; }, ignored);
        break;
      case object_kind::neighbour:
        std::erase_if(neighbours_,
                      [&](const auto& item) { return item.first.destination.family() == one; });
        break;
      case object_kind::link:
        devices_.clear();
        break;
      case object_kind::nexthop:
        nexthops_.clear();
        break;
      case object_kind::nexthop_bucket:
        for (auto& [id, entry] : nexthops_) std::ranges::fill(entry.buckets, 0);
        break;
    }
  }
}

bool mirror::dismantle(std::size_t count) noexcept {
  for (auto& tables : tables_)
    for (auto& [id, table] : tables) {
      const std::size_t here = std::min(count, table.size());
      table.items_.drop_back(here);  // From the end: nothing is moved.
      count -= here;
      if (!table.empty()) return true;
    }
  for (; count > 0 && !neighbours_.empty(); --count) neighbours_.erase(neighbours_.begin());
  return !neighbours_.empty();
}

}  // namespace cowire

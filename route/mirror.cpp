// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/route/detail/cover.hpp>
#include <cowire/route/detail/vrf.hpp>
#include <cowire/route/egress_choice.hpp>
#include <cowire/route/kernel_quirks.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/rules.hpp>

#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_bonding.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

namespace cowire {
namespace {

using detail::number_of;
constexpr std::size_t number_of(object_kind kind) noexcept {
  return static_cast<std::size_t>(kind);
}

/// Whether an equal route might become other entries afterwards.
bool may_change_entries(const netlink::message& message) noexcept {
  if (const auto* route = std::get_if<netlink::route>(&message))
    return route->type == RTN_LOCAL || route->table == RT_TABLE_LOCAL;
  return !std::holds_alternative<netlink::neighbour>(message);
}

/// netif_oper_up(): an IPv6 route over a device that came up stays dead until then.
bool is_operational(const netlink::link& link) noexcept { return (link.flags & IFF_RUNNING) != 0; }

template <class Map>
std::vector<typename Map::key_type> keys_of_generation_other_than(const Map& map,
                                                                  std::uint32_t generation) {
  std::vector<typename Map::key_type> keys;
  for (const auto& [key, value] : map)
    if (value.generation != generation) keys.push_back(key);
  return keys;
}

}  // namespace

// ----------------------------------------------------------------------------------------------
// look-ups

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

std::vector<ip_address> mirror::groups(ip_family family) const {
  std::vector<ip_address> all;
  for (const auto& [group, devices] : members_)
    if (group.family() == family) all.push_back(group);
  return all;
}

bool mirror::follows_members() const noexcept {
  return settings_.kernel_version >= kernel_quirks::memberships_announced;
}

std::optional<bool> mirror::rules_configured(ip_family family) const noexcept {
  const rule_list& rules = rules_[number_of(family)];
  if (rules.added_live) return true;
  if (!std::ranges::all_of(rules.list, is_initial)) return true;
  // The first one of a namespace adds rules of both families (vrf_newlink() in drivers/net/vrf.c),
  // which who removes has told of.
  if (detail::has_vrfs(*this)) return true;
  // In IPv6 only an addition ever counted.
  const bool removal_counts = family == ip_family::v4 &&
                              settings_.kernel_version < kernel_quirks::removed_rules_do_not_count;
  const bool removed = rules.removed_live || rules.list.size() < initial_rules(family).size();
  if (removal_counts && removed) return true;
  return rules.found_configured;
}

bool mirror::initial_rules_may_count(ip_family family) const noexcept {
  return !rules_configured(family).value_or(false) &&
         rules_[number_of(family)].list.size() < initial_rules(family).size();
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
  const char tag = static_cast<char>('0' + number_of(family));
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
    const auto own = routes_.nexthop_users().find(leaf);
    if (own != routes_.nexthop_users().end() && differs(leaf, own->second)) return true;
    for (const auto& [user, attributes] : routes_.nexthop_users())
      if (differs(user, attributes)) return true;
  }
  return false;
}

// ----------------------------------------------------------------------------------------------
// links

void mirror::apply(const netlink::message& message, mirror_changes& changes,
                   message_origin origin) {
  origin_ = origin;
  if (may_change_entries(message)) routes_.forget_made();
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
         a.info == b.info && a.alias == b.alias && a.bond_slave == b.bond_slave &&
         a.carrier == b.carrier && a.lower_in_other_namespace == b.lower_in_other_namespace &&
         a.transmit_queues == b.transmit_queues;
}

void mirror::apply_one(const netlink::link& message, mirror_changes& changes) {
  if (message.action == netlink::action::remove) {
    remove_device(message.index, changes);
    return;
  }
  const auto [found, fresh] = devices_.take_in(message, origin_);
  device& now = *found;
  if (fresh) {
    unsettle_bond(message.master);
    unsettle_bond(message.index);
    if (named_by_rule(message.name) || message.kind == "vrf" || message.slave_kind == "vrf")
      changes.decisions_v4 = changes.decisions_v6 = true;
    changes.links.push_back(message.index);
    return;
  }
  if (same_link(now.link, message)) return;
  const netlink::link before = std::exchange(now.link, message);
  const bool moved = before.master != message.master;
  if (moved) unsettle_bond(before.master);
  if (moved || negotiates(message.master)) unsettle_bond(message.master);
  if (before.info != message.info || negotiates(message.index)) unsettle_bond(message.index);
  link_state_changed(now, before, changes);
}

/// Whether a bond's active aggregator may change with any event of a slave, and no message tells.
bool mirror::negotiates(std::uint32_t index) const {
  const device* bond = find_device(index);
  const auto* info = bond != nullptr ? std::get_if<netlink::bond_info>(&bond->link.info) : nullptr;
  return info != nullptr && info->mode == BOND_MODE_8023AD;
}

void mirror::unsettle_bond(std::uint32_t index) {
  device* bond = devices_.find(index);
  if (bond == nullptr || !hashes_frames(bond->link)) return;
  bond->slaves.reset();
  unsettled_.insert(index);
}

std::vector<std::uint32_t> mirror::unsettled_bonds() const {
  std::vector<std::uint32_t> found;
  for (const std::uint32_t index : unsettled_) {
    const device* bond = find_device(index);
    if (bond != nullptr && !bond->slaves && hashes_frames(bond->link)) found.push_back(index);
  }
  return found;
}

void mirror::settle_bond(std::uint32_t index, const bond_reading& read, mirror_changes& changes) {
  device* bond = devices_.find(index);
  if (bond == nullptr || !hashes_frames(bond->link)) return;
  const auto is_slave = [&](const auto& item) { return item.second.link.master == index; };
  if (std::cmp_not_equal(std::ranges::count_if(devices(), is_slave), read.slaves.size())) return;
  std::vector<std::uint32_t> order;
  for (const bond_reading::slave& one : read.slaves) {
    device* slave = devices_.find(one.index);
    if (slave == nullptr || slave->link.master != index) return;
    if (slave->link.bond_slave) slave->link.bond_slave->aggregator_id = one.aggregator_id;
    order.push_back(one.index);
  }
  std::get<netlink::bond_info>(bond->link.info).aggregator_id = read.aggregator_id;
  bond->slaves = std::move(order);
  unsettled_.erase(index);
  changes.links.push_back(index);
}

void mirror::link_state_changed(device& now, const netlink::link& before, mirror_changes& changes) {
  const std::uint32_t index = now.link.index;
  const std::uint32_t changed = before.flags ^ now.link.flags;
  changes.links.push_back(index);
  if (before.name != now.link.name && (named_by_rule(before.name) || named_by_rule(now.link.name)))
    changes.decisions_v4 = changes.decisions_v6 = true;
  if (before.group != now.link.group || before.kind != now.link.kind ||
      (now.link.kind == "vrf" && before.info != now.link.info))
    changes.decisions_v4 = changes.decisions_v6 = true;
  if (before.mtu != now.link.mtu) mtu_changed(now, before.mtu, changes);
  if ((changed & IFF_UP) != 0) {
    now.changes_vrf = false;
    if (now.up()) {
      devices_.source_caches_are_void(origin_, changes);
      routes_.revive(index, ip_family::v4, changes);
      if (is_operational(now.link)) routes_.revive(index, ip_family::v6, changes);
    } else {
      routes_.purge_v4(index, detail::route_store::loss::admin_down, changes);
      routes_.purge_v6(index, detail::route_store::loss::admin_down, changes);
      remove_nexthops_on(index, changes);
      // Those that keep_addr_on_down keeps have to be detected anew; of the others a word follows.
      for (netlink::address& own : now.v6)
        if ((own.flags & IFA_F_NODAD) == 0) own.flags |= IFA_F_TENTATIVE;
    }
    changes.decisions_v4 = changes.decisions_v6 = true;
    changes.refresh_advised = true;
  } else if ((changed & (netlink::lower_up | IFF_RUNNING)) != 0 ||
             before.carrier != now.link.carrier) {
    // Nexthop objects die with the carrier and do not come back; routes of their own only turn
    // LINKDOWN.
    if (!detail::has_carrier(now.link)) remove_nexthops_on(index, changes);
    if (now.up() && is_operational(now.link)) routes_.revive(index, ip_family::v6, changes);
    if (std::exchange(now.stale_shares, {}) != decltype(now.stale_shares){})
      changes.decisions_v4 = changes.decisions_v6 = true;
    if (ignores_linkdown(ip_family::v4, index)) changes.decisions_v4 = true;
    if (ignores_linkdown(ip_family::v6, index)) changes.decisions_v6 = true;
    changes.refresh_advised = true;
  }
  if (before.master != now.link.master) {
    now.changes_vrf = now.up() && (detail::is_vrf(*this, before.master) ||
                                   detail::is_vrf(*this, now.link.master));
    routes_.purge_v4(index, detail::route_store::loss::addresses_gone, changes);
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
  const auto change = [&](route_entries::list& entries) {
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
  routes_.edit(ip_family::v6, change, changes);
}

void mirror::remove_device(std::uint32_t index, mirror_changes& changes) {
  const device* const found = find_device(index);
  if (found == nullptr) return;
  unsettle_bond(found->link.master);
  if (!found->v4.empty()) changes.decisions_v4 = true;
  if (!found->v6.empty()) changes.decisions_v6 = true;
  if (named_by_rule(found->link.name) || found->link.kind == "vrf")
    changes.decisions_v4 = changes.decisions_v6 = true;
  devices_.erase(index);
  unsettled_.erase(index);
  changes.links.push_back(index);
  routes_.purge_v4(index, detail::route_store::loss::unregistered, changes);
  routes_.purge_v6(index, detail::route_store::loss::unregistered, changes);
  remove_nexthops_on(index, changes);
  std::erase_if(neighbours_, [&](const auto& item) {
    if (item.first.index != index) return false;
    changes.neighbours.push_back(item.first);
    return true;
  });
  // In its own order the kernel tells of some of them only (net/ipv4/igmp.c, net/ipv6/mcast.c).
  remove_members([index](std::uint32_t on, std::uint32_t) { return on == index; }, changes);
  changes.refresh_advised = true;
}

// ----------------------------------------------------------------------------------------------
// addresses

void mirror::apply_one(const netlink::address& message, mirror_changes& changes) {
  if (message.action == netlink::action::add) devices_.name_address(message, origin_);
  device* const found = devices_.find(message.index);
  if (found == nullptr) return;
  device& on = *found;
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
      // The kernel strips the address from routes that prefer it, without a word; not of those that
      // go with a device (addrconf_ifdown() in net/ipv6/addrconf.c).
      const auto strip = [&](route_entries::list& entries) {
        bool stripped = false;
        for (route_entry& entry : entries) {
          if (entry.route.preferred_source != message.local || !on.up() || on.changes_vrf) continue;
          entry.route.preferred_source.reset();
          stripped = true;
        }
        return stripped;
      };
      routes_.edit(family, strip, changes);
      return;
    }
    on.renumbered = true;
    devices_.source_caches_are_void(origin_, changes);
    if (list.empty()) {
      routes_.purge_v4(message.index, detail::route_store::loss::addresses_gone, changes);
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
      devices_.insert_address(on, message, origin_);
    } else {
      *same = message;
    }
    return;
  }
  // Its place in the list is from before its detection.
  changes.addresses_advised |= origin_ == message_origin::notification && message.local.is_v6() &&
                               (message.flags & IFA_F_NODAD) == 0 && !list.empty();
  devices_.insert_address(on, message, origin_);
  decisions = true;
  if (family == ip_family::v4) devices_.source_caches_are_void(origin_, changes);
  if (origin_ == message_origin::notification && on.up() && family == ip_family::v4)
    routes_.revive(message.index, family, changes);
}

// ----------------------------------------------------------------------------------------------
// routes

void mirror::apply_one(const netlink::route& message, mirror_changes& changes) {
  routes_.apply(message, {devices_, origin_, changes});
}

bool mirror::confirm(const netlink::message& message) {
  const auto* const route = std::get_if<netlink::route>(&message);
  return route != nullptr && routes_.confirm(*route, devices_);
}

// ----------------------------------------------------------------------------------------------
// nexthop objects

void mirror::apply_one(const netlink::nexthop_object& message, mirror_changes& changes) {
  if (message.action == netlink::action::remove) {
    remove_nexthop(message.id, changes);
    return;
  }
  nexthop_entry& entry = nexthops_[message.id];
  entry.generation = generations_[number_of(object_kind::nexthop)];
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
  if (routes_.nexthop_users().contains(id)) {
    const auto gone = [&](const route_entry& entry) { return entry.route.nexthop_id == id; };
    routes_.remove_if(ip_family::v4, gone, changes);
    routes_.remove_if(ip_family::v6, gone, changes);
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
  rule_list& rules = rules_[number_of(message.family)];
  const std::uint32_t generation = generations_[number_of(object_kind::rule)];
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
  found->second.generation = generations_[number_of(object_kind::neighbour)];
  if (!fresh && known.state == message.state && known.link_address == message.link_address) {
    known = message;
    return;
  }
  known = message;
  changes.neighbours.push_back(key);
}

void mirror::apply_one(const netlink::netconf& message, mirror_changes& changes) {
  devices_.apply(message, origin_, changes);
}

void mirror::apply_one(const netlink::membership& message, mirror_changes& changes) {
  if (message.action == netlink::action::remove) {
    const auto group = members_.find(message.group);
    if (group == members_.end() || group->second.erase(message.index) == 0) return;
    if (group->second.empty()) members_.erase(group);
    changes.groups.push_back(message.group);
    return;
  }
  const auto [at, fresh] = members_[message.group].try_emplace(message.index);
  at->second = generations_[number_of(object_kind::membership)];
  if (fresh) changes.groups.push_back(message.group);
}

template <class Gone>
void mirror::remove_members(Gone&& gone, mirror_changes& changes) {
  for (auto at = members_.begin(); at != members_.end();) {
    auto& devices = at->second;
    if (std::erase_if(devices, [&](const auto& one) { return gone(one.first, one.second); }) != 0)
      changes.groups.push_back(at->first);
    at = devices.empty() ? members_.erase(at) : std::next(at);
  }
}

void mirror::set_settings(const mirror_settings& settings, mirror_changes& changes) {
  devices_.set_route_localnet(settings.route_localnet);
  if (settings == settings_) return;
  settings_ = settings;
  changes.decisions_v4 = changes.decisions_v6 = true;
}

void mirror::set_device_order(ip_family family, std::span<const std::uint32_t> order,
                              mirror_changes& changes) {
  if (!devices_.set_order(family, order)) return;
  (family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6) = true;
}

void mirror::set_rules_configured(ip_family family, std::optional<bool> known,
                                  mirror_changes& changes) {
  std::optional<bool>& before = rules_[number_of(family)].found_configured;
  if (std::exchange(before, known) == known) return;
  (family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6) = true;
}

void mirror::set_queues(std::set<std::uint32_t> devices, mirror_changes& changes) {
  constexpr std::string_view kinds[] = {"vrf", "bond", "vlan", "macvlan"};
  const std::set<std::uint32_t> before = std::exchange(queues_, std::move(devices));
  for (const auto& [index, one] : devices_.all())
    if (std::ranges::find(kinds, one.link.kind) != std::end(kinds) &&
        before.contains(index) != queues_.contains(index))
      changes.links.push_back(index);
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
  if (routes_.any_entry(gone)) routes_.remove_if(ip_family::v6, gone, changes);
}

// ----------------------------------------------------------------------------------------------
// refresh, re-sync

void mirror::begin_refresh(object_kind kind) {
  ++generations_[number_of(kind)];
  if (kind == object_kind::link) devices_.begin_link_refresh();
  if (kind == object_kind::address) devices_.begin_address_refresh();
  if (kind == object_kind::route) routes_.begin_refresh();
}

void mirror::end_refresh(object_kind kind, mirror_changes& changes) {
  const std::uint32_t now = generations_[number_of(kind)];
  routes_.forget_made();
  switch (kind) {
    case object_kind::link:
      for (const std::uint32_t index : devices_.unnamed_devices()) remove_device(index, changes);
      break;
    case object_kind::route:
      routes_.sweep(changes);
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
    case object_kind::address:
      for (netlink::address& address : devices_.end_address_refresh(changes)) {
        address.action = netlink::action::remove;
        apply_one(address, changes);
      }
      break;
    case object_kind::membership:
      remove_members([now](std::uint32_t, std::uint32_t named) { return named != now; }, changes);
      break;
    case object_kind::nexthop_bucket:  // Groups take theirs with them,
    case object_kind::netconf:         // and devices theirs.
      break;
  }
}

void mirror::exchange_with(mirror& shadow) {
  shadow.settings_ = settings_;
  shadow.queues_ = queues_;
  shadow.path_exceptions_ = std::move(path_exceptions_);
  for (std::size_t family = 0; family < 2; ++family)
    shadow.rules_[family].added_live |=
        rules_configured(static_cast<ip_family>(family)).value_or(false);
  shadow.devices_.keep_from(devices_);
  std::swap(*this, shadow);
}

void mirror::forget(object_kind kind, std::optional<ip_family> family) {
  mirror_changes ignored;
  routes_.forget_made();
  for (const ip_family one : ip_families) {
    if (family && *family != one) continue;
    switch (kind) {
      case object_kind::address:
        devices_.forget_addresses(one);
        break;
      case object_kind::netconf:
        devices_.forget_netconf(one);
        break;
      case object_kind::rule:
        rules_[number_of(one)].list.clear();
        rules_[number_of(one)].generations.clear();
        break;
      case object_kind::route:
        routes_.remove_if(
            one, [](const route_entry&) { return true; }, ignored);
        break;
      case object_kind::neighbour:
        std::erase_if(neighbours_,
                      [&](const auto& item) { return item.first.destination.family() == one; });
        break;
      case object_kind::link:
        devices_.forget_devices();
        break;
      case object_kind::membership:
        std::erase_if(members_, [&](const auto& item) { return item.first.family() == one; });
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
  if (routes_.dismantle(count)) return true;
  for (; count > 0 && !neighbours_.empty(); --count) neighbours_.erase(neighbours_.begin());
  return !neighbours_.empty();
}

}  // namespace cowire

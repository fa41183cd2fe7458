// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/mirror_comparison.hpp>

#include <linux/if.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <limits>
#include <ranges>
#include <tuple>

namespace cowire {
namespace {

const route_entries& entries_in(const mirror& in, const mirror_changes::prefix& where) {
  static const route_entries none;
  const route_table* const table = in.find_table(where.destination.family(), where.table);
  const route_entries* const found = table != nullptr ? table->find(where.destination) : nullptr;
  return found != nullptr ? *found : none;
}

/// What a decision can depend on; the rest of an entry is bookkeeping.
bool same_entry(const route_entry& x, const route_entry& y) {
  if (x.route == y.route) return true;
  netlink::route other = y.route;
  other.expires_s = x.route.expires_s;
  other.flags = x.route.flags;  // The hops have flags of their own.
  return x.route == other;
}

bool same_entries(const route_entries& a, const route_entries& b) {
  return std::ranges::equal(a, b, same_entry);
}

/// Whether no message could have told the two apart; `left` and `right` have them.
bool told_alike(const mirror& left, const mirror& right, const route_entry& x,
                const route_entry& y) {
  const auto as_told = [&](const route_entry& entry) {
    netlink::route told = entry.route;
    told.expires_s.reset();
    told.flags = 0;                                    // The hops have flags of their own.
    if (told.nexthop_id != 0) told.next_hops.clear();  // They are the object's.
    for (netlink::next_hop& hop : told.next_hops) {
      if (told.next_hops.size() == 1) hop.weight = 1;
      const ip_family family = told.destination.family();
      if (left.shows_all_dead(family, hop.index) || right.shows_all_dead(family, hop.index))
        hop.flags &= ~static_cast<std::uint32_t>(RTNH_F_DEAD);
    }
    return told;
  };
  return as_told(x) == as_told(y);
}

bool told_alike(const mirror& left, const mirror& right, const route_entries& x,
                const route_entries& y) {
  auto l = x.begin(), r = y.begin();
  while (l != x.end() || r != y.end()) {
    if (l != x.end() && r != y.end() && told_alike(left, right, *l, *r))
      ++l, ++r;
    else if (l != x.end() && may_be_left_out(*l, x.get()))
      ++l;
    else if (r != y.end() && may_be_left_out(*r, y.get()))
      ++r;
    else
      return false;
  }
  return true;
}

bool same_object(const netlink::neighbour& a, const netlink::neighbour& b) {
  return a.state == b.state && a.link_address == b.link_address;
}

/// Whether the kernel goes from one state to the other without a word (net/core/neighbour.c): at
/// the first use of an entry, for the fixed entries of multicast and broadcast destinations, and
/// for those that an IPv6 redirect makes of a router that was not known (rt6_do_redirect in
/// net/ipv6/route.c).
bool may_differ_unannounced(const netlink::neighbour* from, const netlink::neighbour* to) {
  if (to == nullptr) return false;
  switch (to->state) {
    case NUD_NONE:
    case NUD_NOARP:
      return from == nullptr;
    case NUD_INCOMPLETE:
      return from == nullptr || from->state == NUD_NONE || from->state == NUD_FAILED;
    case NUD_DELAY:
      return from != nullptr && (from->state == NUD_STALE || from->state == NUD_REACHABLE) &&
             from->link_address == to->link_address;
    default:
      return false;
  }
}

bool same_address(const netlink::address& a, const netlink::address& b) {
  return a.local == b.local && a.peer == b.peer && a.prefix_length == b.prefix_length &&
         a.flags == b.flags && a.scope == b.scope;
}

/// What becomes of the carrier of a device that is down nobody is told (linkwatch_do_dev() in
/// net/core/link_watch.c), and it matters to nobody before the device comes up, which is told.
netlink::link without_carrier(netlink::link link) {
  link.flags &= ~(std::uint32_t{IFF_RUNNING} | netlink::lower_up | netlink::dormant);
  link.carrier = false;
  return link;
}

/// Which aggregator of an 802.3ad bond is in use, and that of a port that falls back to its own,
/// change without a message (drivers/net/bonding/bond_3ad.c).
netlink::link without_aggregators(netlink::link link) {
  if (auto* const bond = std::get_if<netlink::bond_info>(&link.info)) bond->aggregator_id = 0;
  if (link.bond_slave) link.bond_slave->aggregator_id = 0;
  return link;
}

/// Of the addresses that can be sent from.
bool told_alike(const std::vector<netlink::address>& x, const std::vector<netlink::address>& y) {
  const auto usable = [](const netlink::address& address) { return !is_in_detection(address); };
  return std::ranges::equal(x | std::views::filter(usable), y | std::views::filter(usable),
                            same_address);
}

/// Calls differs(key) for each key whose values are not equal, or that only one map has.
template <class Map, class Same, class Differs>
void compare_maps(const Map& a, const Map& b, Same&& same, Differs&& differs) {
  for (const auto& [key, value] : a) {
    const auto other = b.find(key);
    if (other == b.end() || !same(value, other->second)) differs(key);
  }
  for (const auto& [key, value] : b)
    if (!a.contains(key)) differs(key);
}

}  // namespace

// ----------------------------------------------------------------------------------------------
// routes

bool mirror_comparison::advance(std::size_t count) {
  if (walk(count)) return true;
  for (; count > 0 && !changed_.empty(); --count) {
    if (differs_at(changed_.back())) differing_.push_back(changed_.back());
    changed_.pop_back();
  }
  return !changed_.empty();
}

void mirror_comparison::note(const mirror_changes& changes) {
  changed_.insert(changed_.end(), changes.routes.begin(), changes.routes.end());
}

/// The first table behind `table_` in the family that the walk is at.
std::optional<std::uint32_t> mirror_comparison::next_table() const {
  std::optional<std::uint32_t> first;
  for (const mirror* one : {&left_, &right_}) {
    const auto& tables = one->tables(ip_families[family_]);
    const auto at = table_ ? tables.upper_bound(*table_) : tables.begin();
    if (at != tables.end() && (!first || at->first < *first)) first = at->first;
  }
  return first;
}

/// Goes on along both mirrors' tables at once; false at the end.
bool mirror_comparison::walk(std::size_t& count) {
  static const route_table none;
  for (; family_ < std::size(ip_families); ++family_, table_.reset(), last_.reset()) {
    if (!table_) table_ = next_table();
    for (; table_; table_ = next_table(), last_.reset()) {
      const route_table* const a = left_.find_table(ip_families[family_], *table_);
      const route_table* const b = right_.find_table(ip_families[family_], *table_);
      const route_table &left = a != nullptr ? *a : none, &right = b != nullptr ? *b : none;
      auto l = last_ ? left.upper_bound(*last_) : left.begin();
      auto r = last_ ? right.upper_bound(*last_) : right.begin();
      for (; l != left.end() || r != right.end(); --count) {
        if (count == 0) return true;
        const bool in_left = l != left.end() && (r == right.end() || l->first <= r->first);
        const bool in_right = r != right.end() && (l == left.end() || r->first <= l->first);
        last_ = in_left ? l->first : r->first;
        if (!in_left || !in_right || !same_entries(l->second, r->second))
          differing_.push_back({*table_, *last_});
        if (in_left) ++l;
        if (in_right) ++r;
      }
    }
  }
  return false;
}

bool mirror_comparison::differs_at(const place& where) const {
  return !same_entries(entries_in(left_, where), entries_in(right_, where));
}

// ----------------------------------------------------------------------------------------------
// results

/// Where both are down, whatever their carriers.
bool mirror_comparison::same_link(const netlink::link& a, const netlink::link& b) {
  const bool both_down = ((a.flags | b.flags) & IFF_UP) == 0;
  return mirror::same_link(a, b) ||
         (both_down && mirror::same_link(without_carrier(a), without_carrier(b)));
}

/// Tells `report` each object that the two do not agree on.
template <class Report>
void mirror_comparison::compare(Report&& report) const {
  compare_maps(
      left_.devices(), right_.devices(),
      [](const auto& a, const auto& b) { return same_link(a.link, b.link); },
      [&](std::uint32_t index) { report.link(index); });
  compare_maps(
      left_.devices(), right_.devices(),
      [](const auto& a, const auto& b) {
        return std::ranges::equal(a.v4, b.v4, same_address) &&
               std::ranges::equal(a.v6, b.v6, same_address);
      },
      [&](std::uint32_t index) { report.addresses(index); });
  for (const ip_family family : ip_families) {
    if (left_.rules(family) != right_.rules(family)) report.rules(family);
    compare_maps(
        left_.devices_.netconf(family), right_.devices_.netconf(family),
        [](const auto& a, const auto& b) {
          return a.forwarding == b.forwarding && a.ignore_linkdown == b.ignore_linkdown &&
                 a.multicast_forwarding == b.multicast_forwarding;
        },
        [&](std::int32_t index) { report.netconf(family, index); });
  }
  const auto key = [](const place& one) { return std::tie(one.table, one.destination); };
  std::vector<place> routes = differing_;
  std::ranges::sort(routes, {}, key);
  const auto repeated = std::ranges::unique(routes, {}, key);
  routes.erase(repeated.begin(), repeated.end());
  for (const place& one : routes)
    if (differs_at(one)) report.route(one);
  compare_maps(
      left_.nexthops_, right_.nexthops_,
      [](const auto& a, const auto& b) { return a.object == b.object && a.buckets == b.buckets; },
      [&](std::uint32_t id) { report.nexthop(id); });
  compare_maps(
      left_.neighbours_, right_.neighbours_,
      [](const auto& a, const auto& b) { return same_object(a.neighbour, b.neighbour); },
      [&](const neighbour_key& one) { report.neighbour(one); });
  compare_maps(
      left_.members_, right_.members_,
      [](const auto& a, const auto& b) {
        return std::ranges::equal(a | std::views::keys, b | std::views::keys);
      },
      [&](const ip_address& group) { report.group(group); });
}

void mirror_comparison::add_to(mirror_changes& changes) const {
  struct adding {
    mirror_changes& changes;
    void link(std::uint32_t index) {
      changes.links.push_back(index);
      changes.decisions_v4 = changes.decisions_v6 = true;
    }
    void addresses(std::uint32_t) { changes.decisions_v4 = changes.decisions_v6 = true; }
    void decisions(ip_family family) {
      (family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6) = true;
    }
    void rules(ip_family family) { decisions(family); }
    void route(const place& where) { changes.routes.push_back(where); }
    void netconf(ip_family family, std::int32_t) { decisions(family); }
    void nexthop(std::uint32_t id) { changes.nexthops.push_back(id); }
    void neighbour(const neighbour_key& key) { changes.neighbours.push_back(key); }
    void group(const ip_address& one) { changes.groups.push_back(one); }
  };
  compare(adding{changes});
}

std::vector<std::string> mirror_comparison::describe() const {
  struct describing {
    const mirror &left, &right;
    std::vector<std::string>& lines;
    void link(std::uint32_t index) {
      const auto* in_left = left.find_device(index);
      const auto* in_right = right.find_device(index);
      if (in_left != nullptr && in_right != nullptr &&
          same_link(without_aggregators(in_left->link), without_aggregators(in_right->link)))
        return;
      lines.push_back("link " + std::to_string(index));
    }
    void addresses(std::uint32_t index) {
      const auto* in_left = left.find_device(index);
      const auto* in_right = right.find_device(index);
      if (in_left != nullptr && in_right != nullptr && told_alike(in_left->v4, in_right->v4) &&
          told_alike(in_left->v6, in_right->v6))
        return;
      lines.push_back("addresses of link " + std::to_string(index));
    }
    void rules(ip_family family) {
      lines.push_back(family == ip_family::v4 ? "IPv4 rules" : "IPv6 rules");
    }
    void route(const place& where) {
      if (told_alike(left, right, entries_in(left, where), entries_in(right, where))) return;
      lines.push_back("route " + where.destination.to_string() + " table " +
                      std::to_string(where.table));
    }
    void netconf(ip_family, std::int32_t index) {
      lines.push_back("netconf " + std::to_string(index));
    }
    void nexthop(std::uint32_t id) { lines.push_back("nexthop " + std::to_string(id)); }
    void neighbour(const neighbour_key& key) {
      const auto* in_left = left.find_neighbour(key.index, key.destination);
      const auto* in_right = right.find_neighbour(key.index, key.destination);
      if (may_differ_unannounced(in_left, in_right) || may_differ_unannounced(in_right, in_left))
        return;
      lines.push_back("neighbour " + key.destination.to_string() + " on link " +
                      std::to_string(key.index));
    }
    void group(const ip_address& one) {
      // Before that, dumps are all that is heard of them.
      if (left.follows_members()) lines.push_back("members of " + one.to_string());
    }
  };
  std::vector<std::string> lines;
  compare(describing{left_, right_, lines});
  return lines;
}

std::vector<std::string> difference(const mirror& left, const mirror& right) {
  mirror_comparison found(left, right);
  while (found.advance(std::numeric_limits<std::size_t>::max())) continue;
  return found.describe();
}

}  // namespace cowire

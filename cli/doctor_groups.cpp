// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/doctor_groups.hpp>

#include <linux/rtnetlink.h>

#include <map>
#include <string>
#include <tuple>

namespace cowire::cli {
namespace {

finding examine_members(const mirror& state) {
  std::string routed;
  for (const auto& [index, device] : state.devices())
    if (state.routes_multicast(ip_family::v4, index) ||
        state.routes_multicast(ip_family::v6, index))
      routed += (routed.empty() ? "" : ", ") + device.link.name;
  if (!state.follows_members())
    return {"multicast", health::warn, "members are not announced",
            "the kernel path, slower, takes what is sent to groups (multicast_members_unknown)",
            "Linux 6.18 or later; or senders without copies for this host: --no-multicast-loop"};
  if (!routed.empty())
    return {"multicast", health::warn, "routed by this host on " + routed,
            "the kernel path, slower, takes what is sent to groups there (multicast_routing)",
            "senders without copies for this host: --no-multicast-loop"};
  return {"multicast", health::ok, "members are announced",
          "the fast path sends to groups that nobody on this host has joined", ""};
}

/// The nexthop objects that a route leads over, groups expanded.
std::vector<std::uint32_t> objects_of(const mirror& state, const netlink::route& route) {
  std::vector<std::uint32_t> all;
  const auto* const object = state.find_nexthop(route.nexthop_id);
  if (object == nullptr) return all;
  for (const auto& member : object->group) all.push_back(member.id);
  if (all.empty()) all.push_back(object->id);
  return all;
}

/// What of two routes has to be equal for the kernel to keep one fib_info for both
/// (fib_find_info() in net/ipv4/fib_semantics.c).
netlink::route shared_part(netlink::route route) {
  route.destination = {};
  route.placement = {};
  route.tos = 0;
  route.flags = 0;
  for (netlink::next_hop& hop : route.next_hops) hop.flags &= RTNH_F_ONLINK;
  return route;
}

/// A group's route, and what it shares its memory with.
struct group_route {
  ip_prefix to;
  netlink::route shared{};
  std::vector<std::uint32_t> objects{};
  ip_prefix first{};      ///< A destination that is in danger.
  std::size_t count = 0;  ///< How many are.
};

class shared_routes {
 public:
  explicit shared_routes(const mirror& state) : state_(state) {
    // Shorter prefixes lend a group their device, and are not remembered (__mkroute_output() in
    // net/ipv4/route.c).
    for_each([&](const ip_prefix& to, const netlink::route& route) {
      if (!to.address().is_multicast() || to.length() < 4) return;
      if (route.nexthop_id == 0 && route.type != RTN_UNICAST) return;
      groups_.push_back({to, shared_part(route), objects_of(state_, route)});
    });
    for (group_route& group : groups_) {
      if (group.objects.empty()) by_metric_[key_of(group.shared)].push_back(&group);
      for (const std::uint32_t id : group.objects) by_object_[id].push_back(&group);
    }
    if (groups_.empty()) return;
    for_each([&](const ip_prefix& to, const netlink::route& route) {
      if (route.type != RTN_UNICAST || (to.address().is_multicast() && to.length() >= 4)) return;
      for (const std::uint32_t id : objects_of(state_, route))
        for (group_route* group : by_object_[id]) count(*group, to);
      if (route.nexthop_id != 0) return;
      const auto alike = by_metric_.find(key_of(route));
      if (alike == by_metric_.end()) return;
      for (group_route* group : alike->second)
        if (group->shared == shared_part(route)) count(*group, to);
    });
  }
  [[nodiscard]] const std::vector<group_route>& groups() const noexcept { return groups_; }

 private:
  using key = std::tuple<std::uint32_t, std::uint32_t, std::uint8_t>;
  static key key_of(const netlink::route& route) {
    return {route.table, route.priority, route.protocol};
  }
  static void count(group_route& group, const ip_prefix& to) {
    if (group.count++ == 0) group.first = to;
  }
  template <class Use>
  void for_each(Use&& use) const {
    for (const auto& [id, prefixes] : state_.tables(ip_family::v4))
      for (const auto& [prefix, entries] : prefixes)
        for (const auto& entry : entries) use(prefix, entry.route);
  }

  const mirror& state_;
  std::vector<group_route> groups_;
  std::map<key, std::vector<group_route*>> by_metric_;
  std::map<std::uint32_t, std::vector<group_route*>> by_object_;
};

finding warn_of(const group_route& group) {
  std::string value = "shares its next hop with " + group.first.to_string();
  if (group.count > 1) value += " and " + std::to_string(group.count - 1) + " more";
  return {"group route " + group.to.to_string(), health::warn, value,
          "the kernel remembers one answer for all of them, on each CPU: once somebody sends to "
          "the group, or asks for its route, others' datagrams to hosts leave with TTL 1, and "
          "those to the group with TTL 64 where a host was first",
          group.objects.empty() ? "give the group's route a metric of its own (`ip route add " +
                                      group.to.to_string() + " ... metric N`)"
                                : "give the group's route a nexthop object of its own"};
}

}  // namespace

std::vector<finding> examine_groups(const mirror& state) {
  std::vector<finding> out{examine_members(state)};
  const shared_routes known(state);
  for (const group_route& group : known.groups())
    if (group.count != 0) out.push_back(warn_of(group));
  return out;
}

}  // namespace cowire::cli

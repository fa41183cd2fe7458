// SPDX-License-Identifier: Apache-2.0
/// What the mirror derives from messages: the kernel's silent changes, the order of its lists,
/// re-synchronisation.
#include "world.hpp"

#include <cowire/route/mirror_comparison.hpp>

#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_bonding.h>
#include <linux/neighbour.h>
#include <linux/netconf.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <initializer_list>

namespace cowire {
namespace {

using namespace cowire::testing;

class Mirror : public ::testing::Test {
 protected:
  void apply(const netlink::message& message) {
    state.apply(message, changes, message_origin::notification);
  }
  [[nodiscard]] bool has(const char* prefix, std::uint32_t table = RT_TABLE_MAIN) const {
    const ip_prefix key = net(prefix);
    const route_table* routes = state.find_table(key.family(), table);
    return routes != nullptr && routes->contains(key);
  }
  [[nodiscard]] const route_entries& entries(const char* prefix) const {
    const ip_prefix key = net(prefix);
    return *state.find_table(key.family(), RT_TABLE_MAIN)->find(key);
  }
  [[nodiscard]] bool dead(const char* prefix, std::size_t hop) const {
    return (entries(prefix).front().route.next_hops.at(hop).flags & RTNH_F_DEAD) != 0;
  }
  void set_link(std::uint32_t index, bool up, bool carrier) {
    netlink::link link = state.find_device(index)->link;
    link.flags &= ~static_cast<unsigned>(IFF_UP | IFF_RUNNING);
    if (up) link.flags |= IFF_UP;
    if (up && carrier) link.flags |= IFF_RUNNING;
    link.carrier = carrier;
    apply(link);
  }
  void add_multipath(const char* prefix, std::vector<std::uint32_t> devices) {
    const bool v4 = net(prefix).family() == ip_family::v4;
    netlink::route made = route_on(net(prefix), devices.front());
    made.next_hops.clear();
    for (const std::uint32_t index : devices) {
      const std::string n = std::to_string(index);
      made.next_hops.push_back(
          {index, ip((v4 ? "10." + n + ".0.2" : "fd00:" + n + "::2").c_str()), 1, 0, false});
    }
    apply(added(made));
  }
  void add_nexthop(std::uint32_t id, std::uint32_t index) {
    netlink::nexthop_object object;
    object.id = id;
    object.index = index;
    object.gateway = ip(("10." + std::to_string(index) + ".0.2").c_str());
    apply(object);
  }
  void add_group(std::uint32_t id, std::vector<std::uint32_t> members) {
    netlink::nexthop_object object;
    object.id = id;
    object.family_unspecified = true;
    for (const std::uint32_t member : members) object.group.push_back({member, 1});
    apply(object);
  }
  void add_object_route(const char* prefix, std::uint32_t id) {
    netlink::route made = route_on(net(prefix), 0);
    made.next_hops.clear();
    made.nexthop_id = id;
    apply(added(made));
  }

  mirror state = small_world();
  mirror_changes changes;
};

TEST_F(Mirror, AdminDownTakesSinglePathRoutesOfEveryTable) {
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2)));
  apply(added(route_via(net("21.0.0.0/8"), "10.2.0.2", 2, 100)));
  apply(added(route_via(net("22.0.0.0/8"), "10.3.0.2", 3)));
  set_link(2, false, false);
  EXPECT_FALSE(has("20.0.0.0/8"));
  EXPECT_FALSE(has("21.0.0.0/8", 100));
  EXPECT_FALSE(has("10.2.0.0/24"));
  EXPECT_TRUE(has("22.0.0.0/8"));
  EXPECT_TRUE(has("10.2.0.1/32", RT_TABLE_LOCAL));  // The address stays local.
  EXPECT_TRUE(changes.refresh_advised);
}

TEST_F(Mirror, AdminDownMarksMultipathMembersDeadAndUpRevivesThem) {
  add_multipath("20.0.0.0/8", {2, 3});
  set_link(2, false, false);
  EXPECT_TRUE(dead("20.0.0.0/8", 0));
  EXPECT_FALSE(dead("20.0.0.0/8", 1));
  set_link(2, true, true);
  EXPECT_FALSE(dead("20.0.0.0/8", 0));
}

TEST_F(Mirror, Ipv6MembersStayDeadUntilTheirDeviceIsOperational) {
  add_multipath("2001:db8::/32", {2, 3});
  set_link(2, false, false);
  EXPECT_TRUE(dead("2001:db8::/32", 0));
  set_link(2, true, false);
  EXPECT_TRUE(dead("2001:db8::/32", 0));
  set_link(2, true, true);
  EXPECT_FALSE(dead("2001:db8::/32", 0));
}

TEST_F(Mirror, MultipathRouteGoesWithItsLastLiveMember) {
  for (const char* prefix : {"20.0.0.0/8", "2001:db8::/32"}) {
    add_multipath(prefix, {2, 3});
    set_link(2, false, false);
    EXPECT_TRUE(has(prefix));
    set_link(3, false, false);
    EXPECT_FALSE(has(prefix));
    set_link(2, true, true);
    set_link(3, true, true);
  }
}

TEST_F(Mirror, CarrierLossKeepsRoutesButTakesNexthopObjects) {
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2)));
  add_nexthop(1, 2);
  add_nexthop(2, 3);
  add_group(10, {1, 2});
  add_object_route("21.0.0.0/8", 1);
  add_object_route("22.0.0.0/8", 10);
  set_link(2, true, false);
  EXPECT_TRUE(has("20.0.0.0/8"));
  EXPECT_EQ(state.find_nexthop(1), nullptr);
  EXPECT_FALSE(has("21.0.0.0/8"));
  ASSERT_NE(state.find_nexthop(10), nullptr);
  EXPECT_EQ(state.find_nexthop(10)->group.size(), 1u);
  EXPECT_TRUE(has("22.0.0.0/8"));
  set_link(3, true, false);
  EXPECT_EQ(state.find_nexthop(10), nullptr);
  EXPECT_FALSE(has("22.0.0.0/8"));
}

TEST_F(Mirror, ChangeOfAResilientGroupAdvisesToReadItsBuckets) {
  add_nexthop(1, 2);
  add_nexthop(2, 3);
  EXPECT_FALSE(changes.buckets_advised);
  netlink::nexthop_object group;
  group.id = 10;
  group.family_unspecified = true;
  group.group = {{1, 1}, {2, 1}};
  group.group_type = 1;
  group.resilient_buckets = 4;
  apply(group);
  EXPECT_TRUE(changes.buckets_advised);
  for (std::uint16_t i = 0; i < 4; ++i)
    apply(netlink::nexthop_bucket{.group = 10, .index = i, .member = 1u + i % 2});
  apply(netlink::nexthop_bucket{.group = 10, .index = 4, .member = 1});  // There is no such one.
  apply(netlink::nexthop_bucket{.group = 99, .index = 0, .member = 1});
  const std::vector<std::uint32_t> dealt{1, 2, 1, 2};
  EXPECT_TRUE(std::ranges::equal(state.buckets_of(10), dealt));

  changes = {};
  state.apply(group, changes, message_origin::dump);  // Says nothing new.
  EXPECT_FALSE(changes.buckets_advised);
  apply(group);  // The kernel moves what is idle whenever the group is replaced.
  EXPECT_TRUE(changes.buckets_advised);
  EXPECT_TRUE(changes.empty());
  EXPECT_TRUE(std::ranges::equal(state.buckets_of(10), dealt));

  changes = {};
  set_link(3, false, false);
  EXPECT_TRUE(changes.buckets_advised);
  EXPECT_EQ(state.find_nexthop(10)->group.size(), 1u);

  const mirror before = state;
  apply(netlink::nexthop_bucket{.group = 10, .index = 1, .member = 1});
  EXPECT_EQ(difference(before, state), std::vector<std::string>{"nexthop 10"});
}

TEST_F(Mirror, NexthopDeletionTakesItsRoutes) {
  add_nexthop(1, 2);
  add_object_route("21.0.0.0/8", 1);
  netlink::nexthop_object gone;
  gone.id = 1;
  gone.action = netlink::action::remove;
  apply(gone);
  EXPECT_FALSE(has("21.0.0.0/8"));
}

TEST_F(Mirror, LastAddressTakesTheRoutesOfItsDevice) {
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2)));
  add_multipath("21.0.0.0/8", {2, 3});
  apply(removal(address(2, "10.2.0.1", 24)));
  EXPECT_FALSE(has("20.0.0.0/8"));
  EXPECT_TRUE(dead("21.0.0.0/8", 0));
  apply(address(2, "10.2.0.9", 24));
  EXPECT_FALSE(dead("21.0.0.0/8", 0));
}

TEST_F(Mirror, BothEndsOfANewPairKnowTheirPeer) {
  netlink::link first = ethernet(21, "p3"), second = ethernet(22, "w3");
  first.kind = second.kind = "veth";
  second.lower = 21;  // The first was announced before there was a second.
  apply(first);
  apply(second);
  EXPECT_EQ(state.find_device(21)->link.lower, 22u);
  EXPECT_EQ(state.find_device(22)->link.lower, 21u);
}

TEST_F(Mirror, DeletedDeviceTakesEverythingOnIt) {
  add_multipath("20.0.0.0/8", {2, 3});
  add_multipath("2001:db8::/32", {2, 3});
  add_nexthop(1, 2);
  apply(neighbour(2, ip("10.2.0.2")));
  apply(removal(ethernet(2, "u2")));
  EXPECT_FALSE(has("20.0.0.0/8"));  // IPv4: entirely.
  EXPECT_EQ(entries("2001:db8::/32").front().route.next_hops.size(), 1u);
  EXPECT_EQ(state.find_nexthop(1), nullptr);
  EXPECT_EQ(state.find_neighbour(2, ip("10.2.0.2")), nullptr);
  EXPECT_EQ(state.find_device(2), nullptr);
}

TEST_F(Mirror, RemovedIpv6AddressIsStrippedFromRoutesThatPreferIt) {
  netlink::route made = route_via(net("2001:db8::/32"), "fd00:3::2", 3);
  made.preferred_source = ip("fd00:2::1");
  apply(added(made));
  apply(removal(address(2, "fd00:2::1", 64)));
  EXPECT_FALSE(entries("2001:db8::/32").front().route.preferred_source.has_value());
}

TEST_F(Mirror, LateAnnouncementOfDerivedRemovalChangesNothing) {
  const netlink::route made = route_via(net("20.0.0.0/8"), "10.2.0.2", 2);
  apply(added(made));
  set_link(2, false, false);
  set_link(2, true, true);
  apply(added(route_via(net("20.0.0.0/8"), "10.3.0.2", 3)));
  apply(removal(made));
  EXPECT_TRUE(has("20.0.0.0/8"));
}

TEST_F(Mirror, Ipv4AliasesStandInKernelOrder) {
  const auto make = [](const char* gateway, std::uint8_t tos, std::uint32_t metric) {
    netlink::route made = route_via(net("20.0.0.0/8"), gateway, 2);
    made.tos = tos;
    made.priority = metric;
    return made;
  };
  apply(added(make("10.2.0.2", 0, 5)));
  apply(added(make("10.2.0.3", 0, 1)));
  apply(added(make("10.2.0.4", 0x10, 9)));
  apply(appended(make("10.2.0.5", 0, 1)));
  netlink::route first = make("10.2.0.6", 0, 1);
  first.placement.create = true;  // prepend
  apply(first);
  std::vector<std::string> order;
  for (const route_entry& entry : entries("20.0.0.0/8"))
    order.push_back(entry.route.next_hops.front().gateway->to_string());
  EXPECT_EQ(order,
            (std::vector<std::string>{"10.2.0.4", "10.2.0.6", "10.2.0.3", "10.2.0.5", "10.2.0.2"}));
}

TEST_F(Mirror, Ipv4AliasesMayDifferInMetricsAlone) {
  netlink::route narrow = route_via(net("20.0.0.0/8"), "10.2.0.2", 2);
  narrow.metrics.mtu = 1300;
  apply(added(narrow));
  apply(appended(route_via(net("20.0.0.0/8"), "10.2.0.2", 2)));
  ASSERT_EQ(entries("20.0.0.0/8").size(), 2u);
  narrow.action = netlink::action::remove;
  apply(narrow);
  ASSERT_EQ(entries("20.0.0.0/8").size(), 1u);
  EXPECT_EQ(entries("20.0.0.0/8")[0].route.metrics.mtu, 0u);
}

TEST_F(Mirror, ReplaceTakesThePlaceOfTheFirstOfItsGroupOnly) {
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2)));
  apply(appended(route_via(net("20.0.0.0/8"), "10.2.0.3", 2)));
  apply(replacing(route_via(net("20.0.0.0/8"), "10.3.0.4", 3)));
  ASSERT_EQ(entries("20.0.0.0/8").size(), 2u);
  EXPECT_EQ(entries("20.0.0.0/8")[0].route.next_hops.front().gateway, ip("10.3.0.4"));
  EXPECT_EQ(entries("20.0.0.0/8")[1].route.next_hops.front().gateway, ip("10.2.0.3"));
}

TEST_F(Mirror, RouteSaidAgainForItsNexthopObjectReplacesNothing) {
  for (const char* prefix : {"20.0.0.0/8", "2001:db8::/32"}) {
    const bool v4 = net(prefix).family() == ip_family::v4;
    netlink::route over_object = route_on(net(prefix), 2);
    over_object.scope = RT_SCOPE_UNIVERSE;
    over_object.next_hops.clear();
    over_object.nexthop_id = 7;
    apply(added(route_via(net(prefix), v4 ? "10.2.0.2" : "fd00:2::2", 2)));
    apply(appended(over_object));
    ASSERT_EQ(entries(prefix).size(), 2u);
    // `ip nexthop replace id 7 ...`
    apply(replacing(over_object));
    ASSERT_EQ(entries(prefix).size(), 2u) << prefix;
    EXPECT_EQ(entries(prefix)[0].route.nexthop_id, 0u) << prefix;
    EXPECT_EQ(entries(prefix)[1].route.nexthop_id, 7u) << prefix;
  }
}

TEST_F(Mirror, Ipv6SiblingAppendedFirstInItsMessageStandsLast) {
  apply(added(route_via(net("2001:db8::/32"), "fd00:2::2", 2)));
  netlink::route grown = route_via(net("2001:db8::/32"), "fd00:3::2", 3);
  grown.next_hops.push_back({2, ip("fd00:2::2"), 1, 0, false});
  apply(appended(grown));
  ASSERT_EQ(entries("2001:db8::/32").size(), 1u);
  const auto& hops = entries("2001:db8::/32").front().route.next_hops;
  ASSERT_EQ(hops.size(), 2u);
  EXPECT_EQ(hops[0].index, 2u);
  EXPECT_EQ(hops[1].index, 3u);
  EXPECT_FALSE(entries("2001:db8::/32").front().mixed_siblings);
}

TEST_F(Mirror, Ipv6SiblingWithOtherAttributesIsMarked) {
  apply(added(route_via(net("2001:db8::/32"), "fd00:2::2", 2)));
  netlink::route grown = route_via(net("2001:db8::/32"), "fd00:3::2", 3);
  grown.metrics.mtu = 1300;
  grown.next_hops.push_back({2, ip("fd00:2::2"), 1, 0, false});
  apply(appended(grown));
  EXPECT_TRUE(entries("2001:db8::/32").front().mixed_siblings);
}

TEST_F(Mirror, SeveralIpv6SiblingsAppendedAtOnceHideTheirAttributes) {
  apply(added(route_via(net("2001:db8::/32"), "fd00:2::2", 2)));
  netlink::route grown = route_via(net("2001:db8::/32"), "fd00:2::2", 2);
  grown.next_hops.push_back({3, ip("fd00:3::2"), 1, 0, false});
  grown.next_hops.push_back({4, ip("fd00:4::2"), 1, 0, false});
  apply(appended(grown));
  EXPECT_EQ(entries("2001:db8::/32").front().route.next_hops.size(), 3u);
  EXPECT_TRUE(entries("2001:db8::/32").front().mixed_siblings);
}

TEST_F(Mirror, AddressesStandInKernelOrder) {
  netlink::address narrow = address(2, "10.2.9.1", 24);
  narrow.scope = RT_SCOPE_LINK;
  apply(narrow);
  netlink::address secondary = address(2, "10.2.0.7", 24);
  secondary.flags |= IFA_F_SECONDARY;
  apply(secondary);
  apply(address(2, "10.2.8.1", 24));
  std::vector<std::string> v4, v6;
  for (const auto& own : state.find_device(2)->v4) v4.push_back(own.local.to_string());
  EXPECT_EQ(v4, (std::vector<std::string>{"10.2.9.1", "10.2.0.1", "10.2.8.1", "10.2.0.7"}));
  apply(address(2, "fd00:2::9", 64));
  for (const auto& own : state.find_device(2)->v6) v6.push_back(own.local.to_string());
  EXPECT_EQ(v6, (std::vector<std::string>{"fd00:2::9", "fd00:2::1"}));  // Newest first.
}

TEST_F(Mirror, RulesOfEqualPriorityStandInOrderOfInsertion) {
  apply(rule_to_table(ip_family::v4, 50, 101));
  apply(rule_to_table(ip_family::v4, 50, 100));
  apply(rule_to_table(ip_family::v4, 40, 102));
  std::vector<std::uint32_t> tables;
  for (const auto& rule : state.rules(ip_family::v4)) tables.push_back(rule.table);
  EXPECT_EQ(tables, (std::vector<std::uint32_t>{255, 102, 101, 100, 254, 253}));
}

TEST_F(Mirror, RulesConfiguredIsUnknownUntilSeen) {
  EXPECT_FALSE(state.rules_configured(ip_family::v4).has_value());
  const netlink::rule rule = rule_to_table(ip_family::v4, 50, 101);
  apply(rule);
  apply(removal(rule));
  EXPECT_EQ(state.rules_configured(ip_family::v4), true);
}

TEST_F(Mirror, OwnAddressAsGatewayIsRememberedFromTheMomentOfInsertion) {
  apply(added(route_via(net("44.0.0.0/24"), "10.2.0.1", 2)));
  EXPECT_EQ(entries("44.0.0.0/24").front().gateway, route_entry::gateway_use::on_link);
  state.apply(route_via(net("45.0.0.0/24"), "10.2.0.1", 2), changes, message_origin::dump);
  EXPECT_EQ(entries("45.0.0.0/24").front().gateway, route_entry::gateway_use::unknown);
}

TEST_F(Mirror, ClonedRoutesAreNotRoutes) {
  netlink::route cached = route_via(net("20.0.0.1/32"), "10.2.0.2", 2);
  cached.flags |= RTM_F_CLONED;
  apply(cached);
  EXPECT_FALSE(has("20.0.0.1/32"));
}

TEST_F(Mirror, MessageThatSaysNothingNewChangesNothing) {
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2)));
  apply(neighbour(2, ip("10.2.0.2")));
  changes = {};
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2)));
  apply(neighbour(2, ip("10.2.0.2")));
  apply(ethernet(2, "u2"));
  apply(address(2, "10.2.0.1", 24));
  apply(rule_to_table(ip_family::v4, 0, RT_TABLE_LOCAL));
  EXPECT_TRUE(changes.empty());
}

// The kernel went from nothing over the first gateway to the second one before the dump was read.
TEST_F(Mirror, AnnouncementsThatADumpIsAheadOfEndInItsState) {
  for (const auto& [prefix, earlier, later] : {std::tuple{"20.0.0.0/8", "10.2.0.2", "10.2.0.3"},
                                               {"fd01::/16", "fd00:2::2", "fd00:2::3"}}) {
    const auto to = [&, prefix = prefix](const char* gateway) {
      return route_via(net(prefix), gateway, 2);
    };
    state.apply(to(later), changes, message_origin::dump);
    apply(added(to(earlier)));
    apply(replacing(to(later)));
    ASSERT_EQ(entries(prefix).size(), 1u);
    ASSERT_EQ(entries(prefix).front().route.next_hops.size(), 1u);
    EXPECT_EQ(entries(prefix).front().route.next_hops.front().gateway, ip(later));
  }
}

TEST_F(Mirror, RefreshSweepsWhatTheDumpNoLongerNames) {
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2)));
  apply(added(route_via(net("21.0.0.0/8"), "10.2.0.2", 2)));
  std::vector<netlink::route> dump;
  for (const ip_family family : ip_families)
    for (const auto& [id, table] : state.tables(family))
      for (const auto& [prefix, entries_here] : table)
        for (const route_entry& entry : entries_here)
          if (prefix != net("20.0.0.0/8")) dump.push_back(entry.route_to(prefix));
  changes = {};
  state.begin_refresh(object_kind::route);
  for (const auto& route : dump) state.apply(route, changes, message_origin::dump);
  state.end_refresh(object_kind::route, changes);
  EXPECT_FALSE(has("20.0.0.0/8"));
  EXPECT_TRUE(has("21.0.0.0/8"));
  ASSERT_EQ(changes.routes.size(), 1u);
  EXPECT_EQ(changes.routes.front().destination, net("20.0.0.0/8"));
}

TEST_F(Mirror, WhatNotificationsRemoveDuringARefreshNeedsNoSweeping) {
  netlink::route first = route_via(net("20.0.0.0/8"), "10.2.0.2", 2);
  netlink::route second = first;
  second.priority = 7;
  apply(added(first));
  apply(added(second));
  state.begin_refresh(object_kind::route);
  state.apply(first, changes, message_origin::dump);
  apply(removal(second));
  apply(removal(first));
  EXPECT_FALSE(has("20.0.0.0/8"));
  state.end_refresh(object_kind::route, changes);
  EXPECT_FALSE(has("20.0.0.0/8"));
}

TEST_F(Mirror, RefreshOfAddressesSweepsToo) {
  state.begin_refresh(object_kind::address);
  for (const std::uint32_t index : {1u, 3u, 4u})
    for (const ip_family family : ip_families) {
      const auto listed = state.find_device(index)->addresses(family);
      for (const auto& own : listed) state.apply(own, changes, message_origin::dump);
    }
  state.end_refresh(object_kind::address, changes);
  EXPECT_TRUE(state.find_device(2)->v4.empty());
  EXPECT_TRUE(state.find_device(2)->v6.empty());
  EXPECT_EQ(state.find_device(3)->v4.size(), 1u);
}

TEST_F(Mirror, UnannouncedNeighbourStatesAreNoDifference) {
  const auto differ = [](std::uint16_t known, std::uint16_t dumped) {
    mirror left = small_world(), right = small_world();
    mirror_changes ignored;
    netlink::neighbour entry = neighbour(3, ip("10.3.0.9"));
    for (auto [nud, where] : {std::pair{known, &left}, std::pair{dumped, &right}}) {
      entry.state = nud;
      if (nud != NUD_NONE) where->apply(entry, ignored, message_origin::dump);
    }
    return !difference(left, right).empty() || !difference(right, left).empty();
  };
  constexpr std::uint16_t absent = NUD_NONE;
  EXPECT_FALSE(differ(NUD_STALE, NUD_DELAY));
  EXPECT_FALSE(differ(NUD_REACHABLE, NUD_DELAY));
  EXPECT_FALSE(differ(NUD_FAILED, NUD_INCOMPLETE));
  EXPECT_FALSE(differ(absent, NUD_INCOMPLETE));
  EXPECT_FALSE(differ(absent, NUD_NOARP));
  EXPECT_TRUE(differ(NUD_REACHABLE, NUD_STALE));
  EXPECT_TRUE(differ(NUD_FAILED, NUD_DELAY));
  EXPECT_TRUE(differ(NUD_REACHABLE, NUD_FAILED));
  EXPECT_TRUE(differ(absent, NUD_REACHABLE));
}

TEST_F(Mirror, ShadowReplacesTheOldStateAndKeepsWhatADumpCannotTell) {
  state.set_path_mtu(ip("20.0.0.1"), 1400, std::chrono::steady_clock::time_point::max(), changes);
  apply(rule_to_table(ip_family::v4, 50, 101));
  apply(removal(rule_to_table(ip_family::v4, 50, 101)));
  mirror shadow = small_world();
  mirror_changes ignored;
  shadow.apply(route_via(net("20.0.0.0/8"), "10.2.0.2", 2), ignored, message_origin::dump);
  EXPECT_EQ(difference(state, shadow).size(), 1u);
  changes = {};
  mirror_comparison found(state, shadow);
  while (found.advance(1)) continue;
  found.add_to(changes);
  state.exchange_with(shadow);
  EXPECT_TRUE(has("20.0.0.0/8"));
  EXPECT_EQ(state.path_mtu(ip("20.0.0.1")), 1400u);
  EXPECT_EQ(state.rules_configured(ip_family::v4), true);
  ASSERT_EQ(changes.routes.size(), 1u);
  EXPECT_FALSE(changes.decisions_v4);
}

TEST_F(Mirror, RoutesWithALifetimeExpire) {
  netlink::route made = route_via(net("2001:db8::/32"), "fd00:2::2", 2);
  made.expires_s = 2;
  apply(added(made));
  state.expire(std::chrono::steady_clock::now(), changes);
  EXPECT_TRUE(has("2001:db8::/32"));
  state.expire(std::chrono::steady_clock::now() + std::chrono::seconds(3), changes);
  EXPECT_FALSE(has("2001:db8::/32"));
}

TEST_F(Mirror, SharesStayStaleWhenTheLinkdownSettingChanges) {
  set_link(2, true, false);
  netlink::netconf setting;
  setting.index = 2;
  setting.ignore_routes_with_linkdown = true;
  apply(setting);
  EXPECT_TRUE(state.find_device(2)->has_stale_shares(ip_family::v4));
  set_link(2, true, true);
  EXPECT_FALSE(state.find_device(2)->has_stale_shares(ip_family::v4));
}

/// The kernel removes and makes the configuration of a device that is renamed.
TEST_F(Mirror, SharesAreNotStaleForANewName) {
  set_link(2, true, false);
  netlink::netconf setting;
  setting.index = 2;
  setting.ignore_routes_with_linkdown = false;
  apply(setting);
  netlink::netconf gone = setting;
  gone.action = netlink::action::remove;
  apply(gone);
  apply(setting);
  EXPECT_FALSE(state.find_device(2)->has_stale_shares(ip_family::v4));
}

TEST_F(Mirror, NexthopObjectSharedByRoutesThatDifferIsAmbiguous) {
  add_nexthop(1, 2);
  add_object_route("21.0.0.0/8", 1);
  EXPECT_FALSE(state.nexthop_is_ambiguous(ip_family::v4, 1));
  netlink::route other = route_on(net("22.0.0.0/8"), 0);
  other.next_hops.clear();
  other.nexthop_id = 1;
  other.metrics.mtu = 1300;
  apply(added(other));
  EXPECT_TRUE(state.nexthop_is_ambiguous(ip_family::v4, 1));
  apply(removal(other));
  EXPECT_FALSE(state.nexthop_is_ambiguous(ip_family::v4, 1));
}

TEST_F(Mirror, NeighbourThatARedirectHasMadeIsNoDifference) {
  mirror dumped = small_world();
  netlink::neighbour made = neighbour(3, ip("fe80::3:9"));
  made.state = NUD_NONE;
  made.link_address.clear();
  mirror_changes ignored;
  dumped.apply(made, ignored, message_origin::dump);
  EXPECT_TRUE(difference(small_world(), dumped).empty());
  made.state = NUD_REACHABLE;
  dumped.apply(made, ignored, message_origin::dump);
  EXPECT_FALSE(difference(small_world(), dumped).empty());
}

TEST_F(Mirror, PathMtuExpires) {
  const auto now = std::chrono::steady_clock::now();
  state.set_path_mtu(ip("20.0.0.1"), 1400, now + std::chrono::seconds(600), changes);
  changes = {};
  state.expire(now + std::chrono::seconds(601), changes);
  EXPECT_EQ(state.path_mtu(ip("20.0.0.1")), 0u);
  EXPECT_EQ(changes.path_mtus.size(), 1u);
}

// ------------------------------------------------------------------------------------------------
// what a re-dump check must not find

TEST_F(Mirror, SourceSpecificRoutesOfOnePrefixHaveOneOrderWhoeverTells) {
  const netlink::route plain = route_via(net("2001:db8::/32"), "fd00:2::2", 2);
  netlink::route first = route_via(net("2001:db8::/32"), "fd00:3::2", 3);
  first.source = net("fd00:9::/64");
  netlink::route second = first;
  second.source = net("fd00:1::/64");
  mirror dumped = small_world();
  for (const netlink::route& one : {second, first, plain})
    dumped.apply(one, changes, message_origin::dump);
  for (const netlink::route& one : {plain, first, second}) apply(added(one));
  EXPECT_EQ(difference(state, dumped), std::vector<std::string>{});
  EXPECT_EQ(entries("2001:db8::/32").size(), 3u);
  EXPECT_EQ(entries("2001:db8::/32").front().route.source.length(), 0u);
}

TEST_F(Mirror, WeightsThatADumpOfOneSiblingHidesAreKnownAgainWithTheNext) {
  netlink::route two = route_via(net("2001:db8::/32"), "fd00:2::2", 2);
  two.next_hops.push_back({3, ip("fd00:3::2"), 5, 0, false});
  apply(added(two));
  netlink::route gone = route_via(net("2001:db8::/32"), "fd00:2::2", 2);
  apply(removal(gone));
  const auto dump = [&] {
    state.begin_refresh(object_kind::route);
    state.apply(route_via(net("2001:db8::/32"), "fd00:3::2", 3), changes, message_origin::dump);
    state.end_refresh(object_kind::route, changes);
  };
  dump();
  EXPECT_EQ(entries("2001:db8::/32").front().route.next_hops.front().weight, 5u);

  // Who knew the single one from a dump alone.
  mirror fresh = small_world();
  fresh.apply(route_via(net("2001:db8::/32"), "fd00:3::2", 3), changes, message_origin::dump);
  for (const std::string& line : difference(fresh, state))
    EXPECT_EQ(line.find("2001:db8::/32"), std::string::npos) << line;
  netlink::route next = route_via(net("2001:db8::/32"), "fd00:2::9", 2);
  next.next_hops.push_back({3, ip("fd00:3::2"), 5, 0, false});
  fresh.apply(appended(next), changes, message_origin::notification);
  const auto& hops =
      fresh.find_table(ip_family::v6, 254)->find(net("2001:db8::/32"))->front().route.next_hops;
  ASSERT_EQ(hops.size(), 2u);
  EXPECT_EQ(hops[0].weight, 5u);
  EXPECT_EQ(hops[1].weight, 1u);
}

TEST_F(Mirror, TheMtuOfASiblingThatIsGoneIsReadAgain) {
  netlink::route one = route_via(net("2001:db8::/32"), "fd00:2::2", 2);
  one.metrics.mtu = 1300;
  apply(added(one));
  netlink::route two = route_via(net("2001:db8::/32"), "fd00:3::2", 3);
  two.metrics.mtu = 1400;
  two.next_hops.push_back(one.next_hops.front());
  apply(appended(two));
  EXPECT_TRUE(entries("2001:db8::/32").front().mixed_siblings);
  changes = {};
  apply(removal(one));
  EXPECT_TRUE(changes.refresh_advised);
  netlink::route left = route_via(net("2001:db8::/32"), "fd00:3::2", 3);
  left.metrics.mtu = 1400;
  state.begin_refresh(object_kind::route);
  state.apply(left, changes, message_origin::dump);
  state.end_refresh(object_kind::route, changes);
  ASSERT_EQ(entries("2001:db8::/32").size(), 1u);
  EXPECT_EQ(entries("2001:db8::/32").front().route.metrics.mtu, 1400u);
  EXPECT_FALSE(entries("2001:db8::/32").front().mixed_siblings);
}

TEST_F(Mirror, ARouteThatADumpLeavesOutBetweenSiblingsStays) {
  apply(added(route_via(net("2001:db8::/32"), "fd00:2::2", 2)));
  netlink::route between = route_on(net("2001:db8::/32"), 4);
  apply(appended(between));
  netlink::route set = route_via(net("2001:db8::/32"), "fd00:2::2", 2);
  set.next_hops.push_back({3, ip("fd00:3::2"), 1, 0, false});
  apply(appended(set));
  const auto refresh = [&](const netlink::route& told) {
    state.begin_refresh(object_kind::route);
    state.apply(told, changes, message_origin::dump);
    state.end_refresh(object_kind::route, changes);
  };
  refresh(set);
  EXPECT_EQ(entries("2001:db8::/32").size(), 2u);
  mirror dumped = small_world();
  dumped.apply(set, changes, message_origin::dump);
  for (const std::string& line : difference(state, dumped))
    EXPECT_EQ(line.find("2001:db8::/32"), std::string::npos) << line;
  // Where nothing hides it, what a dump does not show is gone.
  refresh(route_via(net("2001:db8::/32"), "fd00:3::2", 3));
  EXPECT_EQ(entries("2001:db8::/32").size(), 1u);
}

TEST_F(Mirror, Ipv6MtuMetricsFollowTheirDevice) {
  netlink::route small = route_via(net("2001:db8::/32"), "fd00:2::2", 2);
  small.metrics.mtu = 1400;
  apply(added(small));
  netlink::route other = route_via(net("2001:db9::/32"), "fd00:3::2", 3);
  other.metrics.mtu = 1400;
  apply(added(other));
  const auto set_mtu = [&](std::uint32_t mtu) {
    netlink::link link = state.find_device(2)->link;
    link.mtu = mtu;
    apply(link);
    return entries("2001:db8::/32").front().route.metrics.mtu;
  };
  EXPECT_EQ(set_mtu(1450), 1400u);
  EXPECT_EQ(set_mtu(1300), 1300u);
  EXPECT_EQ(set_mtu(1500), 1500u);
  EXPECT_EQ(entries("2001:db9::/32").front().route.metrics.mtu, 1400u);
  EXPECT_EQ(entries("fd00:2::/64").front().route.metrics.mtu, 0u);
}

/// `mtu lock` keeps the kernel from changing the metric.
TEST_F(Mirror, LockedIpv6MtuMetricsStayWhatTheyAre) {
  netlink::route locked = route_via(net("2001:db8::/32"), "fd00:2::2", 2);
  locked.metrics.mtu = 1400;
  locked.metrics.lock = 1 << RTAX_MTU;
  apply(added(locked));
  for (const std::uint32_t mtu : {1300u, 1500u}) {
    netlink::link link = state.find_device(2)->link;
    link.mtu = mtu;
    apply(link);
    EXPECT_EQ(entries("2001:db8::/32").front().route.metrics.mtu, 1400u) << mtu;
  }
}

/// The kernel changes the metric of each sibling on its own; the first one's is all that it shows.
TEST_F(Mirror, SiblingsDifferOnceTheMtuOfOneDeviceFellBelowTheirMetric) {
  netlink::route set = route_via(net("2001:db8::/32"), "fd00:2::2", 2);
  set.next_hops.push_back(route_via(set.destination, "fd00:3::2", 3).next_hops.front());
  set.metrics.mtu = 1400;
  apply(added(set));
  const auto set_mtu = [&](std::uint32_t index, std::uint32_t mtu) {
    netlink::link link = state.find_device(index)->link;
    link.mtu = mtu;
    apply(link);
  };
  set_mtu(3, 1450);
  EXPECT_FALSE(entries("2001:db8::/32").front().mixed_siblings);
  set_mtu(3, 1300);
  EXPECT_TRUE(entries("2001:db8::/32").front().mixed_siblings);
  EXPECT_EQ(entries("2001:db8::/32").front().route.metrics.mtu, 1400u);
}

TEST_F(Mirror, AnAddressInDetectionIsNoDifferenceAndItsPlaceIsReadWhenItIsTold) {
  netlink::address early = address(2, "fd00:2::a", 64), late = address(2, "fd00:2::b", 64);
  late.flags |= IFA_F_NODAD;
  mirror dumped = state;
  // The kernel has put `early` first, says so last, and has `late` in front of it.
  netlink::address tentative = early;
  tentative.flags |= IFA_F_TENTATIVE;
  dumped.apply(tentative, changes, message_origin::dump);
  EXPECT_EQ(difference(state, dumped), std::vector<std::string>{});
  EXPECT_FALSE(dumped.is_local_address(early.local));
  changes = {};
  apply(late);
  EXPECT_FALSE(changes.addresses_advised);
  apply(early);
  ASSERT_TRUE(changes.addresses_advised);
  ASSERT_EQ(changes.advised().front(), (netlink::dump_scope{object_kind::address, {}}));
  const auto own = state.find_device(2)->v6.back();
  state.begin_refresh(object_kind::address);
  for (const netlink::address& one : {late, early, own})
    state.apply(one, changes, message_origin::dump);
  const mirror known = state;
  for (const auto& [index, device] : known.devices())
    for (const auto* list : {&device.v4, &device.v6})
      for (const netlink::address& one : *list)
        if (index != 2 || one.local.is_v4()) state.apply(one, changes, message_origin::dump);
  state.end_refresh(object_kind::address, changes);
  const auto& v6 = state.find_device(2)->v6;
  ASSERT_EQ(v6.size(), 3u);
  EXPECT_EQ(v6[0].local, late.local);
  EXPECT_EQ(v6[1].local, early.local);
}

TEST_F(Mirror, AddressesThatOutliveTheirDeviceGoingDownAreDetectedAnew) {
  set_link(2, false, false);
  ASSERT_FALSE(state.find_device(2)->v6.empty());
  EXPECT_TRUE(is_in_detection(state.find_device(2)->v6.front()));
  apply(address(2, "fd00:2::1", 64));
  EXPECT_FALSE(is_in_detection(state.find_device(2)->v6.front()));
}

TEST_F(Mirror, TheDefaultOfIgnoringLinksDownAdvisesToReadTheSettings) {
  netlink::netconf of_all;
  of_all.index = NETCONFA_IFINDEX_DEFAULT;
  of_all.ignore_routes_with_linkdown = true;
  for (const ip_family family : {ip_family::v6, ip_family::v4}) {
    of_all.family = family;
    changes = {};
    apply(of_all);
    EXPECT_EQ(changes.netconf_advised, family == ip_family::v4);
  }
  ASSERT_EQ(changes.advised().size(), 1u);
  EXPECT_EQ(changes.advised().front(),
            (netlink::dump_scope{object_kind::netconf, {ip_family::v4, 0, 0}}));
  netlink::netconf of_one;
  of_one.index = 2;
  of_one.ignore_routes_with_linkdown = true;
  state.apply(of_one, changes, message_origin::dump);
  EXPECT_TRUE(state.ignores_linkdown(ip_family::v4, 2));
  apply(removal(of_one));
  EXPECT_FALSE(state.ignores_linkdown(ip_family::v4, 2));
}

TEST_F(Mirror, WhatIsDeadStaysSoWhereADumpShowsAllAsDead) {
  netlink::netconf ignoring;
  ignoring.index = 2;
  ignoring.ignore_routes_with_linkdown = true;
  apply(ignoring);
  add_multipath("20.0.0.0/8", {2, 3});
  add_multipath("21.0.0.0/8", {2, 3});
  apply(removal(address(2, "10.2.0.1", 24)));  // Takes its members with it.
  apply(address(2, "10.2.0.9", 24));
  apply(removal(address(2, "10.2.0.9", 24)));
  ASSERT_TRUE(dead("20.0.0.0/8", 0));
  set_link(2, true, false);
  netlink::route shown = entries("20.0.0.0/8").front().route_to(net("20.0.0.0/8"));
  shown.next_hops[0].flags = RTNH_F_DEAD | RTNH_F_LINKDOWN;
  state.apply(shown, changes, message_origin::dump);
  EXPECT_TRUE(dead("20.0.0.0/8", 0));
  mirror dumped = state;
  dumped.forget(object_kind::route, ip_family::v4);
  for (const char* prefix : {"20.0.0.0/8", "21.0.0.0/8"}) {
    shown.destination = net(prefix);
    dumped.apply(shown, changes, message_origin::dump);
  }
  for (const std::string& line : difference(state, dumped))
    EXPECT_EQ(line.find("20.0.0.0/8"), std::string::npos) << line;
  set_link(2, true, true);
  EXPECT_TRUE(dead("20.0.0.0/8", 0));
}

TEST_F(Mirror, NextHopsOfAnObjectAreNoDifference) {
  add_nexthop(1, 2);
  add_nexthop(2, 3);
  add_group(10, {1, 2});
  mirror dumped = state;
  netlink::route told = route_on(net("20.0.0.0/8"), 2);
  told.nexthop_id = 10;
  told.next_hops = {{2, ip("10.2.0.2"), 1, 0, false}, {3, ip("10.3.0.2"), 1, 0, false}};
  apply(added(told));
  told.next_hops.pop_back();
  dumped.apply(told, changes, message_origin::dump);
  EXPECT_EQ(difference(state, dumped), std::vector<std::string>{});
}

TEST_F(Mirror, RoutesKeepASourceThatGoesWithADeviceIntoAVrf) {
  netlink::link red = ethernet(9, "red");
  red.kind = "vrf";
  red.info = netlink::vrf_info{100};
  apply(red);
  netlink::route preferring = route_via(net("2001:d::/32"), "fd00:3::9", 3);
  preferring.preferred_source = ip("fd00:2::1");
  apply(added(preferring));
  netlink::link member = ethernet(2, "u2");
  member.master = 9;
  apply(member);
  apply(removal(address(2, "fd00:2::1", 64)));  // Before the device is set down.
  EXPECT_EQ(entries("2001:d::/32").front().route.preferred_source, ip("fd00:2::1"));
}

// To ask may take long, and the order of slaves is that of enslaving.
TEST_F(Mirror, CarriersOfABondsSlavesLeaveNothingToAskUnlessItNegotiates) {
  constexpr std::uint32_t bond = 9;
  netlink::link slave = ethernet(3, "u3");
  slave.master = bond;
  slave.bond_slave = netlink::bond_slave_info{};
  for (const std::uint8_t mode :
       std::initializer_list<std::uint8_t>{BOND_MODE_XOR, BOND_MODE_8023AD}) {
    const bool asks = mode == BOND_MODE_8023AD;
    netlink::link master = ethernet(bond, "t9");
    master.kind = "bond";
    master.info = netlink::bond_info{.mode = mode};
    apply(master);
    apply(slave);
    const auto settle = [&] {
      state.settle_bond(bond, {.slaves = {{3, 0}}, .aggregator_id = 0}, changes);
      EXPECT_TRUE(state.unsettled_bonds().empty());
    };
    settle();
    netlink::link without_carrier = slave;
    without_carrier.flags &= ~netlink::lower_up;
    apply(without_carrier);
    EXPECT_EQ(state.unsettled_bonds().empty(), !asks);
    EXPECT_EQ(state.find_device(bond)->slaves.has_value(), !asks);
    settle();
    master.mtu = 1400;
    apply(master);
    EXPECT_EQ(state.unsettled_bonds().empty(), !asks);
    settle();
    // Another order, another count.
    apply(ethernet(3, "u3"));
    apply(slave);
    EXPECT_FALSE(state.unsettled_bonds().empty());
    settle();
    apply(removal(slave));
    EXPECT_FALSE(state.unsettled_bonds().empty());
    apply(removal(master));
  }
}

}  // namespace
}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// The kernel's surprises, each as a small world of its own. The kernel itself is asked in
/// kernel_differential_test.
#include "world.hpp"

#include <cowire/route/resolve.hpp>

#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/netconf.h>
#include <linux/rtnetlink.h>

#include <cerrno>
#include <set>

namespace cowire {
namespace {

using namespace cowire::testing;

class Resolve : public ::testing::Test {
 protected:
  void apply(const netlink::message& message) {
    state.apply(message, changes, message_origin::notification);
  }
  [[nodiscard]] resolution ask(const char* to, const flow_class& cls = {},
                               route_question as = route_question::get_route) const {
    return resolve(state, {cls, ip(to), 53}, as);
  }
  void reject_route(const char* prefix, std::uint8_t type, std::uint32_t table = RT_TABLE_MAIN) {
    netlink::route made = route_on(net(prefix), 0, table);
    made.type = type;
    made.next_hops.clear();
    apply(added(made));
  }
  void add_nexthop(std::uint32_t id, std::uint32_t index, const char* gateway) {
    netlink::nexthop_object object;
    object.id = id;
    object.index = index;
    object.gateway = ip(gateway);
    object.family = object.gateway->family();
    apply(object);
  }
  void add_object_route(const char* prefix, std::uint32_t id) {
    netlink::route made = route_on(net(prefix), 0);
    made.next_hops.clear();
    made.nexthop_id = id;
    apply(added(made));
  }
  /// Object 100; 1 is over u2, 2 over u3.
  void add_group_v6_of_linux_7() {
    mirror_settings settings = state.settings();
    settings.kernel_version = 7003;
    state.set_settings(settings, changes);
    add_nexthop(1, 2, "fd00:2::9");
    add_nexthop(2, 3, "fd00:3::9");
    netlink::nexthop_object group;
    group.id = 100;
    group.family_unspecified = true;
    group.group = {{.id = 1, .weight = 1}, {.id = 2, .weight = 4}};
    apply(group);
  }
  /// Object 100 and a route to 32.0.0.0/24 over it; 1 is over u2, 2 over u3.
  void add_resilient_group(std::vector<netlink::nexthop_object::member> members,
                           std::uint16_t buckets) {
    add_nexthop(1, 2, "10.2.0.9");
    add_nexthop(2, 3, "10.3.0.9");
    netlink::nexthop_object group;
    group.id = 100;
    group.family_unspecified = true;
    group.group = std::move(members);
    group.group_type = 1;
    group.resilient_buckets = buckets;
    apply(group);
    add_object_route("32.0.0.0/24", 100);
  }
  void set_bucket(std::uint16_t index, std::uint32_t member) {
    apply(netlink::nexthop_bucket{.group = 100, .index = index, .member = member});
  }
  [[nodiscard]] static flow_class over(std::uint32_t index) {
    flow_class cls;
    cls.output_interface = index;
    return cls;
  }

  mirror state = small_world();
  mirror_changes changes;
};

TEST_F(Resolve, LongestPrefixWinsAndGatewayGivesTheSource) {
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2)));
  apply(added(route_via(net("20.1.0.0/16"), "10.3.0.2", 3)));
  const resolution answer = ask("20.1.2.3");
  EXPECT_EQ(answer.error, 0);
  EXPECT_EQ(answer.interface_index, 3u);
  EXPECT_EQ(answer.members.front().gateway, ip("10.3.0.2"));
  EXPECT_EQ(answer.source, ip("10.3.0.1"));
  EXPECT_EQ(answer.mtu, 1500u);
  EXPECT_EQ(answer.hop_limit, 64);
}

TEST_F(Resolve, MissOfANexthopObjectHidesTheRestOfTheLeaf) {
  add_nexthop(1, 2, "10.2.0.9");
  add_object_route("20.0.0.0/24", 1);
  apply(added(route_via(net("20.0.0.0/16"), "10.3.0.9", 3)));
  const resolution answer = ask("20.0.0.5", over(3));
  EXPECT_EQ(answer.interface_index, 3u);
  EXPECT_FALSE(answer.members.front().gateway.has_value());  // On-link, not via 10.3.0.9.
}

TEST_F(Resolve, OwnAddressAsGatewayMeansOnLink) {
  apply(added(route_via(net("44.0.0.0/24"), "10.2.0.1", 2)));
  EXPECT_FALSE(ask("44.0.0.1").members.front().gateway.has_value());
}

TEST_F(Resolve, OutputInterfaceBeatsEveryErrorButAnUnknownSource) {
  reject_route("62.0.0.0/8", RTN_BLACKHOLE);
  EXPECT_EQ(ask("62.0.0.1").error, EINVAL);
  EXPECT_EQ(ask("62.0.0.1", over(2)).error, 0);
  EXPECT_EQ(ask("62.0.0.1", over(2)).table, 0u);
  flow_class cls = over(2);
  cls.source_v4 = ip("9.9.9.9");
  EXPECT_EQ(ask("62.0.0.1", cls).error, ENETUNREACH);
}

TEST_F(Resolve, LocalAddressAskedOverAnotherDeviceIsNotLocal) {
  EXPECT_EQ(ask("10.3.0.1").type, RTN_LOCAL);
  const resolution answer = ask("10.3.0.1", over(2));
  EXPECT_EQ(answer.type, RTN_UNICAST);
  EXPECT_EQ(answer.interface_index, 2u);
}

TEST_F(Resolve, RouteMoreSpecificThanALocalOneDependsOnHistoryUntilRulesWereConfigured) {
  apply(added(route_via(net("127.5.5.5/32"), "10.3.0.9", 3)));
  EXPECT_EQ(ask("127.5.5.5").divert, divert_reason::merged_tables);
  const netlink::rule rule = rule_to_table(ip_family::v4, 9, 77);
  apply(rule);
  apply(removal(rule));
  EXPECT_EQ(ask("127.5.5.5").type, RTN_LOCAL);
}

TEST_F(Resolve, TosRouteIsTriedBeforeABetterMetricAndUpperBitsNeverMatch) {
  apply(added(route_via(net("50.0.0.0/24"), "10.2.0.2", 2)));
  netlink::route marked = route_via(net("50.0.0.0/24"), "10.3.0.2", 3);
  marked.tos = 0x10;
  marked.priority = 50;
  apply(added(marked));
  marked.tos = 0xb8;
  apply(added(marked));
  flow_class cls;
  cls.tos = 0x50;  // Matches 0x10: only three bits count.
  EXPECT_EQ(ask("50.0.0.1", cls).interface_index, 3u);
  cls.tos = 0xb8;
  EXPECT_EQ(ask("50.0.0.1", cls).interface_index, 2u);
}

TEST_F(Resolve, UnreachableRuleAndUnreachableRouteDiffer) {
  reject_route("63.0.0.0/8", RTN_UNREACHABLE);
  EXPECT_EQ(ask("63.0.0.1").error, EHOSTUNREACH);
  netlink::rule rule = rule_to_table(ip_family::v4, 50, 0);
  rule.kind = 7;
  rule.to = net("64.0.0.0/8");
  apply(rule);
  EXPECT_EQ(ask("64.0.0.1").error, ENETUNREACH);
}

TEST_F(Resolve, ThrowEndsTheTableNotTheSearch) {
  apply(rule_to_table(ip_family::v4, 50, 100));
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2, 100)));
  reject_route("20.1.0.0/16", RTN_THROW, 100);
  EXPECT_EQ(ask("20.1.0.1").error, ENETUNREACH);
  apply(added(route_via(net("20.0.0.0/8"), "10.3.0.2", 3)));
  EXPECT_EQ(ask("20.1.0.1").interface_index, 3u);
  EXPECT_EQ(ask("20.2.0.1").interface_index, 2u);
}

TEST_F(Resolve, FirstMatchingAddressInListOrderIsTheSource) {
  apply(removal(address(2, "10.2.0.1", 24)));
  apply(address(2, "10.2.8.1", 16));
  apply(address(2, "10.2.0.1", 24));
  apply(added(route_via(net("15.0.0.0/8"), "10.2.0.2", 2)));
  EXPECT_EQ(ask("15.0.0.1").source, ip("10.2.8.1"));
}

TEST_F(Resolve, LinkScopeAddressServesOnlyOnLinkAnswers) {
  apply(ethernet(7, "u7"));
  netlink::address narrow = address(7, "10.7.0.1", 24);
  narrow.scope = RT_SCOPE_LINK;
  apply(narrow);
  EXPECT_EQ(ask("15.0.0.1", over(7)).source, ip("10.7.0.1"));
  netlink::route made = route_on(net("14.0.0.0/8"), 7);
  made.scope = RT_SCOPE_UNIVERSE;
  apply(added(made));
  EXPECT_NE(ask("14.0.0.1").source, ip("10.7.0.1"));
}

TEST_F(Resolve, DefaultRouteLendsItsDeviceToMulticastNotItsGateway) {
  apply(added(route_via(ip_prefix::all(ip_family::v4), "10.2.0.2", 2)));
  resolution answer = ask("239.1.1.1");
  EXPECT_EQ(answer.type, RTN_MULTICAST);
  EXPECT_FALSE(answer.divert);
  EXPECT_EQ(answer.hop_limit, 1);
  EXPECT_FALSE(answer.members.front().gateway.has_value());
  apply(added(route_via(net("239.0.0.0/8"), "10.3.0.9", 3)));
  EXPECT_EQ(ask("239.1.1.1").members.front().gateway, ip("10.3.0.9"));
}

TEST_F(Resolve, GroupsWithMembersOnTheOutputDeviceAreTheKernels) {
  apply(added(route_via(ip_prefix::all(ip_family::v4), "10.2.0.2", 2)));
  netlink::membership member{netlink::action::add, 3, ip("239.1.1.1")};
  apply(member);
  EXPECT_FALSE(ask("239.1.1.1").divert);  // Joined elsewhere.
  member.index = 2;
  apply(member);
  EXPECT_EQ(ask("239.1.1.1").divert, divert_reason::multicast_member);
  EXPECT_FALSE(ask("239.1.1.2").divert);
  apply(removal(member));
  EXPECT_FALSE(ask("239.1.1.1").divert);
}

TEST_F(Resolve, SuppressedPrefixLengthFallsThroughButErrorsDoNot) {
  netlink::rule rule = rule_to_table(ip_family::v4, 50, 100);
  rule.suppress_prefix_length = 16;
  apply(rule);
  apply(added(route_via(net("20.1.0.0/16"), "10.2.0.2", 2, 100)));
  apply(added(route_via(net("20.0.0.0/8"), "10.3.0.2", 3)));
  EXPECT_EQ(ask("20.1.0.1").interface_index, 3u);
  reject_route("20.1.0.0/15", RTN_BLACKHOLE, 100);
  EXPECT_EQ(ask("20.0.0.1").error, EINVAL);
}

TEST_F(Resolve, GotoSkipsAndMissingTargetsAreIgnored) {
  netlink::rule jump = rule_to_table(ip_family::v4, 50, 0);
  jump.kind = 2;
  jump.goto_target = 60;
  apply(jump);
  apply(rule_to_table(ip_family::v4, 55, 100));
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2, 100)));
  EXPECT_EQ(ask("20.0.0.1").interface_index, 2u);  // No rule 60: the goto is nothing.
  apply(rule_to_table(ip_family::v4, 60, RT_TABLE_MAIN));
  EXPECT_EQ(ask("20.0.0.1").error, ENETUNREACH);
}

TEST_F(Resolve, UnknownAttributesDivert) {
  netlink::route strange = route_via(net("20.0.0.0/8"), "10.2.0.2", 2);
  strange.unknown.push_back(77);
  apply(added(strange));
  EXPECT_EQ(ask("20.0.0.1").divert, divert_reason::unsupported_route);
  netlink::rule rule = rule_to_table(ip_family::v4, 1, 100);
  rule.unknown.push_back(99);
  apply(rule);
  EXPECT_EQ(ask("20.0.0.1").divert, divert_reason::unsupported_rule);
}

TEST_F(Resolve, SeveralDefaultRoutesDependOnHistoryUnlessTheFirstIsAlive) {
  apply(added(route_via(ip_prefix::all(ip_family::v4), "10.2.0.2", 2)));
  apply(appended(route_via(ip_prefix::all(ip_family::v4), "10.3.0.2", 3)));
  EXPECT_EQ(ask("80.0.0.1").interface_index, 2u);
  EXPECT_FALSE(ask("80.0.0.1").divert);
  apply(neighbour(2, ip("10.2.0.2"), NUD_STALE));
  EXPECT_EQ(ask("80.0.0.1").divert, divert_reason::rotating_default);
  apply(neighbour(2, ip("10.2.0.2"), NUD_REACHABLE));
  EXPECT_FALSE(ask("80.0.0.1").divert);
}

/// fib_select_default() compares metrics only within one TOS.
TEST_F(Resolve, DefaultRouteOfATosAlternatesWithThePlainOneOfAnyMetric) {
  netlink::route with_tos = route_via(ip_prefix::all(ip_family::v4), "10.2.0.2", 2);
  with_tos.tos = 0x08;
  netlink::route plain = route_via(ip_prefix::all(ip_family::v4), "10.3.0.2", 3);
  plain.priority = 5;
  apply(added(with_tos));
  apply(added(plain));
  apply(neighbour(2, ip("10.2.0.2"), NUD_PERMANENT));
  flow_class low_delay;
  low_delay.tos = 0x08;
  EXPECT_EQ(ask("80.0.0.1", low_delay).divert, divert_reason::rotating_default);
  EXPECT_EQ(ask("80.0.0.1").interface_index, 3u);
  EXPECT_FALSE(ask("80.0.0.1").divert);
  apply(neighbour(2, ip("10.2.0.2"), NUD_REACHABLE));
  EXPECT_FALSE(ask("80.0.0.1", low_delay).divert);
}

TEST_F(Resolve, DefaultRoutesOfAWorseMetricAreNoRivals) {
  netlink::route first = route_via(ip_prefix::all(ip_family::v4), "10.2.0.2", 2);
  first.tos = 0x08;
  netlink::route second = route_via(ip_prefix::all(ip_family::v4), "10.3.0.2", 3);
  second.tos = 0x08;
  second.priority = 9;
  netlink::route unrelated = route_via(ip_prefix::all(ip_family::v4), "10.4.0.2", 4);
  unrelated.tos = 0x10;
  for (const netlink::route& one : {first, second, unrelated}) apply(added(one));
  apply(neighbour(2, ip("10.2.0.2"), NUD_STALE));
  flow_class low_delay;
  low_delay.tos = 0x08;
  EXPECT_FALSE(ask("80.0.0.1", low_delay).divert);
  EXPECT_EQ(ask("80.0.0.1", low_delay).interface_index, 2u);
}

TEST_F(Resolve, RouteLocalnetMakesHostAddressesSourcesOfLinkRoutes) {
  netlink::address host = address(2, "10.2.7.1", 32);
  host.scope = RT_SCOPE_HOST;
  apply(host);
  apply(added(route_on(net("203.0.113.0/24"), 2)));
  EXPECT_EQ(ask("203.0.113.7").source, ip("10.2.0.1"));
  const auto set_localnet = [&](std::set<std::uint32_t> on) {
    mirror_settings settings = state.settings();
    settings.route_localnet = std::move(on);
    state.set_settings(settings, changes);
  };
  set_localnet({});
  set_localnet({2});
  // What the next hop has cached from before is not known until addresses or devices move.
  EXPECT_EQ(ask("203.0.113.7").divert, divert_reason::cached_source);
  EXPECT_FALSE(ask("10.4.0.7").divert);
  apply(address(1, "192.0.2.1", 32));
  EXPECT_FALSE(ask("203.0.113.7").divert);
  EXPECT_EQ(ask("203.0.113.7").source, ip("10.2.7.1"));
  // A route of global scope takes none of them.
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2)));
  EXPECT_EQ(ask("20.0.0.1").source, ip("10.2.0.1"));
  set_localnet({});
  apply(removal(address(1, "192.0.2.1", 32)));
  EXPECT_EQ(ask("203.0.113.7").source, ip("10.2.0.1"));
}

TEST_F(Resolve, GroupAvoidsFailedNeighboursLegacyMultipathDoesNot) {
  add_nexthop(1, 2, "10.2.0.9");
  add_nexthop(2, 3, "10.3.0.9");
  netlink::nexthop_object group;
  group.id = 100;
  group.family_unspecified = true;
  group.group = {{1, 1}, {2, 1}};
  apply(group);
  add_object_route("32.0.0.0/24", 100);
  netlink::route legacy = route_via(net("33.0.0.0/24"), "10.2.0.9", 2);
  legacy.next_hops.push_back({3, ip("10.3.0.9"), 1, 0, false});
  apply(added(legacy));
  apply(neighbour(2, ip("10.2.0.9"), NUD_FAILED));
  const auto shares_of = [&](const char* to) {
    std::vector<std::uint32_t> members;
    for (const path_share& share : ask(to).shares) members.push_back(share.member);
    return members;
  };
  EXPECT_EQ(shares_of("32.0.0.1"), (std::vector<std::uint32_t>{1}));
  EXPECT_EQ(shares_of("33.0.0.1"), (std::vector<std::uint32_t>{0, 1}));
}

TEST_F(Resolve, BucketsOfAResilientGroupStandWhateverBecomesOfTheirMembers) {
  add_resilient_group({{1, 1}, {2, 1}}, 4);
  for (std::uint16_t i = 0; i < 4; ++i) set_bucket(i, i == 2 ? 2 : 1);
  const auto members = [&] {
    std::vector<std::uint32_t> all;
    for (const path_share& share : ask("32.0.0.1").shares) all.push_back(share.member);
    return all;
  };
  const std::vector<std::uint32_t> as_told{0, 0, 1, 0};
  EXPECT_EQ(members(), as_told);
  apply(neighbour(2, ip("10.2.0.9"), NUD_FAILED));
  EXPECT_EQ(members(), as_told);
  const auto shares = ask("32.0.0.1").shares;
  for (std::uint32_t hash = 0; hash < 40; ++hash)
    EXPECT_EQ(share_of(shares, hash + 0x7ffffff0u).bound, (hash + 0x7ffffff0u) % 4);
}

TEST_F(Resolve, OwnAddressesNeedNoCarrier) {
  netlink::route host = route_on(net("60.0.0.0/24"), 2);
  host.scope = RT_SCOPE_HOST;
  apply(added(host));
  apply(added(route_via(net("61.0.0.0/24"), "10.2.0.9", 2)));
  netlink::link lost = ethernet(2, "u2");
  lost.carrier = false;
  lost.flags = IFF_UP;
  apply(lost);
  for (const ip_family family : ip_families) {
    netlink::netconf setting;
    setting.family = family;
    setting.index = 2;
    setting.ignore_routes_with_linkdown = true;
    apply(setting);
  }
  EXPECT_EQ(ask("61.0.0.1").error, ENETUNREACH);
  EXPECT_EQ(ask("60.0.0.1").interface_index, 2u);
  EXPECT_EQ(ask("10.2.0.1").divert, divert_reason::local_destination);
  EXPECT_EQ(ask("fd00:2::1").divert, divert_reason::local_destination);
}

TEST_F(Resolve, RequestedSourceSteersLegacyMultipath) {
  netlink::route legacy = route_via(net("40.0.0.0/24"), "10.2.0.9", 2);
  legacy.next_hops.push_back({3, ip("10.3.0.9"), 1, 0, false});
  apply(added(legacy));
  flow_class cls;
  cls.source_v4 = ip("10.3.0.1");
  for (int host = 1; host < 50; ++host)
    EXPECT_EQ(ask(("40.0.0." + std::to_string(host)).c_str(), cls).interface_index, 3u);
}

TEST_F(Resolve, BoundsFollowTheWeights) {
  netlink::route legacy = route_via(net("40.0.0.0/24"), "10.2.0.9", 2);
  legacy.next_hops.push_back({3, ip("10.3.0.9"), 3, 0, false});
  apply(added(legacy));
  const resolution answer = ask("40.0.0.1");
  ASSERT_EQ(answer.shares.size(), 2u);
  EXPECT_EQ(answer.shares[0].bound, 0x1fffffffu);
  EXPECT_EQ(answer.shares[1].bound, 0x7fffffffu);
  EXPECT_FALSE(answer.choice_known);  // Without a seed the kernel's hash is secret.
}

// ------------------------------------------------------------------------------------------------
// IPv6

TEST_F(Resolve, FailedGatewayShortensThePrefixOnHostsOnly) {
  apply(added(route_via(ip_prefix::all(ip_family::v6), "fd00:2::2", 2)));
  apply(added(route_via(net("2001:1::/32"), "fd00:3::9", 3)));
  apply(neighbour(3, ip("fd00:3::9"), NUD_FAILED));
  EXPECT_EQ(ask("2001:1::1").interface_index, 2u);
  netlink::netconf router;
  router.family = ip_family::v6;
  router.index = NETCONFA_IFINDEX_ALL;
  router.forwarding = true;
  apply(router);
  EXPECT_EQ(ask("2001:1::1").interface_index, 3u);
}

TEST_F(Resolve, LaterMetricsCompeteTogether) {
  const auto add = [&](const char* gateway, std::uint32_t index, std::uint32_t metric,
                       std::uint8_t preference) {
    netlink::route made = route_via(net("2001:3::/32"), gateway, index);
    made.priority = metric;
    made.preference = preference;
    apply(added(made));
  };
  add("fd00:2::2", 2, 10, 0);
  add("fd00:3::2", 3, 20, 3);
  add("fd00:3::3", 3, 30, 1);
  const resolution answer = ask("2001:3::1", over(3));
  EXPECT_EQ(answer.members.front().gateway, ip("fd00:3::3"));
}

TEST_F(Resolve, DeviceIsStrictWithoutSourceAndAPreferenceWithOne) {
  netlink::route first = route_via(net("2001:d::/32"), "fd00:2::2", 2);
  first.priority = 10;
  apply(added(first));
  netlink::route second = route_via(net("2001:d::/32"), "fd00:3::2", 3);
  second.priority = 20;
  apply(added(second));
  EXPECT_EQ(ask("2001:d::1", over(3)).interface_index, 3u);
  flow_class cls = over(3);
  cls.source_v6 = ip("fd00:3::1");
  EXPECT_EQ(ask("2001:d::1", cls).interface_index, 2u);
  EXPECT_EQ(ask("2001:d::1", cls, route_question::send).interface_index,
            3u);  // A bound socket is strict.
}

TEST_F(Resolve, SocketLooksTwiceWhereNoRouteWasFound) {
  apply(rule_to_table(ip_family::v6, 50, 100));
  netlink::rule from = rule_to_table(ip_family::v6, 40, 101);
  from.from = net("fd00:4::/64");
  apply(from);
  apply(added(route_via(net("2001:9::/32"), "fd00:4::2", 4, 101)));
  EXPECT_EQ(ask("2001:9::1").error, ENETUNREACH);
  apply(removal(address(2, "fd00:2::1", 64)));
  apply(removal(address(3, "fd00:3::1", 64)));
  const resolution sent = ask("2001:9::1", {}, route_question::send);
  EXPECT_EQ(sent.error, 0);
  EXPECT_EQ(sent.source, ip("fd00:4::1"));
}

TEST_F(Resolve, NewestOfEqualAddressesIsTheSource) {
  apply(address(2, "2001:db8:2::1", 64));
  apply(address(2, "2001:db8:2::2", 64));
  apply(added(route_via(net("2001:db8:9::/48"), "fd00:2::2", 2)));
  EXPECT_EQ(ask("2001:db8:9::1").source, ip("2001:db8:2::2"));
}

TEST_F(Resolve, AddressOfTheOutputDeviceBeatsABetterLabel) {
  apply(removal(address(3, "fd00:3::1", 64)));
  apply(address(3, "2400:1::1", 64));
  apply(added(route_via(net("2600::/16"), "fd00:2::2", 2)));
  EXPECT_EQ(ask("2600::1").source, ip("fd00:2::1"));
}

TEST_F(Resolve, RejectedRouteIsSkippedByAStrictDevice) {
  netlink::route blackhole = route_on(net("2001:36::/32"), 1);
  blackhole.type = RTN_BLACKHOLE;
  apply(added(blackhole));
  apply(added(route_via(ip_prefix::all(ip_family::v6), "fd00:2::2", 2)));
  EXPECT_EQ(ask("2001:36::1").error, EINVAL);
  EXPECT_EQ(ask("2001:36::1", over(2)).interface_index, 2u);
}

TEST_F(Resolve, NotRuleInvertsTheWholeConjunction) {
  netlink::rule rule = rule_to_table(ip_family::v6, 5, 0);
  rule.kind = 7;
  rule.invert = true;
  rule.from = net("fd00:3::/64");
  rule.to = net("2621::/16");
  apply(rule);
  apply(added(route_via(ip_prefix::all(ip_family::v6), "fd00:2::2", 2)));
  EXPECT_EQ(ask("2700::1").error, ENETUNREACH);
}

TEST_F(Resolve, NoSourceAddressIsNamed) {
  for (std::uint32_t index = 2; index <= 4; ++index)
    apply(removal(address(index, ("fd00:" + std::to_string(index) + "::1").c_str(), 64)));
  apply(removal(address(1, "::1", 128)));
  apply(added(route_on(net("2001:db8::/32"), 2)));
  EXPECT_EQ(ask("2001:db8::1").divert, divert_reason::no_source_address);
}

TEST_F(Resolve, Ipv6MeasuresACachedRouteWhereARuleSuppressesShortOnes) {
  add_nexthop(1, 2, "fd00:2::9");
  add_nexthop(2, 2, "10.2.0.9");
  for (const ip_family family : ip_families) {
    netlink::rule rule = rule_to_table(family, 5, RT_TABLE_MAIN);
    rule.suppress_prefix_length = 16;
    apply(rule);
  }
  add_object_route("2001:db8:1::/48", 1);
  add_object_route("32.0.0.0/24", 2);
  apply(added(route_via(net("2001:db8:2::/48"), "fd00:2::9", 2)));
  EXPECT_EQ(ask("2001:db8:1::1").divert, divert_reason::shared_nexthop);
  EXPECT_FALSE(ask("2001:db8:2::1").divert);
  EXPECT_FALSE(ask("32.0.0.1").divert);
}

TEST_F(Resolve, BoundIpv6FlowsOverAGroupTakeTheMemberOnTheirDeviceWhateverItsNeighbour) {
  add_group_v6_of_linux_7();
  add_object_route("2001:db8::/32", 100);
  for (const int nud : {NUD_REACHABLE, NUD_FAILED}) {
    apply(neighbour(2, ip("fd00:2::9"), static_cast<std::uint16_t>(nud)));
    const resolution answer = ask("2001:db8::1", over(2));
    ASSERT_EQ(answer.members.size(), 2u);
    EXPECT_EQ(answer.members[answer.chosen].interface_index, 2u) << nud;
    EXPECT_TRUE(answer.choice_known) << nud;
  }
}

// rt6_nh_find_match() in net/ipv6/route.c: seen in world 14132 of test_kernel_differential_all.
TEST_F(Resolve, OfAnIpv6GroupTheFirstMemberCountsThatIsBetterThanTheRoutesBefore) {
  add_group_v6_of_linux_7();
  apply(added(route_via(net("2001:db8::/32"), "fd00:4::9", 4)));
  netlink::route second = route_on(net("2001:db8::/32"), 0);
  second.next_hops.clear();
  second.nexthop_id = 100;
  apply(appended(second));
  flow_class prefers = over(3);
  prefers.source_v6 = ip("fd00:2::1");  // So that the device is a preference.
  const resolution answer = ask("2001:db8::1", prefers);
  ASSERT_EQ(answer.members.size(), 2u);
  EXPECT_EQ(answer.members[answer.chosen].interface_index, 3u);
  prefers = over(4);
  prefers.source_v6 = ip("fd00:2::1");
  EXPECT_EQ(ask("2001:db8::1", prefers).members.front().interface_index, 4u);
}

TEST_F(Resolve, PathMtuAndMetricsDecideTheSize) {
  netlink::route made = route_via(net("20.0.0.0/8"), "10.2.0.2", 2);
  made.metrics.mtu = 1400;
  made.metrics.hop_limit = 7;
  apply(added(made));
  EXPECT_EQ(ask("20.0.0.1").mtu, 1400u);
  EXPECT_EQ(ask("20.0.0.1").hop_limit, 7);
  state.set_path_mtu(ip("20.0.0.1"), 1300, std::chrono::steady_clock::time_point::max(), changes);
  EXPECT_EQ(ask("20.0.0.1").mtu, 1300u);
  EXPECT_EQ(ask("20.0.0.2").mtu, 1400u);
}

TEST_F(Resolve, PathMtuOfAnotherNextHopDoesNotEnlargeWhatTheDeviceTakes) {
  netlink::link small = ethernet(3, "u3");
  small.mtu = 1290;
  apply(small);
  apply(added(route_via(net("20.0.0.0/8"), "10.3.0.2", 3)));
  apply(added(route_via(net("2001:db8::/32"), "fd00:3::2", 3)));
  for (const char* to : {"20.0.0.1", "2001:db8::1"}) {
    state.set_path_mtu(ip(to), 1421, std::chrono::steady_clock::time_point::max(), changes);
    EXPECT_EQ(ask(to).mtu, 1290u) << to;
  }
}

// ------------------------------------------------------------------------------------------------
// path exceptions

class PathException : public Resolve {
 protected:
  void SetUp() override {
    apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2)));
    apply(added(route_via(net("20.0.0.0/8"), "10.2.0.3", 2, 100)));
    netlink::rule marked = rule_to_table(ip_family::v4, 5, 100);
    marked.mark = marked.mark_mask = 1;
    apply(marked);
  }
  [[nodiscard]] static path_exception::answer redirect(const char* from, const char* gateway) {
    path_exception::answer made;
    made.owner.route = route_via(net("20.0.0.0/8"), from, 2);
    made.owner.route.destination = ip_prefix::all(ip_family::v4);
    made.owner.interface_index = 2;
    made.owner.gateway = ip(from);
    made.redirected = gateway != nullptr;
    if (gateway != nullptr) made.gateway = ip(gateway);
    return made;
  }
  void learn(std::vector<path_exception::answer> answers, bool doubtful = false) {
    path_exception known;
    known.redirected = true;
    known.doubtful = doubtful;
    known.answers = std::move(answers);
    state.set_path_exception(ip("20.0.0.1"), known, changes);
  }
  [[nodiscard]] std::optional<ip_address> gateway_to(const char* to) const {
    return ask(to).members.at(0).gateway;
  }
};

TEST_F(PathException, RedirectTakesThePlaceOfTheGatewayOfItsNextHopAlone) {
  learn({redirect("10.2.0.2", "10.2.0.9")});
  EXPECT_EQ(gateway_to("20.0.0.1"), ip("10.2.0.9"));
  EXPECT_FALSE(ask("20.0.0.1").divert);
  EXPECT_EQ(ask("20.0.0.1").source, ip("10.2.0.1"));
  EXPECT_EQ(gateway_to("20.0.0.2"), ip("10.2.0.2"));
  flow_class marked;
  marked.mark = 1;
  EXPECT_EQ(ask("20.0.0.1", marked).divert, divert_reason::path_exception);  // Not asked about.
  EXPECT_FALSE(ask("20.0.0.2", marked).divert);
  // The kernel forgets it with the route.
  netlink::route other = route_via(net("20.0.0.0/8"), "10.2.0.4", 2);
  apply(replacing(other));
  EXPECT_EQ(ask("20.0.0.1").divert, divert_reason::path_exception);
  state.set_path_exception(ip("20.0.0.1"), std::nullopt, changes);
  EXPECT_EQ(gateway_to("20.0.0.1"), ip("10.2.0.4"));
}

TEST_F(PathException, DoubtLeavesTheDestinationToTheKernel) {
  learn({redirect("10.2.0.2", "10.2.0.9")}, true);
  EXPECT_EQ(ask("20.0.0.1").divert, divert_reason::path_exception);
}

TEST_F(PathException, NextHopsOfMultipathAreNotToldApart) {
  netlink::route several = route_via(net("20.0.0.0/16"), "10.2.0.2", 2);
  several.next_hops.push_back({3, ip("10.3.0.2"), 1, 0, false});
  apply(added(several));
  learn({redirect("10.2.0.2", "10.2.0.9")});
  EXPECT_EQ(ask("20.0.0.1").divert, divert_reason::path_exception);
}

TEST_F(PathException, LockedPathMtuTakesDfAway) {
  path_exception known;
  known.mtu = 552;
  known.mtu_locked = true;
  state.set_path_exception(ip("20.0.0.1"), known, changes);
  EXPECT_EQ(ask("20.0.0.1").mtu, 552u);
  EXPECT_TRUE(ask("20.0.0.1").mtu_locked);
  EXPECT_FALSE(ask("20.0.0.2").mtu_locked);
}

// ------------------------------------------------------------------------------------------------
// source-specific routes

class SourceSpecific : public Resolve {
 protected:
  void SetUp() override {
    apply(added(route_via(ip_prefix::all(ip_family::v6), "fd00:2::2", 2)));
    apply(added(route_via(net("2001:db8::/32"), "fd00:3::2", 3)));
    netlink::route sourced = route_via(net("2001:db8::/32"), "fd00:4::2", 4);
    sourced.source = net("fd00:4::/64");
    apply(added(sourced));
  }
  [[nodiscard]] std::uint32_t device_for(const char* to, const char* source) const {
    flow_class cls;
    if (source != nullptr) cls.source_v6 = ip(source);
    return ask(to, cls).interface_index;
  }
};

TEST_F(SourceSpecific, ServesItsSourceAndHidesThePlainRouteFromOthers) {
  EXPECT_EQ(device_for("2001:db8::1", "fd00:4::1"), 4u);
  EXPECT_EQ(device_for("2001:db8::1", "fd00:3::1"), 2u);
  EXPECT_EQ(device_for("2001:db8::1", nullptr), 2u);
}

TEST_F(SourceSpecific, PlainRouteIsFoundOnTheWayBack) {
  apply(neighbour(4, ip("fd00:4::2"), NUD_FAILED));
  EXPECT_EQ(device_for("2001:db8::1", "fd00:4::1"), 3u);
  // Also from a longer prefix that has nothing usable.
  apply(added(route_via(net("2001:db8:1::/48"), "fd00:2::9", 2)));
  apply(neighbour(2, ip("fd00:2::9"), NUD_FAILED));
  EXPECT_EQ(device_for("2001:db8:1::1", "fd00:3::1"), 3u);
}

TEST_F(SourceSpecific, LongestSourceWins) {
  netlink::route longer = route_via(net("2001:db8::/32"), "fd00:3::3", 3);
  longer.source = net("fd00:4::1/128");
  apply(added(longer));
  EXPECT_EQ(device_for("2001:db8::1", "fd00:4::1"), 3u);
}

TEST_F(SourceSpecific, WithoutAPlainRouteAndAboveLongerPrefixesItMayBeLost) {
  netlink::route sourced = route_via(net("2001:a::/32"), "fd00:4::2", 4);
  sourced.source = net("fd00:4::/64");
  apply(added(sourced));
  flow_class cls;
  cls.source_v6 = ip("fd00:4::1");
  EXPECT_EQ(ask("2001:a::1", cls).interface_index, 4u);
  EXPECT_FALSE(ask("2001:a::1", cls).divert);
  apply(added(route_via(net("2001:a:1::/48"), "fd00:3::2", 3)));
  EXPECT_EQ(ask("2001:a::1", cls).divert, divert_reason::source_tree);
  // Who comes back from the longer prefix finds it in any case.
  apply(neighbour(3, ip("fd00:3::2"), NUD_FAILED));
  EXPECT_EQ(ask("2001:a:1::1", cls).interface_index, 4u);
  EXPECT_FALSE(ask("2001:a:1::1", cls).divert);
}

TEST_F(SourceSpecific, DefaultRouteOfAnotherSourceHidesNoPlainDefault) {
  netlink::route sourced = route_via(ip_prefix::all(ip_family::v6), "fd00:3::3", 3);
  sourced.source = net("fd00:3::/64");
  apply(added(sourced));
  EXPECT_EQ(device_for("2600::1", "fd00:3::1"), 3u);
  EXPECT_EQ(device_for("2600::1", "fd00:2::1"), 2u);
}

// ------------------------------------------------------------------------------------------------
// what cannot be mirrored: each has its reason

class Unknowable : public Resolve {
 protected:
  /// Over u2 and u3.
  [[nodiscard]] static netlink::route multipath(ip_family family) {
    const bool v4 = family == ip_family::v4;
    netlink::route made =
        route_via(net(v4 ? "40.0.0.0/24" : "2001:d::/32"), v4 ? "10.2.0.9" : "fd00:2::9", 2);
    made.next_hops.push_back({3, ip(v4 ? "10.3.0.9" : "fd00:3::9"), 1, 0, false});
    return made;
  }
};

TEST_F(Unknowable, BucketsOfAResilientGroupThatWereNotReadYet) {
  add_resilient_group({{1, 1}, {2, 1}}, 8);
  EXPECT_EQ(ask("32.0.0.1").divert, divert_reason::resilient_group);
  for (std::uint16_t i = 0; i < 7; ++i) set_bucket(i, 1);
  std::size_t diverted = 0;
  for (int host = 1; host < 250; ++host) {
    const resolution answer = ask(("32.0.0." + std::to_string(host)).c_str());
    diverted += answer.divert == divert_reason::resilient_group;
    EXPECT_TRUE(answer.divert || answer.interface_index == 2);
  }
  EXPECT_GT(diverted, 10u);  // Those of the last bucket.
  EXPECT_LT(diverted, 60u);
  set_bucket(7, 2);
  for (int host = 1; host < 250; ++host)
    EXPECT_FALSE(ask(("32.0.0." + std::to_string(host)).c_str()).divert);
}

TEST_F(Unknowable, WhetherADeletedInitialRuleIsConsulted) {
  apply(added(route_via(net("2001:1::/32"), "fd00:2::2", 2)));
  apply(removal(rule_to_table(ip_family::v6, 32766, RT_TABLE_MAIN)));
  EXPECT_EQ(ask("2001:1::1").divert, divert_reason::hidden_rules);
  EXPECT_EQ(ask("2002:1::1").error, ENETUNREACH);  // Either way.
  EXPECT_FALSE(ask("2002:1::1").divert);
  apply(rule_to_table(ip_family::v6, 7, 999));  // From now on it is.
  EXPECT_EQ(ask("2001:1::1").error, ENETUNREACH);
}

/// Own addresses are only those of table local, which rule 0 leads to.
class DeletedRuleZero : public Resolve {
 protected:
  void on_kernel(std::uint32_t version) {
    mirror_settings settings = state.settings();
    settings.kernel_version = version;
    state.set_settings(settings, changes);
    apply(added(route_via(ip_prefix::all(ip_family::v4), "10.2.0.2", 2)));
    apply(removal(rule_to_table(ip_family::v4, 0, RT_TABLE_LOCAL)));
  }
};

TEST_F(DeletedRuleZero, CountsAtOnceOnOldKernels) {
  on_kernel(7001);
  EXPECT_EQ(state.rules_configured(ip_family::v4), true);
  EXPECT_FALSE(ask("10.3.0.1").divert);
  EXPECT_EQ(ask("10.3.0.1").type, RTN_UNICAST);  // By the connected route of u3.
}

TEST_F(DeletedRuleZero, CountsOnceAnyWasAddedOnNewOnes) {
  on_kernel(7002);
  EXPECT_FALSE(state.rules_configured(ip_family::v4));
  EXPECT_EQ(ask("10.3.0.1").divert, divert_reason::hidden_rules);
  EXPECT_FALSE(ask("8.8.8.8").divert);  // The same by table main either way.
  EXPECT_EQ(ask("8.8.8.8").interface_index, 2u);
  apply(rule_to_table(ip_family::v4, 7, 999));
  EXPECT_FALSE(ask("10.3.0.1").divert);
  EXPECT_EQ(ask("10.3.0.1").type, RTN_UNICAST);
}

TEST_F(DeletedRuleZero, MadeAgainByAnybodyIsAnAddition) {
  on_kernel(7002);
  netlink::rule again = rule_to_table(ip_family::v4, 0, RT_TABLE_LOCAL);
  again.protocol = RTPROT_BOOT;
  mirror dumped = state;
  dumped.apply(again, changes, message_origin::dump);
  EXPECT_EQ(dumped.rules_configured(ip_family::v4), true);
}

/// Where the kernel's answers have told whether its rules count.
TEST_F(DeletedRuleZero, CountsOrNotAsTheKernelWasSeenToDecide) {
  on_kernel(7002);
  changes = {};
  state.set_rules_configured(ip_family::v4, false, changes);
  EXPECT_TRUE(changes.decisions_v4);
  EXPECT_FALSE(ask("8.8.8.8").divert);
  EXPECT_EQ(ask("10.3.0.1").type, RTN_LOCAL);
  EXPECT_EQ(ask("10.3.0.1").divert, divert_reason::local_destination);
  state.set_rules_configured(ip_family::v4, true, changes);
  EXPECT_FALSE(ask("10.3.0.1").divert);
  EXPECT_EQ(ask("10.3.0.1").type, RTN_UNICAST);
  state.set_rules_configured(ip_family::v4, std::nullopt, changes);
  EXPECT_EQ(ask("10.3.0.1").divert, divert_reason::hidden_rules);
  // An addition counts more, and another dump begins anew.
  state.set_rules_configured(ip_family::v4, false, changes);
  mirror shadow = small_world();
  mirror followed = state;
  followed.exchange_with(shadow);
  EXPECT_FALSE(followed.rules_configured(ip_family::v4));
  apply(rule_to_table(ip_family::v4, 7, 999));
  EXPECT_EQ(state.rules_configured(ip_family::v4), true);
}

TEST_F(Resolve, TablesLocalAndMainAreOneUntilARuleCounts) {
  reject_route("5.0.0.0/8", RTN_UNREACHABLE, RT_TABLE_LOCAL);
  apply(added(route_via(net("5.5.0.0/16"), "10.2.0.2", 2)));
  reject_route("5.5.5.0/24", RTN_PROHIBIT, RT_TABLE_LOCAL);
  apply(added(route_via(net("5.5.5.0/24"), "10.2.0.2", 2)));
  EXPECT_EQ(ask("5.5.0.1").divert, divert_reason::merged_tables);
  state.set_rules_configured(ip_family::v4, false, changes);
  EXPECT_FALSE(ask("5.5.0.1").divert);
  EXPECT_EQ(ask("5.5.0.1").interface_index, 2u);
  EXPECT_EQ(ask("5.5.0.1").table, RT_TABLE_MAIN);
  EXPECT_EQ(ask("5.1.0.1").error, EHOSTUNREACH);
  EXPECT_EQ(ask("5.5.5.1").error, EACCES);  // Of one prefix table local's come first.
  state.set_rules_configured(ip_family::v4, true, changes);
  EXPECT_EQ(ask("5.5.0.1").error, EHOSTUNREACH);
}

TEST_F(Resolve, AnErrorOfTableLocalHidesNoLongerRouteOfMain) {
  reject_route("5.0.0.0/8", RTN_UNREACHABLE, RT_TABLE_LOCAL);
  apply(added(route_via(net("5.5.0.0/16"), "10.2.0.2", 2)));
  EXPECT_EQ(ask("5.1.0.1").error, EHOSTUNREACH);
  EXPECT_EQ(ask("5.5.0.1").divert, divert_reason::merged_tables);
  apply(rule_to_table(ip_family::v4, 7, 999));
  EXPECT_EQ(ask("5.5.0.1").error, EHOSTUNREACH);
}

TEST_F(Unknowable, GatewayThatADumpShowsAsOurOwnAddress) {
  state.apply(route_via(net("44.0.0.0/24"), "10.2.0.1", 2), changes, message_origin::dump);
  EXPECT_EQ(ask("44.0.0.1").divert, divert_reason::own_gateway);
  // Who saw it being made knows: it behaves as if there were no gateway.
  apply(added(route_via(net("45.0.0.0/24"), "10.2.0.1", 2)));
  EXPECT_FALSE(ask("45.0.0.1").divert);
  // Where another table or device was asked first it may be one like any other.
  apply(added(route_via(net("46.0.0.0/24"), "10.3.0.1", 2)));
  EXPECT_EQ(ask("46.0.0.1").divert, divert_reason::own_gateway);
}

TEST_F(Unknowable, NexthopObjectWhoseGatewayWasOurOwnAddress) {
  netlink::nexthop_object object;
  object.id = 7;
  object.index = 2;
  object.gateway = ip("10.2.0.9");
  object.scope = RT_SCOPE_LINK;
  apply(object);
  netlink::route over = route_via(net("44.0.0.0/24"), "10.2.0.9", 2);
  over.nexthop_id = 7;
  apply(added(over));
  EXPECT_FALSE(ask("44.0.0.1").divert);
  object.scope = RT_SCOPE_HOST;
  object.replace = true;
  apply(object);
  EXPECT_EQ(ask("44.0.0.1").divert, divert_reason::own_gateway);
}

TEST_F(Resolve, AnOwnGatewayChoosesTheSourceThoughNothingGoesToIt) {
  apply(address(2, "10.6.0.1", 24));
  apply(added(route_via(net("45.0.0.0/24"), "10.6.0.1", 2)));
  EXPECT_FALSE(ask("45.0.0.1").divert);
  EXPECT_FALSE(ask("45.0.0.1").members.front().gateway);
  EXPECT_EQ(ask("45.0.0.1").source, ip("10.6.0.1"));
}

TEST_F(Unknowable, WhatRoutesOverOneNexthopObjectCache) {
  add_nexthop(1, 2, "10.2.0.9");
  add_object_route("32.0.0.0/24", 1);
  EXPECT_FALSE(ask("32.0.0.1").divert);
  netlink::route other = route_on(net("33.0.0.0/24"), 0);
  other.next_hops.clear();
  other.nexthop_id = 1;
  other.metrics.mtu = 1300;
  apply(added(other));
  EXPECT_EQ(ask("32.0.0.1").divert, divert_reason::shared_nexthop);
}

TEST_F(Unknowable, SourceThatGroupsWithDifferentFirstMembersCache) {
  add_nexthop(1, 2, "fd00:2::9");
  add_nexthop(2, 3, "fd00:3::9");
  netlink::nexthop_object group;
  group.id = 100;
  group.family_unspecified = true;
  group.group = {{1, 1}, {2, 1}};
  apply(group);
  add_object_route("2001:a::/32", 100);
  EXPECT_FALSE(ask("2001:a::1").divert);
  add_object_route("2001:b::/32", 2);
  EXPECT_EQ(ask("2001:a::1").divert, divert_reason::shared_nexthop);
}

TEST_F(Unknowable, SharesFromBeforeLinkdownWasIgnored) {
  apply(added(multipath(ip_family::v4)));
  apply(added(multipath(ip_family::v6)));
  netlink::link lost = ethernet(3, "u3");
  lost.carrier = false;
  lost.flags = IFF_UP;
  apply(lost);
  netlink::netconf setting;
  setting.index = 3;
  setting.ignore_routes_with_linkdown = true;
  for (const ip_family family : ip_families) {
    const char* to = family == ip_family::v4 ? "40.0.0.1" : "2001:d::1";
    EXPECT_FALSE(ask(to).divert);
    setting.family = family;
    apply(setting);
    EXPECT_EQ(ask(to).divert, divert_reason::stale_shares);
  }
  lost.carrier = true;
  lost.flags = IFF_UP | IFF_RUNNING;
  apply(lost);
  for (const char* to : {"40.0.0.1", "2001:d::1"}) EXPECT_FALSE(ask(to).divert);
}

TEST_F(Unknowable, PreferenceOfASiblingBesideAnotherRoute) {
  apply(added(route_on(net("2001:a::/32"), 2)));
  netlink::route first = route_via(net("2001:a::/32"), "fd00:3::2", 3);
  apply(appended(first));
  EXPECT_FALSE(ask("2001:a::1").divert);
  netlink::route preferred = route_via(net("2001:a::/32"), "fd00:4::2", 4);
  preferred.preference = 1;
  preferred.next_hops.push_back(first.next_hops.front());
  apply(appended(preferred));
  EXPECT_EQ(ask("2001:a::1").divert, divert_reason::mixed_siblings);
}

TEST_F(Unknowable, CachedSourceThatSteersMultipath) {
  apply(added(multipath(ip_family::v4)));
  apply(address(3, "10.3.0.7", 24));
  flow_class cls;
  cls.source_v4 = ip("10.3.0.1");
  EXPECT_FALSE(ask("40.0.0.1", cls).divert);
  apply(removal(address(3, "10.3.0.1", 24)));  // The next hop may have cached either.
  cls.source_v4 = ip("10.3.0.7");
  EXPECT_EQ(ask("40.0.0.1", cls).divert, divert_reason::cached_source);
}

TEST_F(Unknowable, WhatIpv6SiblingsDoNotShow) {
  apply(added(multipath(ip_family::v6)));
  EXPECT_FALSE(ask("2001:d::1").divert);
  netlink::route third = route_via(net("2001:d::/32"), "fd00:4::9", 4);
  third.metrics.mtu = 1300;
  apply(appended(third));
  EXPECT_EQ(ask("2001:d::1").divert, divert_reason::mixed_siblings);
}

TEST_F(Unknowable, HashOfASourceThatTheSocketChose) {
  netlink::rule from = rule_to_table(ip_family::v6, 40, 101);
  from.from = net("fd00::/16");
  apply(from);
  netlink::route only = multipath(ip_family::v6);
  only.table = 101;
  apply(added(only));
  apply(removal(address(3, "fd00:3::1", 64)));  // One source to choose from.
  apply(removal(address(4, "fd00:4::1", 64)));
  EXPECT_EQ(ask("2001:d::1", {}, route_question::send).divert, divert_reason::chosen_source);
  flow_class bound;
  bound.source_v6 = ip("fd00:2::1");
  EXPECT_FALSE(ask("2001:d::1", bound, route_question::send).divert);
}

TEST_F(Unknowable, SourceOfADeviceWhoseRankADumpHides) {
  apply(removal(address(2, "10.2.0.1", 24)));
  apply(added(route_on(net("50.0.0.0/24"), 2)));
  EXPECT_EQ(ask("50.0.0.1").divert, divert_reason::source_tie);
  apply(address(2, "10.2.0.5", 24));
  EXPECT_FALSE(ask("50.0.0.1").divert);
}

TEST_F(Unknowable, SourceOfADeviceWhoseRankWasRead) {
  constexpr std::uint32_t order[] = {1, 4, 3, 2};
  apply(removal(address(2, "10.2.0.1", 24)));
  apply(removal(address(2, "fd00:2::1", 64)));
  apply(added(route_on(net("50.0.0.0/24"), 2)));
  apply(added(route_on(net("2001:d::/32"), 2)));
  for (const ip_family family : ip_families) {
    const char* to = family == ip_family::v4 ? "50.0.0.1" : "2001:d::1";
    EXPECT_TRUE(state.has_hidden_order(family));
    EXPECT_EQ(ask(to).divert, divert_reason::source_tie);
    changes = {};
    state.set_device_order(family, order, changes);
    EXPECT_TRUE(family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6);
    EXPECT_FALSE(state.has_hidden_order(family));
    EXPECT_FALSE(ask(to).divert);
    EXPECT_EQ(ask(to).source, ip(family == ip_family::v4 ? "10.4.0.1" : "fd00:4::1"));
    changes = {};
    state.set_device_order(family, order, changes);
    EXPECT_TRUE(changes.empty());
  }
  // Whoever comes is the last.
  apply(removal(ethernet(4, "u4")));
  apply(ethernet(4, "again"));
  apply(address(4, "10.4.0.1", 24));
  EXPECT_FALSE(ask("50.0.0.1").divert);
  EXPECT_EQ(ask("50.0.0.1").source, ip("10.3.0.1"));
}

TEST_F(Unknowable, SourceOfADeviceThatWasNotAmongThoseRead) {
  constexpr std::uint32_t order[] = {1, 3};
  apply(removal(address(2, "10.2.0.1", 24)));
  apply(added(route_on(net("50.0.0.0/24"), 2)));
  state.set_device_order(ip_family::v4, order, changes);
  EXPECT_TRUE(state.has_hidden_order(ip_family::v4));
  EXPECT_EQ(ask("50.0.0.1").divert, divert_reason::source_tie);
  apply(removal(address(4, "10.4.0.1", 24)));
  EXPECT_FALSE(ask("50.0.0.1").divert);
}

/// Of devices that a dump is the first to tell of only that they came later is known.
TEST_F(Unknowable, OrderOfDevicesIsReadAnewAfterAnotherDump) {
  constexpr std::uint32_t order[] = {1, 4, 3, 2};
  apply(removal(address(2, "10.2.0.1", 24)));
  apply(added(route_on(net("50.0.0.0/24"), 2)));
  state.set_device_order(ip_family::v4, order, changes);
  mirror shadow = small_world();
  for (const std::uint32_t index : {6u, 7u}) {
    shadow.apply(ethernet(index, "u" + std::to_string(index)), changes, message_origin::dump);
    const std::string own = "10." + std::to_string(index) + ".0.1";
    shadow.apply(address(index, own.c_str(), 24), changes, message_origin::dump);
  }
  state.exchange_with(shadow);
  EXPECT_TRUE(state.has_hidden_order(ip_family::v4));
  EXPECT_EQ(state.find_device(6)->registered, state.find_device(7)->registered);
}

TEST_F(Unknowable, SourceByAnotherPolicyThanTheDefault) {
  apply(added(route_via(net("2001:d::/32"), "fd00:2::9", 2)));
  mirror_settings settings;
  settings.default_source_policy = false;
  state.set_settings(settings, changes);
  EXPECT_EQ(ask("2001:d::1").divert, divert_reason::source_policy);
  flow_class bound;
  bound.source_v6 = ip("fd00:2::1");
  EXPECT_FALSE(ask("2001:d::1", bound).divert);
}

TEST_F(Unknowable, TemporaryAddressesAsSource) {
  apply(added(route_via(net("2001:d::/32"), "fd00:2::9", 2)));
  EXPECT_FALSE(ask("2001:d::1").divert);
  netlink::address temporary = address(2, "2001:db8::77", 64);
  temporary.flags |= IFA_F_TEMPORARY;
  apply(temporary);
  EXPECT_EQ(ask("2001:d::1").divert, divert_reason::source_tie);
  // Until it is known what the device prefers. In all before that rule the two are alike.
  apply(address(2, "2001:db8::1", 64));
  for (const bool prefers : {true, false}) {
    mirror_settings settings = state.settings();
    settings.prefers_temporary[2] = prefers;
    state.set_settings(settings, changes);
    EXPECT_FALSE(ask("2001:d::1").divert);
    EXPECT_EQ(ask("2001:d::1").source, ip(prefers ? "2001:db8::77" : "2001:db8::1"));
  }
}

/// Whether the kernel prefers them depends on how it was built.
TEST_F(Unknowable, HomeAddressesAsSource) {
  apply(added(route_via(net("2001:d::/32"), "fd00:2::9", 2)));
  netlink::address home = address(2, "2001:db8::77", 64);
  home.flags |= IFA_F_HOMEADDRESS;
  apply(home);
  EXPECT_EQ(ask("2001:d::1").divert, divert_reason::source_tie);
}

TEST_F(Unknowable, SuppressionByAGroupThatOnlySomeMembersHave) {
  netlink::route group = multipath(ip_family::v6);
  apply(added(group));
  netlink::rule rule = rule_to_table(ip_family::v6, 50, RT_TABLE_MAIN);
  rule.suppress_group = 7;
  apply(rule);
  EXPECT_FALSE(ask("2001:d::1").divert);
  netlink::link in_group = ethernet(3, "u3");
  in_group.group = 7;
  apply(in_group);
  EXPECT_EQ(ask("2001:d::1").divert, divert_reason::unsupported_rule);
}

/// red (ifindex 9, table 100) has u2; u3 and u4 are outside.
class Vrf : public Resolve {
 protected:
  void SetUp() override {
    state = small_world();
    netlink::link red = ethernet(9, "red");
    red.kind = "vrf";
    red.info = netlink::vrf_info{100};
    apply(red);
    for (const ip_family family : ip_families) {
      netlink::rule rule = rule_to_table(family, 1000, 0);
      rule.l3mdev = true;
      apply(rule);
    }
    netlink::link member = ethernet(2, "u2");
    member.master = 9;
    member.slave_kind = "vrf";
    apply(member);
    apply(address(9, "10.255.0.1", 32));
    apply(address(9, "fd55::1", 128));
    in_red.output_interface = 9;
    from_u2.output_interface = 2;
  }
  flow_class in_red, from_u2;
};

TEST_F(Vrf, SendersInItAndOnItsDevicesAskItsTable) {
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.9", 2, 100)));
  apply(added(route_via(net("2001:d::/32"), "fd00:2::9", 2, 100)));
  for (const flow_class& cls : {in_red, from_u2}) {
    EXPECT_EQ(ask("20.0.0.1", cls).table, 100u);
    EXPECT_EQ(ask("20.0.0.1", cls).source, ip("10.2.0.1"));
    EXPECT_EQ(ask("2001:d::1", cls).table, 100u);
    EXPECT_FALSE(ask("20.0.0.1", cls).divert);
  }
  EXPECT_EQ(ask("20.0.0.1").error, ENETUNREACH);
}

TEST_F(Vrf, WhatItDoesNotKnowIsLookedUpInMain) {
  apply(added(route_via(net("20.0.0.0/8"), "10.3.0.9", 3)));
  EXPECT_EQ(ask("20.0.0.1", in_red).interface_index, 3u);
  EXPECT_EQ(ask("20.0.0.1", from_u2).error, ENETUNREACH);  // Not on link, as elsewhere.
  reject_route("0.0.0.0/0", RTN_UNREACHABLE, 100);
  EXPECT_EQ(ask("20.0.0.1", in_red).error, EHOSTUNREACH);
}

TEST_F(Vrf, GroupsAreTheKernelsInItAndOverItsDevices) {
  apply(added(route_via(net("0.0.0.0/0"), "10.3.0.9", 3)));
  flow_class by_interface, from_red_by_interface = in_red;
  by_interface.multicast_interface = from_red_by_interface.multicast_interface = 2;
  for (const flow_class& cls : {in_red, from_u2, by_interface, from_red_by_interface}) {
    const resolution answer = ask("239.1.1.1", cls, route_question::send);
    EXPECT_EQ(answer.divert, divert_reason::multicast_destination);
    // A socket that is bound to the VRF asks outside of it, unless it names a device.
    EXPECT_EQ(answer.interface_index, cls == in_red ? 3u : 2u);
  }
  EXPECT_FALSE(ask("239.1.1.1", {}, route_question::send).divert);
}

TEST_F(Vrf, ThatIsNamedForGroupsIsAskedAboutThem) {
  apply(added(route_via(net("0.0.0.0/0"), "10.3.0.9", 3)));
  flow_class by_red, from_red_by_red = in_red;
  by_red.multicast_interface = from_red_by_red.multicast_interface = 9;
  for (const flow_class& cls : {by_red, from_red_by_red})
    EXPECT_EQ(ask("239.1.1.1", cls, route_question::send).interface_index, 3u);
  apply(added(route_via(net("0.0.0.0/0"), "10.2.0.9", 2, 100)));
  for (const flow_class& cls : {by_red, from_red_by_red}) {
    const resolution answer = ask("239.1.1.1", cls, route_question::send);
    EXPECT_EQ(answer.interface_index, 2u);
    EXPECT_EQ(answer.divert, divert_reason::multicast_destination);
  }
}

TEST_F(Vrf, WhatLeavesItHasASourceOfIt) {
  netlink::route leak = route_via(net("20.0.0.0/8"), "10.3.0.9", 3, 100);
  leak.preferred_source = ip("10.3.0.1");
  apply(added(leak));
  leak = route_via(net("2001:d::/32"), "fd00:3::9", 3, 100);
  apply(added(leak));
  EXPECT_EQ(ask("20.0.0.1", in_red).source, ip("10.255.0.1"));
  EXPECT_EQ(ask("2001:d::1", in_red, route_question::send).source, ip("fd55::1"));
  EXPECT_EQ(ask("2001:d::1", in_red).source, ip("fd00:3::1"));  // So answers RTM_GETROUTE.
  apply(removal(address(9, "10.255.0.1", 32)));
  EXPECT_EQ(ask("20.0.0.1", in_red).source, ip("10.2.0.1"));
}

TEST_F(Vrf, WhatComesFromOutsideHasTheSourceOfTheDevice) {
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.9", 2)));
  EXPECT_EQ(ask("20.0.0.1").source, ip("10.2.0.1"));
  apply(removal(address(2, "10.2.0.1", 24)));
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.9", 2)));
  EXPECT_EQ(ask("20.0.0.1").source, ip("10.255.0.1"));  // The VRF's, before lo's.
}

TEST_F(Vrf, LinkLocalDestinationsAskItsTableWithoutRules) {
  apply(added(route_on(net("fe80::/64"), 2, 100)));
  apply(address(2, "fe80::2", 64));
  EXPECT_EQ(ask("fe80::9", from_u2, route_question::send).interface_index, 2u);
  EXPECT_EQ(ask("fe80::9", in_red, route_question::send).error, ENETUNREACH);
}

TEST_F(Vrf, WithoutAnySourceASocketHearsSo) {
  apply(removal(address(9, "fd55::1", 128)));
  apply(removal(address(2, "fd00:2::1", 64)));
  EXPECT_EQ(ask("2001:d::1", in_red, route_question::send).error, EADDRNOTAVAIL);
}

TEST_F(Vrf, RulesThatNameItAreFollowedWhereTheKernelWasSeen) {
  netlink::rule rule = rule_to_table(ip_family::v4, 50, 101);
  rule.output_interface = "red";
  apply(rule);
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.9", 2, 101)));
  const auto with = [&](std::uint32_t version, const flow_class& cls,
                        route_question as = route_question::get_route) {
    mirror_settings settings;
    settings.kernel_version = version;
    state.set_settings(settings, changes);
    return ask("20.0.0.1", cls, as);
  };
  for (const flow_class& cls : {in_red, from_u2}) {
    EXPECT_EQ(with(6001, cls).error, ENETUNREACH);
    EXPECT_EQ(with(6012, cls).divert, divert_reason::unsupported_rule);
    EXPECT_EQ(with(7003, cls).table, 101u);
    EXPECT_EQ(with(7003, cls, route_question::outer).divert, divert_reason::unsupported_rule);
  }
  EXPECT_EQ(with(7003, {}).error, ENETUNREACH);
}

TEST_F(Vrf, NobodyIsInNoneByARuleThatSaysNot) {
  netlink::rule rule = rule_to_table(ip_family::v4, 50, 0);
  rule.l3mdev = rule.invert = true;
  apply(rule);
  EXPECT_EQ(ask("20.0.0.1").divert, divert_reason::unsupported_rule);
}

TEST_F(Vrf, ItsOwnRulesCountWhoeverSawThemMade) {
  mirror dumped;
  for (const auto& [index, device] : state.devices())
    dumped.apply(device.link, changes, message_origin::dump);
  EXPECT_EQ(dumped.rules_configured(ip_family::v4), true);
}

TEST_F(Resolve, NeighboursOverPointToPointDevicesAreOne) {
  mirror_settings settings;
  settings.multipath_use_neighbours = true;
  state.set_settings(settings, changes);
  netlink::link tunnel = ethernet(2, "u2");
  tunnel.flags |= IFF_POINTOPOINT;
  apply(tunnel);
  netlink::route made = route_via(net("20.0.0.0/8"), "10.2.0.9", 2);
  made.next_hops.push_back({3, ip("10.3.0.9"), 1, 0, false});
  apply(added(made));
  ASSERT_EQ(ask("20.0.0.1").shares.size(), 2u);
  apply(neighbour(2, ip("0.0.0.0"), NUD_FAILED));
  ASSERT_EQ(ask("20.0.0.1").shares.size(), 1u);
  EXPECT_EQ(ask("20.0.0.1").shares.front().member, 1u);
}

}  // namespace
}  // namespace cowire

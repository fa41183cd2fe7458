// SPDX-License-Identifier: Apache-2.0
/// When the kernel's answer is ours: what it does not show, or shows of another route, is no
/// disagreement, and nothing else is let pass. kernel_differential_test.cpp asks the kernel itself.
#include "world.hpp"

#include <cowire/route/agreement.hpp>

#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <cerrno>

namespace cowire {
namespace {

using namespace cowire::testing;

class Agreement : public ::testing::Test {
 protected:
  void apply(const netlink::message& message) {
    state.apply(message, changes, message_origin::notification);
  }
  [[nodiscard]] resolution ours(const flow& asked) const {
    return resolve(state, asked, route_question::get_route);
  }
  /// What a kernel that agrees answers.
  [[nodiscard]] static netlink::route_answer answer_of(const resolution& r) {
    netlink::route_answer answer;
    answer.error_number = r.error;
    if (r.error != 0) return answer;
    answer.route.type = r.type;
    answer.route.table = r.table;
    if (r.route) answer.route.metrics = r.route->metrics;
    const path_member& chosen = r.members[r.chosen];
    answer.route.next_hops = {{chosen.interface_index, chosen.gateway, 1, 0, false}};
    answer.route.preferred_source = r.source;
    return answer;
  }
  [[nodiscard]] std::string text(const flow& asked, const netlink::route_answer& kernel) const {
    return compare_answers(state, asked, ours(asked), kernel).text();
  }
  static flow to(const char* address) {
    flow asked;
    asked.destination = ip(address);
    return asked;
  }

  mirror state = small_world();
  mirror_changes changes;
};

TEST_F(Agreement, WhatAnAnswerShowsIsCompared) {
  apply(added(route_via(net("2001:db8::/32"), "fd00:2::2", 2)));
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2)));
  for (const char* address : {"2001:db8::1", "20.0.0.1"}) {
    const flow asked = to(address);
    const netlink::route_answer same = answer_of(ours(asked));
    EXPECT_EQ(text(asked, same), "");
    const auto changed = [&](auto&& change) {
      netlink::route_answer other = same;
      change(other);
      return text(asked, other);
    };
    EXPECT_EQ(changed([](auto& o) { o.error_number = EACCES; }), "errno 0, the kernel's 13");
    EXPECT_NE(changed([](auto& o) { o.route.type = RTN_LOCAL; }), "");
    EXPECT_NE(changed([](auto& o) { o.route.next_hops[0].index = 3; }), "");
    EXPECT_NE(changed([](auto& o) { o.route.next_hops[0].gateway.reset(); }), "");
    EXPECT_NE(changed([](auto& o) { o.route.preferred_source.reset(); }), "");
    EXPECT_NE(changed([](auto& o) { o.route.metrics.mtu = 1400; }), "");
    // IPv4 tells main of every table until rules are configured.
    EXPECT_EQ(changed([](auto& o) { o.route.table = 100; }).empty(), asked.destination.is_v4());
  }
  apply(rule_to_table(ip_family::v4, 5, 99));
  netlink::route_answer other = answer_of(ours(to("20.0.0.1")));
  other.route.table = 100;
  EXPECT_EQ(text(to("20.0.0.1"), other), "table 254, the kernel's 100");
}

TEST_F(Agreement, AnIpv6NexthopObjectShowsTheTableOfWhoeverAskedFirst) {
  netlink::nexthop_object object;
  object.id = 7;
  object.family = ip_family::v6;
  object.index = 2;
  object.gateway = ip("fd00:2::2");
  apply(object);
  netlink::route made = route_on(net("2001:db8:2::/48"), 0, 100);
  made.next_hops.clear();
  made.nexthop_id = 7;
  apply(added(made));
  netlink::rule rule = rule_to_table(ip_family::v6, 1000, 100);
  rule.to = net("2001:db8:2::/48");
  apply(rule);
  const flow asked = to("2001:db8:2::1");
  netlink::route_answer kernel = answer_of(ours(asked));
  ASSERT_EQ(ours(asked).table, 100u);
  kernel.route.table = RT_TABLE_MAIN;
  EXPECT_EQ(text(asked, kernel), "");
  kernel.route.destination = net("2001:db8:1::/48");
  EXPECT_FALSE(match_is_told(ours(asked)));
  EXPECT_EQ(match_disagreement(state, asked, ours(asked), kernel), "");
  kernel.route.next_hops[0].index = 3;
  EXPECT_NE(text(asked, kernel), "");
}

TEST_F(Agreement, ALearntPathMtuMayBeSmallerThanTheKernels) {
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2)));
  const flow asked = to("20.0.0.1");
  const netlink::route_answer without = answer_of(ours(asked));
  netlink::route_answer smaller = without;
  smaller.route.metrics.mtu = 1300;
  const agreement found = compare_answers(state, asked, ours(asked), smaller);
  EXPECT_EQ(found.path, "");
  EXPECT_FALSE(found.agrees());
  EXPECT_EQ(found.mtu, 1500u);
  EXPECT_EQ(found.kernel_mtu, 1300u);
  const auto later = std::chrono::steady_clock::now() + std::chrono::hours(1);
  state.set_path_mtu(asked.destination, 1400, later, changes);
  EXPECT_EQ(text(asked, without), "");
  EXPECT_EQ(text(asked, smaller), "MTU 1400, the kernel's 1300");
}

TEST_F(Agreement, OfASecretChoiceAnyShareWillDo) {
  netlink::route two = route_via(net("20.0.0.0/8"), "10.2.0.2", 2);
  two.next_hops.push_back({3, ip("10.3.0.2"), 1, 0, false});
  apply(added(two));
  const flow asked = to("20.0.0.1");
  ASSERT_FALSE(ours(asked).choice_known);
  for (const std::uint32_t index : {2u, 3u}) {
    netlink::route_answer kernel = answer_of(ours(asked));
    kernel.route.next_hops = {{index, ip(index == 2 ? "10.2.0.2" : "10.3.0.2"), 1, 0, false}};
    kernel.route.preferred_source = ip(index == 2 ? "10.2.0.1" : "10.3.0.1");
    EXPECT_EQ(text(asked, kernel), "");
    kernel.route.next_hops[0].gateway = ip("10.4.0.2");
    EXPECT_NE(text(asked, kernel), "");
  }
}

TEST_F(Agreement, OfASecretChoiceALearntPathMtuIsNoMoreThanTheDevicesThatTheKernelTook) {
  netlink::route two = route_via(net("20.0.0.0/8"), "10.2.0.2", 2);
  two.next_hops.push_back({3, ip("10.3.0.2"), 1, 0, false});
  apply(added(two));
  const flow asked = to("20.0.0.1");
  const auto later = std::chrono::steady_clock::now() + std::chrono::hours(1);
  state.set_path_mtu(asked.destination, 1400, later, changes);
  const resolution guess = ours(asked);
  ASSERT_FALSE(guess.choice_known);
  const path_member& other = guess.members[1 - guess.chosen];
  netlink::link small = state.find_device(other.interface_index)->link;
  small.mtu = 1290;
  apply(small);
  netlink::route_answer kernel = answer_of(guess);
  kernel.route.next_hops = {{other.interface_index, other.gateway, 1, 0, false}};
  kernel.route.preferred_source = other.source;
  EXPECT_EQ(text(asked, kernel), "");
  kernel.route.metrics.mtu = 1280;
  EXPECT_EQ(text(asked, kernel), "MTU 1290, the kernel's 1280");
}

TEST_F(Agreement, WhoHasNoLinkLayerAddressIsLeftToTheKernel) {
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.9", 2)));
  const flow asked = to("20.0.0.1");
  EXPECT_TRUE(next_hop_is_unresolved(state, asked, ours(asked)));
  EXPECT_FALSE(is_left_to_kernel(ours(asked)));
  apply(neighbour(2, ip("10.2.0.9"), NUD_FAILED));
  EXPECT_TRUE(next_hop_is_unresolved(state, asked, ours(asked)));
  apply(neighbour(2, ip("10.2.0.9"), NUD_STALE));
  EXPECT_FALSE(next_hop_is_unresolved(state, asked, ours(asked)));
  EXPECT_TRUE(is_left_to_kernel(ours(to("10.2.0.1"))));
}

}  // namespace
}  // namespace cowire

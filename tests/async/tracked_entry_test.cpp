// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/flow_tracker.hpp>
#include <cowire/async/detail/tracked_entry.hpp>

#include <gtest/gtest.h>

#include <cerrno>

namespace cowire::detail {
namespace {

using netlink::conntrack_entry;
using netlink::conntrack_status;
using netlink::conntrack_tuple;

const conntrack_tuple own{*ip_address::parse("10.0.0.1"), *ip_address::parse("10.0.0.2"), 8001,
                          9000, 17};

conntrack_entry ordinary() {
  conntrack_entry out;
  out.original = own;
  out.reply = own.inverse();
  out.status = conntrack_status::confirmed;
  out.timeout_s = 29;
  return out;
}

TEST(tracked_entry, of_an_ordinary_kind_is_no_obstacle_in_either_direction) {
  auto entry = ordinary();
  EXPECT_EQ(obstacle_in(entry, own), std::nullopt);
  EXPECT_EQ(obstacle_in(entry, own.inverse()), std::nullopt);
  entry.status |= conntrack_status::seen_reply | conntrack_status::assured |
                  conntrack_status::source_nat_done | conntrack_status::destination_nat_done;
  EXPECT_EQ(obstacle_in(entry, own), std::nullopt);
}

TEST(tracked_entry, of_any_other_kind_is_an_obstacle) {
  const auto with = [](auto&& change) {
    auto entry = ordinary();
    change(entry);
    return obstacle_in(entry, own);
  };
  using enum divert_reason;
  EXPECT_EQ(nat, with([](auto& e) { e.reply.destination_port = 1177; }));
  EXPECT_EQ(nat, with([](auto& e) { e.status |= conntrack_status::source_nat; }));
  EXPECT_EQ(nat, with([](auto& e) { e.status |= conntrack_status::destination_nat; }));
  EXPECT_EQ(conntrack_new, with([](auto& e) { e.status = 0; }));
  EXPECT_EQ(conntrack_new, with([](auto& e) { e.timeout_s.reset(); }));
  EXPECT_EQ(conntrack_new, with([](auto& e) { e.has_helper = true; }));
  EXPECT_EQ(conntrack_new, with([](auto& e) { e.zone = 7; }));
  // Expected, sequence-adjusted, dying, of a fixed time, a template, of a clash, with a helper, in
  // a flow table, in a device's, and what is not known yet.
  for (const unsigned bit : {0u, 6u, 9u, 10u, 11u, 12u, 13u, 14u, 15u, 16u, 31u})
    EXPECT_EQ(conntrack_new, with([&](auto& e) { e.status |= 1u << bit; })) << bit;
  auto others = ordinary();
  others.original.source_port = 8002;
  others.reply = others.original.inverse();
  EXPECT_EQ(conntrack_new, obstacle_in(others, own));
}

TEST(tracked_entry, lives_as_long_as_the_kernel_has_it) {
  constexpr udp_timeouts usual{30, 120};
  constexpr std::uint32_t replied = conntrack_status::seen_reply;
  entry_clock clock;
  ASSERT_TRUE(clock.learn(29, usual));
  EXPECT_EQ(clock.life_s(0, 60'000, usual), 30u);
  EXPECT_EQ(clock.life_s(replied, 1999, usual), 30u);
  EXPECT_EQ(clock.life_s(replied, 2000, usual), 120u);
  EXPECT_EQ(clock.life_s(replied | conntrack_status::assured, 0, usual), 120u);
  EXPECT_TRUE(clock.learn(119, usual));
}

/// A policy of its own sets the timer to the same each time. One that goes down was not set.
TEST(tracked_entry, of_a_policy_of_its_own_is_told_from_one_that_no_datagram_sets) {
  constexpr udp_timeouts usual{30, 120};
  entry_clock clock;
  EXPECT_FALSE(clock.learn(299, usual));
  EXPECT_TRUE(clock.learn(299, usual));
  EXPECT_EQ(clock.life_s(conntrack_status::assured, 60'000, usual), 300u);
  EXPECT_TRUE(clock.learn(29, usual));
  EXPECT_EQ(clock.life_s(0, 0, usual), 30u);
  entry_clock untouched;
  for (const std::uint32_t left : {110u, 105u, 100u, 90u, 60u, 20u})
    EXPECT_FALSE(untouched.learn(left, usual)) << left;
}

/// What the kernel refuses is quarantined: under a reason of its own, and nobody asks about it.
TEST(tracked_entry, of_a_flow_that_the_kernel_refuses_is_not_asked_for) {
  ring_context ring;
  epoch_domain epochs;
  const outer_flows numbers;
  flow_tracker tracker(ring, epochs, numbers, 16, {});
  const tx_request request =
      make_request({}, 0, 0, be16::from_host(8001),
                   request_destination::from({*ip_address::parse("10.0.0.2"), 9000}), 0);
  const source_bytes source{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1};
  const tracked_key key = tracked_key::of(request, {source});
  const auto reason = [&] {
    const tracked_flows& flows = tracker.flows();
    return flows.use(flows.find_line(key, flows.hash_of(key)), 0);
  };
  EXPECT_EQ(reason(), divert_reason::conntrack_new);
  tracker.on_kernel_datagram(request, {source}, EPERM);
  EXPECT_EQ(reason(), divert_reason::netfilter);
  tracker.on_kernel_datagram(request, {source}, 0);
  tracker.settle();
  EXPECT_EQ(tracker.stats().asked, 0u);
  EXPECT_EQ(tracker.stats().refused, 1u);
  EXPECT_EQ(reason(), divert_reason::netfilter);
  tracker.begin_anew();
  EXPECT_EQ(reason(), divert_reason::conntrack_new);
  tracker.stop();
}

}  // namespace
}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
// What the kernel does to datagrams after routing them happens to those of a transmitter as well.
#include <tests/async/output_hosts.hpp>

#include <optional>
#include <thread>

#include "testbed/own_cgroup.hpp"

namespace cowire::test {
namespace {

class output_path_end_to_end : public output_hosts {};

TEST_F(output_path_end_to_end, what_a_rule_drops_never_leaves_from_the_first_datagram_on) {
  NFT_OR_SKIP();
  udp_sink v4(*b, to(place)), v6(*b, to(place_v6));
  resolve("10.77.1.2");
  resolve("fd77:1::2");
  load("filter hook output priority 0", "udp dport 9000 drop");
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  send(tx, s, 20);
  send(tx, s, 20, place_v6);
  EXPECT_EQ(0u, v4.drain());
  EXPECT_EQ(0u, v6.drain());
  EXPECT_EQ(40u, diverted(tx, "netfilter")) << summary(tx.stats());
  EXPECT_EQ(0u, by(tx, "a0"));
}

TEST_F(output_path_end_to_end, rules_come_into_force_and_go_under_a_running_transmitter) {
  NFT_OR_SKIP();
  udp_sink sink(*b, to(place));
  resolve("10.77.1.2");
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  send(tx, s, 20);
  EXPECT_EQ(20u, by(tx, "a0")) << summary(tx.stats());
  load("filter hook output priority 0", "udp dport 9000 drop");
  ASSERT_TRUE(comes_to_divert(tx, s, "netfilter")) << summary(tx.stats());
  sink.drain();
  const auto before = by(tx, "a0");
  send(tx, s, 20);
  EXPECT_EQ(0u, sink.drain());
  EXPECT_EQ(before, by(tx, "a0"));
  (*a)("nft flush ruleset");
  ASSERT_TRUE(comes_to_transmit(tx, s)) << summary(tx.stats());
}

TEST_F(output_path_end_to_end, a_ruleset_that_leaves_the_flow_alone_costs_it_nothing) {
  NFT_OR_SKIP();
  udp_sink sink(*b, to(place));
  resolve("10.77.1.2");
  load("filter hook output priority 0", "oifname { lo, docker0 } drop");
  (*a)("nft add rule inet t c meta l4proto tcp reject");
  (*a)("nft add rule inet t c udp sport 53 counter drop");
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  send(tx, s, 20);
  EXPECT_EQ(20u, by(tx, "a0")) << summary(tx.stats());
  EXPECT_EQ(20u, sink.drain());
}

/// Where somebody reads the numbers they are the kernel's.
TEST_F(output_path_end_to_end, strict_counters_count_every_datagram) {
  NFT_OR_SKIP();
  udp_sink sink(*b, to(place));
  resolve("10.77.1.2");
  load("filter hook output priority 0", "udp dport 9000 counter accept");
  const auto counted = [&] {
    const std::string text = (*a)("nft list ruleset");
    const auto at = text.find("counter packets ");
    return at == std::string::npos ? 0ul : std::stoul(text.substr(at + 16));
  };
  ASSERT_EQ(0, plain_send(to(place)));
  ASSERT_EQ(1u, counted());
  sink.drain();
  for (const bool strict : {false, true}) {
    auto config = small();
    config.output.strict_counters = strict;
    transmitter tx(config);
    auto s = tx.make_sender({.source_port = 8001});
    send(tx, s, 20);
    EXPECT_EQ(strict ? 20u : 0u, diverted(tx, "netfilter")) << summary(tx.stats());
    EXPECT_EQ(strict ? 21u : 1u, counted());
    EXPECT_EQ(20u, sink.drain());
  }
}

TEST_F(output_path_end_to_end, classes_that_a_rule_tells_apart_fare_apart) {
  NFT_OR_SKIP();
  udp_sink sink(*b, to(place));
  resolve("10.77.1.2");
  load("filter hook output priority 0", "udp sport 8002 drop");
  transmitter tx(small());
  auto free = tx.make_sender({.source_port = 8001});
  auto barred = tx.make_sender({.source_port = 8002});
  send(tx, free, 20);
  send(tx, barred, 20);
  EXPECT_EQ(20u, by(tx, "a0")) << summary(tx.stats());
  EXPECT_EQ(20u, diverted(tx, "netfilter"));
  EXPECT_EQ(20u, sink.drain());
}

TEST_F(output_path_end_to_end, a_translation_of_the_source_is_made) {
  NFT_OR_SKIP();
  udp_sink sink(*b, to(place));
  resolve("10.77.1.2");
  (*a)("nft add table ip n");
  (*a)("nft 'add chain ip n p { type nat hook postrouting priority 100; }'");
  (*a)("nft 'add rule ip n p udp dport 9000 snat to 10.77.1.1:6000'");
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  send(tx, s, 1);
  const auto got = sink.next();
  ASSERT_TRUE(got) << summary(tx.stats());
  EXPECT_EQ("10.77.1.1:6000", got->from.to_string());
  EXPECT_EQ(1u, diverted(tx, "nat"));
}

/// An INPUT that accepts answers only: they arrive as there is an entry of the flow.
TEST_F(output_path_end_to_end, answers_pass_a_stateful_firewall) {
  NFT_OR_SKIP();
  udp_sink sink(*b, to(place));
  resolve("10.77.1.2");
  load("filter hook input priority 0; policy drop", "ct state established,related counter accept");
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  send(tx, s, 1);
  const auto got = sink.next();
  ASSERT_TRUE(got) << summary(tx.stats());
  EXPECT_EQ(1u, diverted(tx, "conntrack_new"));
  const raw_address back(got->from);
  ASSERT_EQ(1, ::sendto(sink.fd(), "!", 1, 0, back.name(), back.size));
  EXPECT_TRUE(eventually([&] {
    return (*a)("nft list ruleset").find("counter packets 1") != std::string::npos;
  })) << (*a)("nft list ruleset");
}

/// What is not tracked has no entry to be kept: not one datagram needs the kernel.
TEST_F(output_path_end_to_end, a_flow_that_a_rule_keeps_untracked_is_fast_from_the_first_datagram) {
  NFT_OR_SKIP();
  udp_sink sink(*b, to(place));
  resolve("10.77.1.2");
  load("filter hook input priority 0", "ct state established,related,untracked accept");
  (*a)("nft 'add chain inet t raw { type filter hook output priority -300; }'");
  (*a)("nft add rule inet t raw udp sport 8001 notrack");
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  send(tx, s, 20);
  EXPECT_EQ(20u, by(tx, "a0")) << summary(tx.stats());
  EXPECT_EQ(20u, sink.drain());
  auto tracked = tx.make_sender({.source_port = 8002});
  send(tx, tracked, 1);
  EXPECT_EQ(1u, diverted(tx, "conntrack_new")) << summary(tx.stats());
}

/// The valve: a layer that is ignored is as if it were not there, for the fast path.
TEST_F(output_path_end_to_end, an_ignored_firewall_is_passed_by_and_an_obeyed_one_is_not) {
  NFT_OR_SKIP();
  udp_sink sink(*b, to(place));
  resolve("10.77.1.2");
  load("filter hook output priority 0", "udp dport 9000 drop");
  EXPECT_EQ(EPERM, plain_send(to(place)));
  {
    transmitter tx(small());
    auto s = tx.make_sender({.source_port = 8001});
    send(tx, s, 20);
    const auto stats = tx.stats();
    EXPECT_EQ(20u, diverted(tx, "netfilter")) << summary(stats);
    EXPECT_EQ((std::map<std::string, std::uint64_t>{{"EPERM", 20}}), stats.refused);
    EXPECT_TRUE(stats.output_ignored.empty());
    EXPECT_EQ(0u, sink.drain());
  }
  auto config = small();
  config.output.netfilter = false;
  std::string warned;
  config.log = [&](log_severity severity, std::string_view text) {
    if (severity == log_severity::warning && warned.empty()) warned = text;
  };
  transmitter tx(config);
  EXPECT_TRUE(warned.starts_with("ignored on the output path: netfilter (")) << warned;
  EXPECT_NE(warned.find("conntrack ("), std::string::npos) << warned;
  EXPECT_EQ((std::vector<std::string>{"netfilter", "conntrack"}), tx.stats().output_ignored);
  auto s = tx.make_sender({.source_port = 8001});
  send(tx, s, 20);
  EXPECT_EQ(20u, by(tx, "a0")) << summary(tx.stats());
  EXPECT_EQ(20u, sink.drain());
}

TEST_F(output_path_end_to_end, to_ignore_connection_tracking_leaves_the_rules_in_force) {
  NFT_OR_SKIP();
  udp_sink sink(*b, to(place));
  resolve("10.77.1.2");
  load("filter hook input priority 0", "ct state established,related accept");
  auto config = small();
  config.output.conntrack = false;
  transmitter tx(config);
  auto s = tx.make_sender({.source_port = 8001});
  send(tx, s, 20);
  EXPECT_EQ(20u, by(tx, "a0")) << summary(tx.stats());
  EXPECT_EQ(20u, sink.drain());
  (*a)("nft 'add chain inet t out { type filter hook output priority 0; }'");
  (*a)("nft add rule inet t out udp dport 9000 drop");
  ASSERT_TRUE(comes_to_divert(tx, s, "netfilter")) << summary(tx.stats());
}

TEST_F(output_path_end_to_end, ignored_policies_of_ipsec_are_not_looked_at) {
  udp_sink sink(*b, to(place));
  resolve("10.77.1.2");
  (*a)("ip xfrm policy add dst 10.77.1.2/32 dir out action block");
  auto config = small();
  config.output.ipsec = false;
  transmitter tx(config);
  auto s = tx.make_sender({.source_port = 8001});
  send(tx, s, 20);
  EXPECT_EQ(20u, by(tx, "a0")) << summary(tx.stats());
  EXPECT_EQ(20u, sink.drain());
}

TEST_F(output_path_end_to_end, what_ipsec_blocks_does_not_leave_in_clear) {
  udp_sink sink(*b, to(place));
  resolve("10.77.1.2");
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  send(tx, s, 1);
  ASSERT_TRUE(sink.next());
  (*a)("ip xfrm policy add dst 10.77.1.2/32 dir out action block");
  ASSERT_TRUE(comes_to_divert(tx, s, "ipsec")) << summary(tx.stats());
  sink.drain();
  send(tx, s, 20);
  EXPECT_EQ(0u, sink.drain());
  (*a)("ip xfrm policy flush");
  ASSERT_TRUE(comes_to_transmit(tx, s)) << summary(tx.stats());
}

TEST_F(output_path_end_to_end, a_discipline_that_holds_back_and_a_filter_that_drops_are_obeyed) {
  udp_sink sink(*b, to(place));
  resolve("10.77.1.2");
  const std::string tc = "ip netns exec " + a->name() + " tc ";
  const auto tries = [&](const std::string& what) {
    return std::system((tc + what + " 2>/dev/null").c_str()) == 0;
  };
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  send(tx, s, 1);
  ASSERT_TRUE(sink.next());
  bool tried = false;
  if (tries("qdisc add dev a0 clsact") && tries("filter add dev a0 egress matchall action drop")) {
    tried = true;
    ASSERT_TRUE(comes_to_divert(tx, s, "tc_egress")) << summary(tx.stats());
    sink.drain();
    send(tx, s, 20);
    EXPECT_EQ(0u, sink.drain());
    ASSERT_TRUE(tries("qdisc del dev a0 clsact"));
    ASSERT_TRUE(comes_to_transmit(tx, s)) << summary(tx.stats());
  }
  if (tries("qdisc replace dev a0 root tbf rate 1mbit burst 10kb latency 10ms")) {
    tried = true;
    ASSERT_TRUE(comes_to_divert(tx, s, "queueing_discipline")) << summary(tx.stats());
  }
  if (!tried) GTEST_SKIP() << "the kernel has neither clsact nor tbf";
}

/// None of them holds a datagram back for long: they take none, or none that is so large.
TEST_F(output_path_end_to_end, a_discipline_that_drops_while_idle_is_obeyed) {
  udp_sink sink(*b, to(place));
  resolve("10.77.1.2");
  const std::string tc = "ip netns exec " + a->name() + " tc ";
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  const std::string large(1000, 'x');
  for (const char* root : {"bfifo limit 500", "pfifo limit 0"}) {
    SCOPED_TRACE(root);
    if (std::system((tc + "qdisc replace dev a0 root " + root + " 2>/dev/null").c_str()) != 0)
      GTEST_SKIP() << "the kernel has no " << root;
    ASSERT_TRUE(comes_to_divert(tx, s, "queueing_discipline")) << summary(tx.stats());
    sink.drain();
    for (int i = 0; i < 5; ++i) {
      static_cast<void>(plain_send(to(place), large));
      ASSERT_TRUE(s.try_send(bytes_of(large), to(place)));
    }
    ASSERT_TRUE(drained(tx));
    EXPECT_EQ(0u, sink.drain()) << summary(tx.stats());
  }
  for (const char* root : {"bfifo", "pfifo limit 1"}) {
    SCOPED_TRACE(root);
    (*a)(std::string("tc qdisc replace dev a0 root ") + root);
    ASSERT_TRUE(comes_to_transmit(tx, s)) << summary(tx.stats());
  }
}

/// As one that a manager starts in one unit's group and moves to another's.
TEST_F(output_path_end_to_end, a_socket_stays_in_the_control_group_in_which_it_was_made) {
  udp_sink sink(*b, to(place));
  resolve("10.77.1.2");
  const own_cgroup group;
  if (!group.deny(true)) GTEST_SKIP() << "no control group with a program can be made";
  const raw_address there(to(place));
  const unique_fd old(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto kernel_sends = [&] {
    return ::sendto(old.get(), "x", 1, 0, there.name(), there.size) == 1;
  };
  EXPECT_FALSE(kernel_sends());
  transmitter tx(small());
  std::optional<sender> s(tx.make_sender({.source_port = 8001}));
  ASSERT_TRUE(comes_to_divert(tx, *s, "cgroup_program")) << summary(tx.stats());
  ASSERT_TRUE(group.leave());
  EXPECT_FALSE(kernel_sends());
  EXPECT_EQ(0, plain_send(to(place)));
  ASSERT_TRUE(sink.next());
  for (int i = 0; i < 25; ++i) {  // Programs are looked at each second.
    send(tx, *s, 1);
    std::this_thread::sleep_for(100ms);
  }
  EXPECT_EQ(0u, sink.drain()) << summary(tx.stats());
  // Its socket is the only one of the group, and those made now are of the other one.
  s.reset();
  auto other = tx.make_sender({.source_port = 8002});
  ASSERT_TRUE(comes_to_transmit(tx, other)) << summary(tx.stats());
  // Adopted, the old one brings its group along.
  auto adopted = tx.make_sender({.adopt_socket = old.get()});
  ASSERT_TRUE(comes_to_divert(tx, adopted, "cgroup_program")) << summary(tx.stats());
}

}  // namespace
}  // namespace cowire::test

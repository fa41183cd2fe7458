// SPDX-License-Identifier: Apache-2.0
// What the kernel does to datagrams after routing them happens to those of a transmitter as well.
#include <tests/async/output_hosts.hpp>

#include <linux/bpf.h>
#include <net/if.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <thread>

#include "testbed/bpf_programs.hpp"
#include "testbed/own_cgroup.hpp"

namespace cowire::test {
namespace {

struct in_family {
  ip_family family;
  std::string host;
  [[nodiscard]] std::string at(int port) const {
    const std::string number = ":" + std::to_string(port);
    return family == ip_family::v4 ? host + number : "[" + host + "]" + number;
  }
};
const in_family both[] = {{ip_family::v4, "10.77.1.2"}, {ip_family::v6, "fd77:1::2"}};

class output_path_end_to_end : public output_hosts {
 protected:
  void rules(const std::string& text) { (*a)("nft '" + text + "'"); }
  void expect_both_to_become_fast(transmitter& tx, sender& s) {
    for (const in_family& one : both) {
      resolve(one.host);
      ASSERT_TRUE(comes_to_transmit(tx, s, one.at(9000))) << summary(tx.stats());
    }
  }
  /// As what plain sockets send: with ENOBUFS, and nothing arrives.
  void expect_both_to_be_dropped(transmitter& tx, sender& s, const std::string& reason,
                                 udp_sink& v4, udp_sink& v6) {
    for (const in_family& one : both) {
      SCOPED_TRACE(one.host);
      ASSERT_TRUE(comes_to_divert(tx, s, reason, one.at(9000))) << summary(tx.stats());
      v4.drain();
      v6.drain();
      EXPECT_EQ(ENOBUFS, plain_send(to(one.at(9000))));
      send(tx, s, 20, one.at(9000));
      EXPECT_EQ(0u, v4.drain() + v6.drain());
    }
  }
};

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

/// Elsewhere on the same host, or on this one; what no rule translates is fast once it is tracked.
TEST_F(output_path_end_to_end, a_translation_of_the_destination_is_made) {
  NFT_OR_SKIP();
  rules(
      "add table inet n; add chain inet n o { type nat hook output priority -100; }; "
      "add rule inet n o meta nfproto ipv4 udp dport 9000 dnat ip to 10.77.1.2:9001; "
      "add rule inet n o meta nfproto ipv6 udp dport 9000 dnat ip6 to [fd77:1::2]:9001; "
      "add rule inet n o udp dport 9002 redirect to :9003");
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  for (const in_family& one : both) {
    SCOPED_TRACE(one.host);
    const std::string any = one.family == ip_family::v4 ? "0.0.0.0" : "[::]";
    udp_sink asked(*b, to(any + ":9000")), made(*b, to(any + ":9001")), here(*a, to(any + ":9003"));
    udp_sink other(*b, to(any + ":9004"));
    resolve(one.host);
    for (const int port : {9000, 9002}) ASSERT_EQ(0, plain_send(to(one.at(port))));
    EXPECT_EQ(1u, made.drain());
    EXPECT_EQ(1u, here.drain());
    const auto before = diverted(tx, "nat");
    for (const int port : {9000, 9002}) send(tx, s, 20, one.at(port));
    EXPECT_EQ(before + 40, diverted(tx, "nat")) << summary(tx.stats());
    EXPECT_EQ(20u, made.drain());
    EXPECT_EQ(20u, here.drain());
    EXPECT_EQ(0u, asked.drain());
    ASSERT_TRUE(comes_to_transmit(tx, s, one.at(9004))) << summary(tx.stats());
    EXPECT_LE(1u, other.drain());
  }
}

/// What the kernel routes once more by a mark goes where that leads, or nowhere.
TEST_F(output_path_end_to_end, a_mark_that_a_chain_of_type_route_sets_leads_elsewhere) {
  NFT_OR_SKIP();
  connect(*a, "a1", *b, "b1", 2);
  (*b)("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.b1.rp_filter=0");
  in(*a,
     "ip rule add fwmark 7 table 7; ip route add 10.77.1.2 via 10.77.2.2 dev a1 table 7;"
     "ip -6 rule add fwmark 7 table 7; ip -6 route add fd77:1::2 via fd77:2::2 dev a1 table 7;"
     "ip rule add fwmark 8 table 8; ip route add unreachable default table 8;"
     "ip -6 rule add fwmark 8 table 8; ip -6 route add unreachable default table 8");
  load("route hook output priority -150", "udp dport 9000 meta mark set 7");
  rules("add rule inet t c udp dport 9001 meta mark set 8");
  rules("add chain inet t f { type filter hook output priority 5; }");
  rules("add rule inet t f udp dport 9002 meta mark set 7");
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  auto marked = tx.make_sender({.source_port = 8002, .mark = 7});
  std::uint64_t refused = 0;
  for (const in_family& one : both) {
    SCOPED_TRACE(one.host);
    const std::string any = one.family == ip_family::v4 ? "0.0.0.0" : "[::]";
    udp_sink there(*b, to(any + ":9000"), "b1"), here(*b, to(any + ":9000"), "b0");
    udp_sink as_routed(*b, to(any + ":9002"), "b0");
    resolve(one.host);
    resolve(one.family == ip_family::v4 ? "10.77.2.2" : "fd77:2::2");
    ASSERT_EQ(0, plain_send(to(one.at(9000))));
    EXPECT_EQ(EHOSTUNREACH, plain_send(to(one.at(9001))));
    EXPECT_EQ(0, plain_send(to(one.at(9002))));
    EXPECT_EQ(1u, there.drain());
    EXPECT_EQ(1u, as_routed.drain());
    const auto before = diverted(tx, "netfilter");
    send(tx, s, 20, one.at(9000));
    send(tx, s, 20, one.at(9001));
    EXPECT_EQ(before + 40, diverted(tx, "netfilter")) << summary(tx.stats());
    EXPECT_EQ(refused += 20, tx.stats().refused["EHOSTUNREACH"]) << summary(tx.stats());
    EXPECT_EQ(20u, there.drain());
    EXPECT_EQ(0u, here.drain());
    // A mark that leads nowhere else is none of the fast path's business.
    const auto fast = by(tx, "a0"), by_mark = by(tx, "a1");
    send(tx, s, 20, one.at(9002));
    EXPECT_EQ(20u, as_routed.drain());
    EXPECT_EQ(fast + 20, by(tx, "a0")) << summary(tx.stats());
    send(tx, marked, 20, one.at(9000));
    EXPECT_EQ(20u, there.drain());
    EXPECT_EQ(by_mark + 20, by(tx, "a1")) << summary(tx.stats());
  }
}

/// Once it is dropped there, and once it is not the device of the way.
TEST_F(output_path_end_to_end, what_a_rule_at_the_devices_egress_drops_does_not_leave) {
  NFT_OR_SKIP();
  udp_sink v4(*b, to(place)), v6(*b, to(place_v6));
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  ASSERT_NO_FATAL_FAILURE(expect_both_to_become_fast(tx, s));
  try {
    rules(
        "add table netdev d; "
        "add chain netdev d e { type filter hook egress device a0 priority 0; policy drop; }");
  } catch (const std::runtime_error&) {
    GTEST_SKIP() << "the kernel or nft has no egress hook";
  }
  ASSERT_NO_FATAL_FAILURE(expect_both_to_be_dropped(tx, s, "netfilter", v4, v6));
  rules("delete table netdev d");
  ASSERT_NO_FATAL_FAILURE(expect_both_to_become_fast(tx, s));
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

/// Blocked, or to be encrypted while nothing can do so.
TEST_F(output_path_end_to_end, what_ipsec_does_not_let_pass_does_not_leave_in_clear) {
  udp_sink v4(*b, to(place)), v6(*b, to(place_v6));
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  for (const in_family& one : both) {
    resolve(one.host);
    for (const char* what : {"action block", "tmpl proto esp mode transport"}) {
      SCOPED_TRACE(one.host + " " + what);
      ASSERT_TRUE(comes_to_transmit(tx, s, one.at(9000))) << summary(tx.stats());
      (*a)("ip xfrm policy add dst " + one.host + " proto udp dir out " + what);
      ASSERT_TRUE(comes_to_divert(tx, s, "ipsec", one.at(9000))) << summary(tx.stats());
      v4.drain();
      v6.drain();
      static_cast<void>(plain_send(to(one.at(9000))));
      send(tx, s, 20, one.at(9000));
      EXPECT_EQ(0u, v4.drain() + v6.drain());
      (*a)("ip xfrm policy flush");
    }
    ASSERT_TRUE(comes_to_transmit(tx, s, one.at(9000))) << summary(tx.stats());
  }
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

/// Of the same process and of both families, one after the other: refused, or sent elsewhere.
TEST_F(output_path_end_to_end, programs_of_the_group_at_sendmsg_are_obeyed_by_family) {
  const own_cgroup group;
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  for (const in_family& one : both) resolve(one.host);
  for (const in_family& one : both) {
    const bool v4 = one.family == ip_family::v4;
    const in_family& other = both[v4 ? 1 : 0];
    const std::uint32_t type = v4 ? BPF_CGROUP_UDP4_SENDMSG : BPF_CGROUP_UDP6_SENDMSG;
    const std::string any = v4 ? "0.0.0.0" : "[::]";
    udp_sink asked(*b, to(any + ":9000")), made(*b, to(any + ":9001"));
    for (const bool refuses : {true, false}) {
      SCOPED_TRACE(one.host + (refuses ? " refused" : " rewritten"));
      ASSERT_TRUE(comes_to_transmit(tx, s, one.at(9000))) << summary(tx.stats());
      const unique_fd program = refuses ? load_refusing_sendmsg_program(type)
                                        : load_rewriting_sendmsg_program(type, 9001);
      if (!group.set(type, program, true))
        GTEST_SKIP() << "no control group with a program can be made";
      ASSERT_TRUE(comes_to_divert(tx, s, "cgroup_program", one.at(9000))) << summary(tx.stats());
      asked.drain();
      made.drain();
      EXPECT_EQ(refuses ? EPERM : 0, plain_send(to(one.at(9000))));
      EXPECT_EQ(refuses ? 0u : 1u, made.drain());
      const auto before = tx.stats().refused["EPERM"];
      send(tx, s, 20, one.at(9000));
      EXPECT_EQ(before + (refuses ? 20 : 0), tx.stats().refused["EPERM"]) << summary(tx.stats());
      EXPECT_EQ(refuses ? 0u : 20u, made.drain());
      EXPECT_EQ(0u, asked.drain());
      EXPECT_TRUE(comes_to_transmit(tx, s, other.at(9000))) << summary(tx.stats());
      ASSERT_TRUE(group.set(type, program, false));
    }
  }
}

/// A socket that the process made in another group brings its programs along, for its family.
TEST_F(output_path_end_to_end, programs_at_sendmsg_of_an_adopted_sockets_group_are_obeyed) {
  const own_cgroup group;
  const unique_fd refuses = load_refusing_sendmsg_program(BPF_CGROUP_UDP6_SENDMSG);
  if (!group.set(BPF_CGROUP_UDP6_SENDMSG, refuses, true))
    GTEST_SKIP() << "no control group with a program can be made";
  udp_sink sink(*b, to(place_v6));
  for (const in_family& one : both) resolve(one.host);
  const unique_fd own = own_socket(8001, ip_family::v6);
  ASSERT_TRUE(group.leave());
  EXPECT_EQ(0, plain_send(to(place_v6)));
  EXPECT_EQ(1u, sink.drain());
  transmitter tx(small());
  auto s = tx.make_sender({.adopt_socket = own.get()});
  ASSERT_TRUE(comes_to_divert(tx, s, "cgroup_program", place_v6)) << summary(tx.stats());
  sink.drain();
  const raw_address there(to(place_v6));
  EXPECT_EQ(-1, ::sendto(own.get(), "x", 1, 0, there.name(), there.size));
  send(tx, s, 20, place_v6);
  EXPECT_EQ(0u, sink.drain());
  // Such a socket sends to IPv4, too, and of that the program sees nothing.
  EXPECT_TRUE(comes_to_transmit(tx, s)) << summary(tx.stats());
}

/// Nothing announces it.
TEST_F(output_path_end_to_end, a_program_at_the_devices_egress_is_obeyed_as_long_as_it_is_there) {
  udp_sink v4(*b, to(place)), v6(*b, to(place_v6));
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  ASSERT_NO_FATAL_FAILURE(expect_both_to_become_fast(tx, s));
  unique_fd program = drop_by_tcx(::if_nametoindex("a0"));
  if (!program) GTEST_SKIP() << "the kernel has no tcx: errno " << errno;
  ASSERT_NO_FATAL_FAILURE(expect_both_to_be_dropped(tx, s, "tc_egress", v4, v6));
  program.reset();
  ASSERT_NO_FATAL_FAILURE(expect_both_to_become_fast(tx, s));
}

}  // namespace
}  // namespace cowire::test

// SPDX-License-Identifier: Apache-2.0
// The output path of datagrams that pass several devices: a VLAN, a bond, a GRE tunnel. Whatever
// the kernel does at any of them, it does to a transmitter's datagrams, too.
#include <tests/async/output_hosts.hpp>

#include <net/if.h>

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "testbed/bpf_programs.hpp"
#include "testbed/own_cgroup.hpp"

namespace cowire::test {
namespace {

/// A way from A to B.
struct way {
  std::array<std::string, 2> places;  ///< Where to send, by family.
  std::vector<std::string> devices;   ///< From the one that the route names to the one that sends.
  [[nodiscard]] const std::string& sends() const { return devices.back(); }
  [[nodiscard]] bool passes(const std::string& device) const {
    return std::ranges::find(devices, device) != devices.end();
  }
};

const std::vector<way> ways = {
    {{"10.77.1.2:9000", "[fd77:1::2]:9000"}, {"a0"}},
    {{"10.95.0.2:9000", "[fd95::2]:9000"}, {"v5", "a0"}},
    {{"10.90.0.2:9000", "[fd90::2]:9000"}, {"g1", "a0"}},
    {{"10.96.0.2:9000", "[fd96::2]:9000"}, {"bo", "a1"}},
};
const way &plain = ways[0], &vlan = ways[1], &tunnel = ways[2], &bond = ways[3];

/// What stops everything at the egress of a device; D stands for its name.
struct obstacle_at_device {
  std::string name, put, remove, reason;
};
const obstacle_at_device filter = {
    "a filter", "tc qdisc add dev D clsact; tc filter add dev D egress matchall action drop",
    "tc qdisc del dev D clsact", "tc_egress"};
const obstacle_at_device netem = {"netem", "tc qdisc add dev D root netem loss 100%",
                                  "tc qdisc del dev D root", "queueing_discipline"};
const obstacle_at_device filter_of_discipline = {
    "a discipline's filter",
    "tc qdisc add dev D root handle 1: prio; tc filter add dev D parent 1: matchall action drop",
    "tc qdisc del dev D root", "tc_egress"};
const obstacle_at_device rule = {
    "a rule",
    "nft 'add table netdev d; "
    "add chain netdev d e { type filter hook egress device D priority 0; policy drop; }'",
    "nft delete table netdev d", "netfilter"};

class output_devices : public output_hosts {
 protected:
  void SetUp() override {
    output_hosts::SetUp();
    if (IsSkipped()) return;
    ::alarm(900);
    if (std::system("ip link add probe type gre local 10.77.1.1 remote 10.77.1.2 2>/dev/null") != 0)
      GTEST_SKIP() << "the kernel has no GRE devices";
    connect(*a, "a1", *b, "b1", 2);
    in(*a,
       "ip link del probe; ip link add link a0 name v5 type vlan id 5;"
       "ip link add g1 type gre local 10.77.1.1 remote 10.77.1.2;"
       "ip link add bo type bond mode active-backup miimon 20;"
       "ip link set a1 down; ip link set a1 master bo;" +
           given("v5", "95", "1") + given("g1", "90", "1") + given("bo", "96", "1"));
    in(*b,
       "ip link add link b0 name v5 type vlan id 5;"
       "ip link add g1 type gre local 10.77.1.2 remote 10.77.1.1;" +
           given("v5", "95", "2") + given("g1", "90", "2") + given("b1", "96", "2"));
    for (const way& one : ways)
      for (const std::string& there : one.places) resolve(to(there).address.to_string());
    sinks[0] = std::make_unique<udp_sink>(*b, to("0.0.0.0:9000"));
    sinks[1] = std::make_unique<udp_sink>(*b, to("[::]:9000"));
  }
  void TearDown() override {
    for (auto& sink : sinks) sink.reset();
    output_hosts::TearDown();
  }
  static std::string given(const std::string& device, const std::string& n,
                           const std::string& last) {
    return "ip addr add 10." + n + ".0." + last + "/24 dev " + device + "; ip link set " + device +
           " up; ip addr add fd" + n + "::" + last + "/64 dev " + device + " nodad;";
  }
  std::size_t drain(std::size_t expected = 0) {
    std::size_t count = 0;
    for (; count < expected; ++count)
      if (!sinks[0]->next(10ms) && !sinks[1]->next(10ms) && !sinks[0]->next() && !sinks[1]->next())
        break;
    return count + sinks[0]->drain(150ms) + sinks[1]->drain(150ms);
  }

  /// What the kernel makes of a datagram of anybody's becomes of ours: on these ways nothing
  /// arrives, and under this reason; on those everything does, and by AF_XDP.
  void expect(transmitter& tx, sender& s, const std::string& when, const std::string& reason,
              const std::function<bool(const way&)>& stopped,
              const std::function<bool(const way&)>& untouched) {
    constexpr std::size_t each = 3;
    SCOPED_TRACE(when);
    for (const way& one : ways)
      for (const std::string& there : one.places) {
        if (stopped(one)) {
          ASSERT_TRUE(comes_to_divert(tx, s, reason, there))
              << there << ": " << summary(tx.stats());
        } else if (untouched(one)) {
          ASSERT_TRUE(comes_to_transmit(tx, s, there, one.sends()))
              << there << ": " << summary(tx.stats());
        }
      }
    drain();
    std::size_t kernel = 0;
    for (const way& one : ways)
      for (const std::string& there : one.places)
        if (stopped(one)) static_cast<void>(plain_send(to(there))), ++kernel;
    if (kernel != 0) {
      EXPECT_EQ(0u, drain()) << "the kernel lets it pass";
    }
    std::size_t passing = 0;
    for (const way& one : ways)
      for (const std::string& there : one.places) {
        const auto counted = [&] {
          return stopped(one) ? diverted(tx, reason) : by(tx, one.sends());
        };
        if (!stopped(one) && !untouched(one)) continue;
        passing += stopped(one) ? 0 : each;
        const auto before = counted();
        send(tx, s, static_cast<int>(each), there);
        EXPECT_EQ(before + each, counted()) << there << ": " << summary(tx.stats());
      }
    EXPECT_EQ(passing, drain(passing)) << summary(tx.stats());
  }
  static bool none(const way&) { return false; }
  static bool all(const way&) { return true; }

  void at_devices(transmitter& tx, sender& s) {
    const std::pair<const obstacle_at_device*, const char*> tried[] = {
        {&filter, "a0"}, {&netem, "a0"}, {&filter, "v5"}, {&filter, "g1"},
        {&filter, "bo"}, {&netem, "a1"}, {&rule, "a0"},   {&rule, "v5"},
        {&rule, "g1"},   {&rule, "bo"},  {&rule, "a1"},   {&filter_of_discipline, "a0"}};
    for (const auto& [what, device] : tried) {
      const auto here = [d = std::string(device)](std::string command) {
        for (auto at = command.find('D'); at != std::string::npos; at = command.find('D'))
          command.replace(at, 1, d);
        return command;
      };
      in(*a, here(what->put));
      expect(tx, s, what->name + " at " + device, what->reason, ways_by(device),
             // Rules at a device's egress count for all devices.
             what == &rule ? none : ways_beside(device));
      in(*a, here(what->remove));
    }
    expect(tx, s, "with nothing at devices", "", none, all);
  }
  static std::function<bool(const way&)> ways_by(const std::string& device) {
    return [device](const way& one) { return one.passes(device); };
  }
  /// Above a VLAN, bond or tunnel every device counts: docs/output-path.md, "What is coarse".
  static std::function<bool(const way&)> ways_beside(const std::string& device) {
    return [device](const way& one) { return one.devices.size() == 1 && !one.passes(device); };
  }
  /// Filters that devices share are announced as those of their block.
  void shared_block(transmitter& tx, sender& s) {
    for (const char* device : {"a0", "a1"})
      in(*a, std::string("tc qdisc add dev ") + device + " egress_block 5 clsact");
    expect(tx, s, "an empty block", "", none, all);
    in(*a, "tc filter add block 5 matchall action drop");
    expect(tx, s, "a block with a filter", "tc_egress", all, none);
    in(*a, "tc qdisc del dev a1 clsact");
    expect(tx, s, "a block that one device has left", "tc_egress", ways_by("a0"), none);
    in(*a, "tc filter del block 5");
    expect(tx, s, "an empty block once more", "", none, all);
    in(*a, "tc qdisc del dev a0 clsact");
  }
  void programs(transmitter& tx, sender& s) {
    for (const char* device : {"a0", "v5", "a1"}) {
      const unique_fd program = drop_by_tcx(::if_nametoindex(device));
      ASSERT_TRUE(program) << device << ": errno " << errno;
      expect(tx, s, std::string("a program at ") + device, "tc_egress", ways_by(device),
             ways_beside(device));
    }
    ASSERT_TRUE(group_.deny(true)) << "errno " << errno;
    expect(tx, s, "a program of the control group", "cgroup_program", all, none);
    ASSERT_TRUE(group_.deny(false));
    expect(tx, s, "without programs", "", none, all);
  }
  /// What takes no datagram even while nothing waits, and what takes only those of its classes. To
  /// tc a limit of 0 means none given, but for fq's.
  void dropping_disciplines(transmitter& tx, sender& s) {
    const auto stopped = [](const way& one) { return one.passes("a0"); };
    for (const char* root : {"drr", "fq limit 0"}) {
      in(*a, std::string("tc qdisc add dev a0 root ") + root);
      expect(tx, s, root, "queueing_discipline", stopped, none);
      in(*a, "tc qdisc del dev a0 root");
    }
  }
  void rules(transmitter& tx, sender& s) {
    load("filter hook output priority 0", "oifname { v5, g1, bo } drop");
    const auto named = [&](const way& one) { return &one != &plain; };
    expect(tx, s, "rule for devices", "netfilter", named, std::not_fn(named));
    in(*a, "nft flush ruleset");
    load("filter hook output priority 0", "meta l4proto gre drop");
    const auto in_gre = [&](const way& one) { return &one == &tunnel; };
    expect(tx, s, "rule for outer datagrams", "netfilter", in_gre, std::not_fn(in_gre));
    in(*a, "nft flush ruleset");
    in(*a,
       "ip rule add fwmark 8 table 8; ip route add unreachable default table 8;"
       "ip -6 rule add fwmark 8 table 8; ip -6 route add unreachable default table 8");
    load("route hook output priority -150", "udp dport 9000 meta mark set 8");
    expect(tx, s, "a mark that leads nowhere", "netfilter", all, none);
    in(*a, "nft flush ruleset");
  }
  /// To another port of the same host, whatever the way. The rule names no port: a tunnel whose
  /// outer datagrams are tracked has no room for that in its hops.
  void translated(transmitter& tx, sender& s) {
    udp_sink v4(*b, to("0.0.0.0:9001")), v6(*b, to("[::]:9001"));
    for (const char* family : {"ip", "ip6"})
      in(*a,
         std::string("nft 'table ") + family +
             " n { chain o { type nat hook output priority -100; meta l4proto udp dnat to :9001; "
             "}; }'");
    for (const way& one : ways)
      for (const std::string& there : one.places) {
        SCOPED_TRACE(there);
        ASSERT_TRUE(comes_to_divert(tx, s, "nat", there)) << summary(tx.stats());
        v4.drain(150ms), v6.drain(150ms), drain();
        ASSERT_EQ(0, plain_send(to(there)));
        const auto before = diverted(tx, "nat");
        send(tx, s, 3, there);
        EXPECT_EQ(before + 3, diverted(tx, "nat")) << summary(tx.stats());
        EXPECT_EQ(4u, v4.drain() + v6.drain());
        EXPECT_EQ(0u, drain());
      }
    in(*a, "nft flush ruleset");
  }
  /// What a tunnel wraps around is tracked apart: answers come in as long as both entries live, by
  /// a firewall that takes nothing else. The kernel sees nothing for longer than they live alone.
  void tracked_tunnel(transmitter& tx) {
    in(*a,
       "sysctl -qw net.netfilter.nf_conntrack_gre_timeout=6 "
       "net.netfilter.nf_conntrack_gre_timeout_stream=6 net.netfilter.nf_conntrack_udp_timeout=6 "
       "net.netfilter.nf_conntrack_udp_timeout_stream=6");
    load("filter hook input priority 0; policy drop", "iif lo accept");
    (*a)("nft add rule inet t c meta l4proto ipv6-icmp accept");
    (*a)("nft add rule inet t c ct state established,related accept");
    for (const ip_family family : ip_families) {
      const std::string& there = tunnel.places[static_cast<std::size_t>(family)];
      SCOPED_TRACE(there);
      const std::uint16_t port = family == ip_family::v4 ? 8003 : 8004;
      const unique_fd own = own_socket(port, family);
      auto s = tx.make_sender({.adopt_socket = own.get()});
      const udp_sink& sink = *sinks[static_cast<std::size_t>(family)];
      const endpoint back = to(family == ip_family::v4 ? "10.90.0.1:8003" : "[fd90::1]:8004");
      answer(sink, back);
      EXPECT_FALSE(hears(own.get(), 500ms)) << "the firewall lets in what nobody asked for";
      const auto slow = diverted(tx, "conntrack_new");
      ASSERT_TRUE(comes_to_transmit(tx, s, there)) << summary(tx.stats());
      EXPECT_GT(diverted(tx, "conntrack_new"), slow);
      const auto first = diverted(tx, "conntrack_new"), fast = by(tx, "a0");
      for (int i = 0; i < 20; ++i) {
        send(tx, s, 1, there);
        std::this_thread::sleep_for(500ms);
      }
      EXPECT_EQ(first, diverted(tx, "conntrack_new")) << summary(tx.stats());
      EXPECT_EQ(fast + 20, by(tx, "a0")) << summary(tx.stats());
      std::this_thread::sleep_for(3s);
      answer(sink, back);
      EXPECT_TRUE(hears(own.get())) << summary(tx.stats());
      drain();
    }
    in(*a, "nft flush ruleset");
  }
  /// B takes nothing of this kind that was not encrypted. Of the tunnel it is what lies outside.
  void encrypted(transmitter& tx, sender& s) {
    std::string states, wanted, made;
    unsigned spi = 0x100;
    for (const way* one : {&plain, &vlan, &bond})
      for (const std::string& there : one->places) {
        const std::string theirs = to(there).address.to_string();
        const std::string ends =
            " src " + theirs.substr(0, theirs.size() - 1) + "1 dst " + theirs;  // ....2
        // Neighbours are asked for in clear.
        const auto policy = [&, udp = spi == 0x100 ? "" : " proto udp"](const char* direction) {
          return "ip xfrm policy add" + ends + udp + " dir " + direction +
                 " tmpl proto esp mode transport;";
        };
        states += "ip xfrm state add" + ends + " proto esp spi " + std::to_string(spi++) +
                  " mode transport auth 'hmac(sha256)' "
                  "0x0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef "
                  "enc 'cbc(aes)' 0x0123456789abcdef0123456789abcdef;";
        wanted += policy("in");
        made += policy("out");
      }
    in(*b, states + wanted);
    drain();
    for (const way& one : ways)
      for (const std::string& there : one.places) send(tx, s, 3, there);
    EXPECT_EQ(0u, drain()) << "B takes what is in clear";
    in(*a, states + made);
    for (const way& one : ways)
      for (const std::string& there : one.places) {
        ASSERT_TRUE(comes_to_divert(tx, s, "ipsec", there)) << summary(tx.stats());
        drain();
        send(tx, s, 3, there);
        EXPECT_EQ(3u, drain(3)) << there << ": " << summary(tx.stats());
      }
  }

  const own_cgroup group_;             ///< Before any socket.
  std::unique_ptr<udp_sink> sinks[2];  ///< By family.
};

/// One test: to make the hosts takes the guest of the lab as long as all of this.
TEST_F(output_devices, what_the_kernel_does_at_any_device_on_the_way_happens_to_ours) {
  NFT_OR_SKIP();
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  expect(tx, s, "at first", "", none, all);
  at_devices(tx, s);
  shared_block(tx, s);
  dropping_disciplines(tx, s);
  programs(tx, s);
  rules(tx, s);
  translated(tx, s);
  tracked_tunnel(tx);
  encrypted(tx, s);
}

}  // namespace
}  // namespace cowire::test

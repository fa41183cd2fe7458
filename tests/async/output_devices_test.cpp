// SPDX-License-Identifier: Apache-2.0
// The output path of datagrams that pass several devices: a VLAN, a bond, a GRE tunnel. Whatever
// the kernel does at any of them, it does to a transmitter's datagrams, too.
#include <tests/async/output_hosts.hpp>

#include <algorithm>
#include <array>
#include <functional>
#include <tuple>
#include <vector>

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
const way &plain = ways[0], &tunnel = ways[2];

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
  static void in(const netns& host, const std::string& script) {
    host("sh -ec \"" + script + "\"");
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

  void traffic_control(transmitter& tx, sender& s) {
    for (const auto& [device, filters] : {std::pair{"a0", true},
                                          {"a0", false},
                                          {"v5", true},
                                          {"g1", true},
                                          {"bo", true},
                                          {"a1", false}}) {
      const std::string on = std::string(" dev ") + device;
      const auto stopped = [&, d = std::string(device)](const way& one) { return one.passes(d); };
      // Above a VLAN, bond or tunnel every device counts: docs/output-path.md, "What is coarse".
      const auto untouched = [&](const way& one) {
        return one.devices.size() == 1 && !stopped(one);
      };
      in(*a, filters ? "tc qdisc add" + on + " clsact; tc filter add" + on +
                           " egress matchall action drop"
                     : "tc qdisc add" + on + " root netem loss 100%");
      expect(tx, s, (filters ? "a filter" : "netem") + on,
             filters ? "tc_egress" : "queueing_discipline", stopped, untouched);
      in(*a, "tc qdisc del" + on + (filters ? " clsact" : " root"));
    }
    expect(tx, s, "without traffic control", "", none, all);
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
  /// B takes nothing of this kind that was not encrypted.
  void encrypted(transmitter& tx, sender& s) {
    const std::string ends = " src 10.77.1.1 dst 10.77.1.2";
    const std::string state = "ip xfrm state add" + ends +
                              " proto esp spi 0x100 mode transport auth 'hmac(sha256)' "
                              "0x0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef "
                              "enc 'cbc(aes)' 0x0123456789abcdef0123456789abcdef;";
    in(*b, state + "ip xfrm policy add" + ends + " dir in tmpl proto esp mode transport");
    drain();
    send(tx, s, 3, plain.places[0]);
    send(tx, s, 3, tunnel.places[0]);
    EXPECT_EQ(0u, drain()) << "B takes what is in clear";
    in(*a, state + "ip xfrm policy add" + ends + " dir out tmpl proto esp mode transport");
    for (const way* one : {&plain, &tunnel}) {
      ASSERT_TRUE(comes_to_divert(tx, s, "ipsec", one->places[0])) << summary(tx.stats());
      drain();
      send(tx, s, 3, one->places[0]);
      EXPECT_EQ(3u, drain(3)) << one->places[0] << ": " << summary(tx.stats());
    }
  }

  std::unique_ptr<udp_sink> sinks[2];  ///< By family.
};

/// One test: to make the hosts takes the guest of the lab as long as all of this.
TEST_F(output_devices, what_the_kernel_does_at_any_device_on_the_way_happens_to_ours) {
  NFT_OR_SKIP();
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  expect(tx, s, "at first", "", none, all);
  traffic_control(tx, s);
  dropping_disciplines(tx, s);
  rules(tx, s);
  tracked_tunnel(tx);
  encrypted(tx, s);
}

}  // namespace
}  // namespace cowire::test

// SPDX-License-Identifier: Apache-2.0
// VRFs under traffic: senders bound to one or to a device in it, routes that leak into it and out
// of it, tunnels whose underlay is in it and such that are in it themselves. Frames of a plain
// socket and of the fast path, byte for byte, on the same wire.
#include <tests/async/frame_capture.hpp>

#include <algorithm>
#include <array>
#include <functional>
#include <vector>

namespace cowire::test {
namespace {

struct vrf_flow {
  const char* what;
  const char* device;  ///< That the sender is bound to.
  const char* there;
};

/// "red" has a1 and the tunnel t2; a0 is outside.
constexpr vrf_flow served[] = {
    {"in the VRF", "red", "198.18.0.1:9000"},
    {"in the VRF", "red", "[fd98:18::1]:9000"},
    {"in the VRF, from its device", "a1", "198.18.0.2:9000"},
    {"in the VRF, from its device", "a1", "[fd98:18::2]:9000"},
    {"on the link of the VRF's device", "a1", "10.77.2.2:9000"},
    {"on the link of the VRF's device", "red", "[fd77:2::2]:9000"},
    {"leaked out", "red", "198.19.0.1:9000"},
    {"leaked out", "red", "[fd98:19::1]:9000"},
    {"not known there", "red", "198.20.0.1:9000"},
    {"not known there", "red", "[fd98:20::1]:9000"},
    {"leaked in", "", "203.0.113.1:9000"},
    {"leaked in", "", "[fd98:113::1]:9000"},
    {"outside", "", "198.20.0.1:9000"},
    {"a tunnel over the VRF", "", "10.200.1.2:9000"},
    {"a tunnel over a device of the VRF", "", "10.200.3.2:9000"},
    {"a tunnel over IPv6 over the VRF", "", "10.200.4.2:9000"},
    {"a tunnel in the VRF", "red", "10.200.2.2:9000"},
    {"a tunnel in the VRF, from it", "t2", "10.200.2.2:9000"},
};

class vrf : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    for (const char* kind : {"vrf table 9", "gre remote 10.0.0.2", "ip6gre remote fd01::1"})
      if (std::system(
              (std::string("ip link add probe type ") + kind + " 2>/dev/null && ip link del probe")
                  .c_str()) != 0)
        GTEST_SKIP() << "the kernel has no " << kind;
    connect(*a, "a1", *b, "b1", 2);
    (*a)(
        "sysctl -qw net.ipv6.auto_flowlabels=0 net.ipv6.conf.default.addr_gen_mode=1 "
        "net.ipv6.conf.default.router_solicitations=0");
    (*b)("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    (*a)(
        "ip link add red type vrf table 100 && ip link set red up && "
        "ip addr add 10.255.0.1/32 dev red && ip addr add fd55::1/128 dev red nodad && "
        "ip link set a1 master red && ip addr add fd77:2::1/64 dev a1 nodad");
    for (const std::string n : {"0", "1"}) {
      const std::string link = std::to_string(std::stoi(n) + 1);
      for (const std::string& gateway : {"10.77." + link + ".2", "fd77:" + link + "::2"})
        (*a)("ip neigh replace " + gateway + " dev a" + n + " lladdr " + mac_of("b" + n) +
             " nud permanent");
    }
    add_routes();
    add_tunnels();
  }

  void add_routes() {
    // The source that a leaking route prefers is none of the VRF's.
    for (const char* line :
         {"route add 198.18.0.0/16 via 10.77.2.2 dev a1 table 100",
          "route add 198.19.0.0/16 via 10.77.1.2 dev a0 src 10.77.1.1 table 100",
          "route add unreachable 198.21.0.0/16 table 100", "route add 198.20.0.0/16 via 10.77.1.2",
          "route add 203.0.113.0/24 via 10.77.2.2 dev a1",
          "-6 route add fd98:18::/32 via fd77:2::2 dev a1 table 100",
          "-6 route add fd98:19::/32 via fd77:1::2 dev a0 src fd77:1::1 table 100",
          "-6 route add fd98:20::/32 via fd77:1::2",
          "-6 route add fd98:113::/32 via fd77:2::2 dev a1"})
      (*a)(std::string("ip ") + line);
  }
  void add_tunnels() {
    const auto add = [&](const std::string& n, const std::string& how) {
      (*a)("ip link add t" + n + " type " + how);
      if (n == "2") (*a)("ip link set t2 master red");
      (*a)("ip addr add 10.200." + n + ".1/24 dev t" + n + " && ip link set t" + n + " up");
    };
    add("1", "gre local 10.77.2.1 remote 198.18.9.1 dev red");
    add("2", "gre local 10.77.1.1 remote 198.20.9.2");
    add("3", "gre local 10.77.2.1 remote 198.18.9.3 dev a1 ttl 64");
    add("4", "ip6gre local fd77:2::1 remote fd98:18::9:4 dev red");
  }

  static sending_options options_of(const vrf_flow& flow, std::size_t number) {
    return {.port = static_cast<std::uint16_t>(8001 + number), .device = flow.device};
  }
  /// Where a datagram comes out, and its frame; empty where it does not.
  struct sighting {
    char link = 0;
    std::string frame;
    friend bool operator==(const sighting&, const sighting&) = default;
  };
  sighting next() {
    sighting seen;
    eventually([&] {
      for (const char n : {'0', '1'}) {
        std::string frame = wires_[n == '0' ? 0 : 1]->next(1ms);
        if (!frame.empty()) seen = {n, std::move(frame)};
      }
      return seen.link != 0;
    });
    return seen;
  }
  void capture_both() {
    wires_[0] = std::make_unique<capture>(*b, "b0");
    wires_[1] = std::make_unique<capture>(*b, "b1");
  }
  void TearDown() override {
    for (auto& wire : wires_) wire.reset();
    two_hosts::TearDown();
  }
  std::unique_ptr<capture> wires_[2];
};

TEST_F(vrf, what_leaves_is_what_the_kernel_sends) {
  capture_both();
  std::vector<sighting> kernel;
  for (std::size_t i = 0; i < std::size(served); ++i) {
    const endpoint there = to(served[i].there);
    kernel_sender(there.address.family(), options_of(served[i], i)).send(there, patterned(100));
    kernel.push_back(next());
    ASSERT_NE(0, kernel.back().link) << served[i].what << " " << served[i].there;
  }
  transmitter tx(small());
  for (std::size_t i = 0; i < std::size(served); ++i) {
    auto s = tx.make_sender(as_sender(options_of(served[i], i)));
    ASSERT_TRUE(s.try_send(bytes_of(patterned(100)), to(served[i].there)));
    const sighting seen = next();
    EXPECT_EQ(kernel[i], seen) << served[i].what << ", from " << served[i].device << " to "
                               << served[i].there << "\nkernel " << kernel[i].link << " "
                               << hex(kernel[i].frame) << "\ncowire " << seen.link << " "
                               << hex(seen.frame);
  }
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(0u, tx.stats().kernel_path) << summary(tx.stats());
}

TEST_F(vrf, what_goes_nowhere_is_left_to_the_kernel) {
  transmitter tx(small());
  auto red = tx.make_sender({.source_port = 8001, .bound_device = "red"});
  auto slave = tx.make_sender({.source_port = 8002, .bound_device = "a1"});
  ASSERT_TRUE(red.try_send(bytes_of("x"), to("10.77.2.1:9000")));     // This host's, in the VRF.
  ASSERT_TRUE(red.try_send(bytes_of("x"), to("198.21.0.1:9000")));    // Unreachable.
  ASSERT_TRUE(slave.try_send(bytes_of("x"), to("198.19.0.1:9000")));  // Over another device.
  ASSERT_TRUE(slave.try_send(bytes_of("x"), to("198.20.0.1:9000")));  // Likewise, in table main.
  EXPECT_TRUE(drained(tx));
  const auto stats = tx.stats();
  EXPECT_EQ(1u, stats.diverted.at("local_destination")) << summary(stats);
  EXPECT_EQ(1u, stats.diverted.at("rejected")) << summary(stats);
  EXPECT_EQ(2u, stats.diverted.at("no_route")) << summary(stats);
  EXPECT_EQ(1u, stats.refused.at("EHOSTUNREACH")) << summary(stats);
  EXPECT_EQ(2u, stats.refused.at("ENETUNREACH")) << summary(stats);
}

/// A tunnel over IPv6 sends from addresses of the VRF of its `dev` alone, and from none that only a
/// local route makes this host's (ip6_tnl_xmit_ctl() in net/ipv6/ip6_tunnel.c).
TEST_F(vrf, tunnels_with_an_address_of_elsewhere_are_left_to_the_kernel) {
  (*a)("ip -6 route add local fd57::1 dev lo");
  for (const std::string how : {"5 fd77:2::1", "6 fd57::1"}) {
    const std::string n = how.substr(0, 1), local = how.substr(2);
    (*a)("ip link add t" + n + " type ip6gre local " + local + " remote fd98:20::9:" + n +
         " && ip addr add 10.200." + n + ".1/24 dev t" + n + " && ip link set t" + n + " up");
  }
  capture_both();
  const auto is_silent = [&] {
    return std::ranges::all_of(wires_, [](auto& wire) { return wire->next(300ms).empty(); });
  };
  const std::vector<endpoint> through = {to("10.200.5.2:9000"), to("10.200.6.2:9000")};
  for (const endpoint& there : through)
    kernel_sender(ip_family::v4, {.port = 8001}).send(there, patterned(100));
  EXPECT_TRUE(is_silent());
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8001});
  for (const endpoint& there : through) ASSERT_TRUE(s.try_send(bytes_of("x"), there));
  EXPECT_TRUE(drained(tx));
  EXPECT_TRUE(is_silent());
  EXPECT_EQ(2u, tx.stats().diverted.at("tunnel_underlay")) << summary(tx.stats());
}

TEST_F(vrf, groups_are_left_to_the_kernel) {
  (*a)("ip route add default via 10.77.1.2");
  transmitter tx(small());
  const endpoint there = to("239.1.2.3:9000");
  std::uint64_t count = 0;
  for (const sender_options& wanted :
       {sender_options{.bound_device = "red"}, sender_options{.bound_device = "a1"},
        sender_options{.multicast_interface = "a1"},
        sender_options{.multicast_interface = "a1", .bound_device = "red"}}) {
    auto s = tx.make_sender(wanted);
    ASSERT_TRUE(s.try_send(bytes_of("x"), there));
    ASSERT_TRUE(drained(tx));
    EXPECT_EQ(++count, tx.stats().diverted["multicast_destination"]) << summary(tx.stats());
  }
  auto outside = tx.make_sender();
  ASSERT_TRUE(outside.try_send(bytes_of("x"), there));
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(count, tx.stats().kernel_path) << summary(tx.stats());
}

TEST_F(vrf, a_queue_of_the_vrf_is_seen) {
  transmitter tx(small());
  auto red = tx.make_sender({.source_port = 8001, .bound_device = "red"});
  const endpoint there = to("198.18.0.1:9000");
  const auto goes = [&](const char* reason) {
    const auto before = tx.stats();
    const auto count = [&](const transmitter_stats& s) {
      if (reason == nullptr) return s.submitted - s.kernel_path;
      const auto found = s.diverted.find(reason);
      return found == s.diverted.end() ? 0 : found->second;
    };
    return red.try_send(bytes_of("x"), there) && drained(tx) &&
           count(tx.stats()) == count(before) + 1;
  };
  EXPECT_TRUE(goes(nullptr)) << summary(tx.stats());
  (*a)("tc qdisc add dev red root pfifo");
  EXPECT_TRUE(eventually([&] { return goes("vrf_queue"); })) << summary(tx.stats());
  (*a)("tc qdisc del dev red root");
  EXPECT_TRUE(eventually([&] { return goes(nullptr); })) << summary(tx.stats());
  // Out of the VRF and in again: its routes and neighbours go and come.
  (*a)("ip link set a1 nomaster");
  EXPECT_TRUE(eventually([&] { return goes("no_route"); })) << summary(tx.stats());
}

}  // namespace
}  // namespace cowire::test

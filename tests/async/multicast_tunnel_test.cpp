// SPDX-License-Identifier: Apache-2.0
// Multicast through tunnels, as DoubleZero's users publish: a route for the group over a tunnel of
// its own; and through VLANs. Frames of a plain socket and of the fast path, byte for byte.
#include <tests/async/groups.hpp>

namespace cowire::test {
namespace {

constexpr const char* group = "233.84.178.1:9000";

class multicast_tunnel : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    ::alarm(900);  // The lab is slow.
    for (const char* kind :
         {"gre remote 10.0.0.2", "gretap remote 10.0.0.2", "ip6gre remote fd01::1"})
      if (std::system(
              (std::string("ip link add probe type ") + kind + " 2>/dev/null && ip link del probe")
                  .c_str()) != 0)
        GTEST_SKIP() << "the kernel has no " << kind;
    (*a)("sysctl -qw net.ipv6.auto_flowlabels=0");
    (*b)("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    (*a)("ip route add 198.18.0.0/15 via 10.77.1.2 && ip -6 route add fd99::/16 via fd77:1::2");
    for (const char* gateway : {"10.77.1.2", "fd77:1::2"})
      (*a)("ip neigh replace " + std::string(gateway) + " dev a0 lladdr " + mac_of("b0") +
           " nud permanent");
  }
  void make(const std::string& type) {
    (*a)("ip link add dz type " + type + " && ip addr add 169.254.0.1/31 dev dz scope link && " +
         "ip link set dz up");
  }
  void make_doublezero(const std::string& more = "ttl 64 nopmtudisc") {
    make("gre local 10.77.1.1 remote 198.18.0.1 " + more);
    (*a)("ip route add 233.84.178.1 via 169.254.0.0 dev dz src 10.77.1.1 proto bgp");
  }

  /// The frame of a plain socket, and that of cowire's, which has to be fast. No other transmitter
  /// may be there: its sockets have the queue.
  void compare(const char* there, const group_sending& o) {
    const endpoint at = to(there);
    capture wire(*b, "b0");
    std::string kernel;
    {
      const unique_fd fd = group_socket(at.address.family(), o);
      const raw_address name(at);
      ASSERT_EQ(5, ::sendto(fd.get(), "hello", 5, 0, name.name(), name.size)) << errno_name(errno);
      kernel = wire.next();
      ASSERT_FALSE(kernel.empty());
    }
    transmitter tx(small());
    auto s = tx.make_sender(as_options(o));
    ASSERT_TRUE(s.try_send(bytes_of("hello"), at));
    const auto ours = wire.next();
    EXPECT_EQ(kernel, ours) << "kernel " << hex(kernel) << "\ncowire " << hex(ours);
    EXPECT_TRUE(drained(tx));
    EXPECT_EQ(0u, tx.stats().kernel_path) << summary(tx.stats());
  }
};

TEST_F(multicast_tunnel, a_group_route_over_a_tunnel_of_its_own) {
  make_doublezero();
  compare(group, {});
  compare(group, {.ttl = 32});
  compare(group, {.unicast_ttl = 99});
}
TEST_F(multicast_tunnel, a_tunnel_that_inherits_the_ttl) {
  make_doublezero("ttl inherit nopmtudisc");
  compare(group, {});
  compare(group, {.ttl = 17});
}
TEST_F(multicast_tunnel, with_a_key_and_a_checksum) {
  make_doublezero("ttl 64 key 7 csum");
  compare(group, {.ttl = 3});
}
TEST_F(multicast_tunnel, a_default_route_through_it) {
  make("gre local 10.77.1.1 remote 198.18.0.1 ttl 64");
  (*a)("ip route add default dev dz");
  compare("239.1.2.3:9000", {});
}
TEST_F(multicast_tunnel, by_the_interface_that_the_sender_names) {
  make("gre local 10.77.1.1 remote 198.18.0.1 ttl 64");
  compare("239.1.2.3:9000", {.interface = "dz"});
  compare("224.0.0.99:9000", {.interface = "dz"});
}
TEST_F(multicast_tunnel, over_ethernet_in_it) {
  make("gretap local 10.77.1.1 remote 198.18.0.1 ttl 64");
  (*a)("ip addr add fd20::1/64 dev dz nodad");
  compare("239.200.2.3:9000", {.interface = "dz"});
  compare("[ff3e::1:2:3]:9000", {.interface = "dz"});
}
TEST_F(multicast_tunnel, over_an_underlay_of_ipv6) {
  make("ip6gre local fd77:1::1 remote fd99::1");
  compare("239.200.2.3:9000", {.ttl = 8, .interface = "dz"});
}
// The group's part of the MAC address is in front of the tag.
TEST_F(multicast_tunnel, over_a_vlan) {
  for (const char* protocol : {"802.1q", "802.1ad"}) {
    (*a)(std::string("ip link add link a0 name dz type vlan proto ") + protocol + " id 5 && " +
         "ip addr add 169.254.0.1/31 dev dz && ip addr add fd20::1/64 dev dz nodad && " +
         "ip link set dz up");
    compare("239.200.2.3:9000", {.interface = "dz"});
    compare("[ff3e::1:2:3]:9000", {.interface = "dz"});
    (*a)("ip link del dz");
  }
}

// A validator that subscribes, too, hears itself, unless it does not want to.
TEST_F(multicast_tunnel, members_on_the_tunnel_get_their_copies) {
  make_doublezero();
  const endpoint there = to(group);
  transmitter tx(small());
  auto s = tx.make_sender();
  const unique_fd elsewhere = listener(there.address, "a0", 9002);
  ASSERT_TRUE(comes_to(tx, s, there, "")) << summary(tx.stats());
  const unique_fd member = listener(there.address, "dz");
  ASSERT_TRUE(comes_to(tx, s, there, "multicast_member")) << summary(tx.stats());
  EXPECT_TRUE(hears(member.get(), patience));
  while (hears(member.get(), 0ms)) continue;
  auto silent = tx.make_sender({.multicast_loop = false});
  ASSERT_TRUE(comes_to(tx, silent, there, "")) << summary(tx.stats());
  EXPECT_FALSE(hears(member.get(), 0ms));
  join(member.get(), there.address, "dz", false);
  ASSERT_TRUE(comes_to(tx, s, there, "")) << summary(tx.stats());
  EXPECT_FALSE(hears(member.get(), 0ms));
}

// The underlay moves, and the tunnel goes and comes back, as under BGP.
TEST_F(multicast_tunnel, what_is_below_it_is_followed) {
  make_doublezero();
  compare(group, {});
  (*a)("ip link del dz");
  {
    transmitter tx(small());
    auto s = tx.make_sender({.source_port = 8003});
    ASSERT_TRUE(s.try_send(bytes_of("hello"), to(group)));
    ASSERT_TRUE(drained(tx));
    EXPECT_EQ(1u, tx.stats().refused["ENETUNREACH"]) << summary(tx.stats());
    make_doublezero();
    EXPECT_TRUE(comes_to(tx, s, to(group), "")) << summary(tx.stats());
  }
  compare(group, {});
}

}  // namespace
}  // namespace cowire::test

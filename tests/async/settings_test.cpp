// SPDX-License-Identifier: Apache-2.0
// Sysctls that change at run time, most of which nothing announces: what leaves follows them, and
// is what the kernel says and does.
#include <cowire/netlink/request_socket.hpp>

#include <tests/support/two_hosts.hpp>

#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>

namespace cowire::test {
namespace {

constexpr auto patience = 20s;

class settings : public two_links {
 protected:
  void SetUp() override {
    two_links::SetUp();
    if (IsSkipped()) return;
    (*b)("ip -6 route add local 2001:db8::/32 dev lo");
    (*b)("sysctl -qw net.ipv6.conf.all.forwarding=1");
    for (const char* address : {"10.77.1.2", "10.77.2.2", "fd77:1::2", "fd77:2::2"})
      resolve(address);
  }

  /// One of a size, until the way that it takes is `wanted`: a device, or why it is diverted.
  bool takes(transmitter& tx, const endpoint& there, const std::string& wanted,
             std::size_t size = 100) {
    auto s = tx.make_sender();
    const std::string text(size, 'x');
    const auto count = [&] {
      const auto stats = tx.stats();
      const auto diverted = stats.diverted.find(wanted);
      return by(tx, wanted) + (diverted == stats.diverted.end() ? 0 : diverted->second);
    };
    return eventually(
        [&] {
          const auto before = count();
          return s.try_send(bytes_of(text), there) && drained(tx) && count() > before;
        },
        patience);
  }
  /// There is a better route over a1 and another over a0.
  void expect_ignored(const std::string& family, const endpoint& there) {
    const std::string setting = "sysctl -qw " + family + ".conf.a1.ignore_routes_with_linkdown=";
    transmitter tx(small());
    EXPECT_TRUE(takes(tx, there, "a1")) << summary(tx.stats());
    (*b)("ip link set b1 down");
    EXPECT_TRUE(takes(tx, there, "egress_down")) << summary(tx.stats());
    EXPECT_EQ("a1", kernels_device(there.address));
    (*a)(setting + "1");
    EXPECT_TRUE(takes(tx, there, "a0")) << summary(tx.stats());
    EXPECT_EQ("a0", kernels_device(there.address));
    (*a)(setting + "0");
    EXPECT_TRUE(takes(tx, there, "egress_down")) << summary(tx.stats());
    EXPECT_EQ("a1", kernels_device(there.address));
  }
  /// The device that the kernel names.
  static std::string kernels_device(const ip_address& to) {
    netlink::request_socket kernel;
    netlink::route_query asked;
    asked.destination = to;
    const auto answer = kernel.get_route(asked);
    char name[IF_NAMESIZE] = "";
    if (answer && !answer.route.next_hops.empty())
      ::if_indextoname(answer.route.next_hops.front().index, name);
    return name;
  }
};

TEST_F(settings, a_hop_limit_of_ipv6_is_followed) {
  const endpoint there = to("[fd77:1::2]:9000");
  udp_sink sink(*b, to("[::]:9000"));
  const int yes = 1;
  ASSERT_EQ(0, ::setsockopt(sink.fd(), IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &yes, sizeof yes));
  const auto next_hop_limit = [&] {
    char byte;
    alignas(cmsghdr) char control[64];
    iovec part{&byte, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    pollfd readable{sink.fd(), POLLIN, 0};
    int limit = -1;
    if (::poll(&readable, 1, 2000) <= 0 || ::recvmsg(sink.fd(), &message, 0) < 0) return limit;
    if (const cmsghdr* first = CMSG_FIRSTHDR(&message))
      std::memcpy(&limit, CMSG_DATA(first), sizeof limit);
    return limit;
  };
  transmitter tx(small());
  auto s = tx.make_sender();
  const auto arrives_with = [&](int limit) {
    return eventually([&] { return s.try_send(bytes_of("x"), there) && next_hop_limit() == limit; },
                      patience);
  };
  EXPECT_TRUE(arrives_with(64));
  (*a)("sysctl -qw net.ipv6.conf.a0.hop_limit=77");
  EXPECT_TRUE(arrives_with(77));
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(0u, tx.stats().kernel_path) << summary(tx.stats());
}

// As a router's advertisement sets it.
TEST_F(settings, an_mtu_of_ipv6_that_is_less_than_the_devices_is_followed) {
  const endpoint v6 = to("[fd77:1::2]:9000"), v4 = to("10.77.1.2:9000");
  transmitter tx(small());
  EXPECT_TRUE(takes(tx, v6, "a0", 1400)) << summary(tx.stats());
  (*a)("sysctl -qw net.ipv6.conf.a0.mtu=1300");
  EXPECT_TRUE(takes(tx, v6, "exceeds_mtu", 1400)) << summary(tx.stats());
  EXPECT_TRUE(takes(tx, v6, "a0", 1300 - 48)) << summary(tx.stats());
  EXPECT_TRUE(takes(tx, v4, "a0", 1400)) << summary(tx.stats());
  (*a)("sysctl -qw net.ipv6.conf.a0.mtu=1500");
  EXPECT_TRUE(takes(tx, v6, "a0", 1400)) << summary(tx.stats());
}

TEST_F(settings, sockets_made_without_path_mtu_discovery_stay_with_the_kernel) {
  const endpoint there = to("10.77.1.2:9000");
  transmitter tx(small());
  EXPECT_TRUE(takes(tx, there, "a0")) << summary(tx.stats());
  (*a)("sysctl -qw net.ipv4.ip_no_pmtu_disc=1");
  EXPECT_TRUE(takes(tx, there, "needs_identification")) << summary(tx.stats());
  EXPECT_TRUE(takes(tx, to("[fd77:1::2]:9000"), "a0")) << summary(tx.stats());
  // A sender that was made meanwhile sends without DF, whatever the setting becomes.
  (*a)("sysctl -qw net.ipv4.ip_no_pmtu_disc=0");
  const auto before = by(tx, "a0");
  std::this_thread::sleep_for(2s);
  EXPECT_TRUE(takes(tx, there, "needs_identification")) << summary(tx.stats());
  EXPECT_EQ(before, by(tx, "a0"));
}

TEST_F(settings, another_policy_for_ipv6_sources_is_followed) {
  const endpoint there = to("[fd77:1::2]:9000");
  transmitter tx(small());
  EXPECT_TRUE(takes(tx, there, "a0")) << summary(tx.stats());
  (*a)("sysctl -qw net.ipv6.conf.a0.use_oif_addrs_only=1");
  EXPECT_TRUE(takes(tx, there, "source_policy")) << summary(tx.stats());
  (*a)("sysctl -qw net.ipv6.conf.a0.use_oif_addrs_only=0");
  EXPECT_TRUE(takes(tx, there, "a0")) << summary(tx.stats());
}

// A host looks for another way where a gateway has FAILED, a router does not.
TEST_F(settings, forwarding_of_ipv6_is_followed) {
  (*a)("ip -6 route add 2001:db8::/32 via fd77:2::99 dev a1 metric 10");
  (*a)("ip -6 route add 2001:db8::/32 via fd77:1::2 dev a0 metric 20");
  (*a)("ip neigh add fd77:2::99 dev a1 lladdr 02:00:00:00:00:99 nud reachable");
  (*a)("ip neigh change fd77:2::99 dev a1 nud failed");
  const endpoint there = to("[2001:db8::1]:9000");
  transmitter tx(small());
  EXPECT_TRUE(takes(tx, there, "a0")) << summary(tx.stats());
  EXPECT_EQ("a0", kernels_device(there.address));
  (*a)("sysctl -qw net.ipv6.conf.all.forwarding=1");
  EXPECT_TRUE(takes(tx, there, "neighbour_unresolved")) << summary(tx.stats());
  EXPECT_EQ("a1", kernels_device(there.address));
}

TEST_F(settings, ipv4_routes_over_links_without_carrier_are_ignored_when_told) {
  (*a)("ip route add 10.78.0.0/16 via 10.77.2.2 dev a1 metric 10");
  (*a)("ip route add 10.78.0.0/16 via 10.77.1.2 dev a0 metric 20");
  expect_ignored("net.ipv4", to("10.78.0.1:9000"));
}

TEST_F(settings, ipv6_routes_over_links_without_carrier_are_ignored_when_told) {
  (*a)("ip -6 route add 2001:db8::/32 via fd77:2::2 dev a1 metric 10");
  (*a)("ip -6 route add 2001:db8::/32 via fd77:1::2 dev a0 metric 20");
  expect_ignored("net.ipv6", to("[2001:db8::1]:9000"));
}

}  // namespace
}  // namespace cowire::test

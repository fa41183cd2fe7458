// SPDX-License-Identifier: Apache-2.0
#include <tests/async/frame_capture.hpp>

namespace cowire::test {
namespace {

struct group_sending {
  int ttl = -1;           ///< -1 = as the socket has it.
  std::string interface{};  ///< "" = none.
  bool loop = true;
  int unicast_ttl = 0;
};

constexpr std::uint16_t group_port = captured_port;  // What frames are captured of.

class multicast : public comparable<two_hosts> {
 protected:
  void SetUp() override {
    comparable<two_hosts>::SetUp();
    if (IsSkipped()) return;
    (*a)("ip route add default via 10.77.1.2");
  }

  static sender_options as_options(const group_sending& o) {
    sender_options wanted;
    wanted.source_port = 8001;
    if (o.ttl >= 0) wanted.multicast_ttl = static_cast<std::uint8_t>(o.ttl);
    wanted.multicast_interface = o.interface;
    wanted.multicast_loop = o.loop;
    wanted.ttl = static_cast<std::uint8_t>(o.unicast_ttl);
    return wanted;
  }

  /// A plain socket with these options.
  static unique_fd plain(ip_family family, const group_sending& o, std::uint16_t port = 8001) {
    const bool v4 = family == ip_family::v4;
    unique_fd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const auto set = [&](int name, int value) {
      EXPECT_EQ(0,
                ::setsockopt(fd.get(), v4 ? IPPROTO_IP : IPPROTO_IPV6, name, &value, sizeof value));
    };
    if (o.ttl >= 0) set(v4 ? IP_MULTICAST_TTL : IPV6_MULTICAST_HOPS, o.ttl);
    if (o.unicast_ttl != 0) set(v4 ? IP_TTL : IPV6_UNICAST_HOPS, o.unicast_ttl);
    if (!o.loop) set(v4 ? IP_MULTICAST_LOOP : IPV6_MULTICAST_LOOP, 0);
    const auto index = static_cast<int>(::if_nametoindex(o.interface.c_str()));
    if (!v4) {
      set(IPV6_V6ONLY, 1);
      if (index != 0) set(IPV6_MULTICAST_IF, index);
    } else if (index != 0) {
      ip_mreqn by_index{};
      by_index.imr_ifindex = index;
      EXPECT_EQ(0, ::setsockopt(fd.get(), IPPROTO_IP, IP_MULTICAST_IF, &by_index, sizeof by_index));
    }
    const raw_address name({ip_address::any(family), port});
    EXPECT_EQ(0, ::bind(fd.get(), name.name(), name.size));
    return fd;
  }

  /// The frame of a plain socket, and that of cowire's, which has to be fast.
  void compare(const std::string& group, const group_sending& o, const char* heard_on = "b0") {
    const endpoint there = to(group);
    capture wire(*b, heard_on);
    std::string kernel;
    {
      const unique_fd fd = plain(there.address.family(), o);
      const raw_address name(there);
      ASSERT_EQ(5, ::sendto(fd.get(), "hello", 5, 0, name.name(), name.size)) << errno;
      kernel = wire.next();
      ASSERT_FALSE(kernel.empty());
    }
    transmitter tx(small());
    auto s = tx.make_sender(as_options(o));
    ASSERT_TRUE(s.try_send(bytes_of("hello"), there));
    const auto ours = wire.next();
    EXPECT_EQ(kernel, ours) << "kernel " << hex(kernel) << "\ncowire " << hex(ours);
    EXPECT_TRUE(drained(tx));
    EXPECT_EQ(0u, tx.stats().kernel_path) << summary(tx.stats());
  }

  /// A socket bound to the group's port on host A, a member if `device` is not null.
  static unique_fd listener(const ip_address& group, const char* device) {
    const bool v4 = group.is_v4();
    unique_fd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const raw_address name({ip_address::any(group.family()), group_port});
    EXPECT_EQ(0, ::bind(fd.get(), name.name(), name.size));
    if (device != nullptr) join(fd.get(), group, device, true);
    return fd;
  }
  static void join(int fd, const ip_address& group, const char* device, bool joins) {
    group_req request{};
    request.gr_interface = ::if_nametoindex(device);
    const raw_address name({group, 0});
    std::memcpy(&request.gr_group, name.name(), name.size);
    ASSERT_EQ(0,
              ::setsockopt(fd, group.is_v4() ? IPPROTO_IP : IPPROTO_IPV6,
                           joins ? MCAST_JOIN_GROUP : MCAST_LEAVE_GROUP, &request, sizeof request));
  }
  static bool hears(int fd, std::chrono::milliseconds within) {
    pollfd readable{fd, POLLIN, 0};
    if (::poll(&readable, 1, static_cast<int>(within.count())) <= 0) return false;
    char bytes[64];
    return ::recv(fd, bytes, sizeof bytes, 0) >= 0;
  }
  /// Sends until the reason of a datagram's diversion, or "" for none, is this one.
  static bool comes_to(const transmitter& tx, sender& s, const endpoint& there,
                       const std::string& reason) {
    return eventually([&] {
      const auto before = tx.stats();
      if (!s.try_send(bytes_of("hello"), there) || !drained(tx)) return false;
      const auto after = tx.stats();
      if (reason.empty()) return after.kernel_path == before.kernel_path;
      const auto count = [&](const transmitter_stats& of) {
        const auto found = of.diverted.find(reason);
        return found == of.diverted.end() ? 0 : found->second;
      };
      return count(after) != count(before);
    });
  }
};

TEST_F(multicast, ipv4_as_a_plain_socket_sends_it) { compare("239.1.130.7:9000", {}); }
TEST_F(multicast, ipv4_with_a_ttl_of_its_own) {
  compare("239.129.2.3:9000", {.ttl = 12, .unicast_ttl = 99});
}
TEST_F(multicast, the_unicast_ttl_does_not_concern_groups) {
  compare("239.1.2.3:9000", {.unicast_ttl = 99});
}
TEST_F(multicast, ipv4_without_loop_and_with_a_member_here) {
  const unique_fd member = listener(to("239.1.2.3:9000").address, "a0");
  compare("239.1.2.3:9000", {.loop = false});
  EXPECT_FALSE(hears(member.get(), 0ms));
}
TEST_F(multicast, ipv4_link_local_groups_by_interface) {
  compare("224.0.0.77:9000", {.interface = "a0"});
}
TEST_F(multicast, a_member_on_another_device_does_not_count) {
  (*a)("ip link add other type veth peer name rehto");
  (*a)("ip link set other up");
  (*a)("ip link set rehto up");
  (*a)("ip addr add 10.90.0.1/24 dev other");
  const unique_fd member = listener(to("239.1.2.3:9000").address, "other");
  compare("239.1.2.3:9000", {});
}
TEST_F(multicast, a_group_route_keeps_its_gateway) {
  (*a)("ip route add 239.7.0.0/16 via 10.77.1.2");
  compare("239.7.1.1:9000", {});
}
TEST_F(multicast, a_neighbour_entry_that_somebody_made_counts) {
  (*a)("ip neigh add 239.1.2.9 lladdr 02:00:00:00:00:99 nud permanent dev a0");
  compare("239.1.2.9:9000", {});
}
TEST_F(multicast, ipv6_as_a_plain_socket_sends_it) {
  compare("[ff3e::1234:5678]:9000", {.interface = "a0"});
}
TEST_F(multicast, ipv6_link_local_and_site_local) {
  compare("[ff02::9:1]:9000", {.ttl = 3, .interface = "a0"});
  compare("[ff15::9:1]:9000", {.interface = "a0"});
}
TEST_F(multicast, ipv6_without_loop_and_with_a_member_here) {
  const unique_fd member = listener(to("[ff1e::3]:9000").address, "a0");
  compare("[ff1e::3]:9000", {.interface = "a0", .loop = false});
  EXPECT_FALSE(hears(member.get(), 0ms));
}

class multicast_members : public multicast, public ::testing::WithParamInterface<const char*> {};

TEST_P(multicast_members, get_their_copies_from_the_moment_they_join) {
  const endpoint there = to(GetParam());
  transmitter tx(small());
  auto s = tx.make_sender(as_options({.interface = "a0"}));
  ASSERT_TRUE(comes_to(tx, s, there, "")) << summary(tx.stats());
  const unique_fd member = listener(there.address, nullptr);
  for (int round = 0; round < 3; ++round) {
    join(member.get(), there.address, "a0", true);
    ASSERT_TRUE(comes_to(tx, s, there, "multicast_member")) << summary(tx.stats());
    EXPECT_TRUE(hears(member.get(), patience));
    join(member.get(), there.address, "a0", false);
    ASSERT_TRUE(comes_to(tx, s, there, "")) << summary(tx.stats());
    while (hears(member.get(), 0ms)) continue;
    ASSERT_TRUE(s.try_send(bytes_of("hello"), there));
    ASSERT_TRUE(drained(tx));
    EXPECT_FALSE(hears(member.get(), 0ms));
  }
}
INSTANTIATE_TEST_SUITE_P(both, multicast_members,
                         ::testing::Values("239.5.5.5:9000", "[ff1e::55]:9000"));

TEST_F(multicast, that_a_router_on_this_host_wants_is_the_kernels) {
  transmitter tx(small());
  auto s = tx.make_sender();
  const endpoint there = to("239.5.5.6:9000");
  ASSERT_TRUE(comes_to(tx, s, there, "")) << summary(tx.stats());
  const unique_fd router(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_IGMP));
  const int on = 1;
  constexpr int mrt_init = 200, mrt_add_vif = 202;  // linux/mroute.h
  ASSERT_EQ(0, ::setsockopt(router.get(), IPPROTO_IP, mrt_init, &on, sizeof on)) << errno;
  struct {
    std::uint16_t number;
    std::uint8_t flags, threshold;
    std::uint32_t rate, local, remote;
  } vif{0, 8 /* VIFF_USE_IFINDEX */, 1, 0, ::if_nametoindex("a0"), 0};
  ASSERT_EQ(0, ::setsockopt(router.get(), IPPROTO_IP, mrt_add_vif, &vif, sizeof vif)) << errno;
  EXPECT_TRUE(comes_to(tx, s, there, "multicast_routing")) << summary(tx.stats());
  auto silent = tx.make_sender({.multicast_loop = false});
  EXPECT_TRUE(comes_to(tx, silent, there, "")) << summary(tx.stats());
}

TEST_F(multicast, ttl_0_is_the_kernels) {
  transmitter tx(small());
  auto s = tx.make_sender({.multicast_ttl = 0});
  EXPECT_TRUE(comes_to(tx, s, to("239.5.5.7:9000"), "multicast_destination"));
}

TEST_F(multicast, adopted_sockets_options_are_read) {
  const endpoint there = to("[ff1e::77]:9000");
  const unique_fd mine = plain(ip_family::v6, {.ttl = 9, .interface = "a0", .loop = false}, 8002);
  const unique_fd member = listener(there.address, "a0");
  capture wire(*b, "b0");
  const raw_address name(there);
  ASSERT_EQ(5, ::sendto(mine.get(), "hello", 5, 0, name.name(), name.size));
  const auto kernel = wire.next();
  transmitter tx(small());
  auto s = tx.make_sender({.adopt_socket = mine.get()});
  ASSERT_TRUE(s.try_send(bytes_of("hello"), there));
  EXPECT_EQ(kernel, wire.next());
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(0u, tx.stats().kernel_path) << summary(tx.stats());
}

TEST_F(multicast, of_an_adopted_ipv4_socket_the_device_is_hidden_until_it_is_given) {
  const endpoint there = to("239.5.5.8:9000");
  transmitter tx(small());
  {
    const unique_fd mine = plain(ip_family::v4, {.interface = "a0"}, 8002);
    auto s = tx.make_sender({.adopt_socket = mine.get()});
    EXPECT_TRUE(comes_to(tx, s, there, "multicast_interface_unknown")) << summary(tx.stats());
  }
  const unique_fd mine = plain(ip_family::v4, {}, 8003);
  auto s = tx.make_sender({.multicast_interface = "a0", .adopt_socket = mine.get()});
  EXPECT_TRUE(comes_to(tx, s, there, "")) << summary(tx.stats());
}

TEST_F(multicast, broadcast_needs_permission_as_with_a_plain_socket) {
  for (const char* there : {"10.77.1.255:9000", "255.255.255.255:9000"}) {
    transmitter tx(small());
    auto s = tx.make_sender({.bound_device = "a0"});
    ASSERT_TRUE(s.try_send(bytes_of("hello"), to(there)));
    ASSERT_TRUE(drained(tx));
    EXPECT_EQ(1u, tx.stats().refused["EACCES"]) << summary(tx.stats());
    auto permitted = tx.make_sender({.broadcast = true, .bound_device = "a0"});
    const unique_fd here = listener(ip_address::any(ip_family::v4), nullptr);
    capture wire(*b, "b0");
    ASSERT_TRUE(permitted.try_send(bytes_of("hello"), to(there)));
    EXPECT_FALSE(wire.next().empty());
    EXPECT_TRUE(hears(here.get(), patience)) << "the kernel's own copy";
  }
}

}  // namespace
}  // namespace cowire::test

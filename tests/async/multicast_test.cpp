// SPDX-License-Identifier: Apache-2.0
#include <tests/async/groups.hpp>
#include <tests/async/numbered_stream.hpp>

namespace cowire::test {
namespace {

class multicast : public comparable<two_hosts> {
 protected:
  void SetUp() override {
    comparable<two_hosts>::SetUp();
    if (IsSkipped()) return;
    (*a)("ip route add default via 10.77.1.2");
  }

  /// The frame of a plain socket, and that of cowire's, which has to be fast.
  void compare(const std::string& group, const group_sending& o, const char* heard_on = "b0") {
    const endpoint there = to(group);
    capture wire(*b, heard_on);
    std::string kernel;
    {
      const unique_fd fd = group_socket(there.address.family(), o);
      const raw_address name(there);
      ASSERT_EQ(5, ::sendto(fd.get(), "hello", 5, 0, name.name(), name.size)) << errno;
      kernel = wire.next();
      ASSERT_FALSE(kernel.empty());
    }
    transmitter tx(small());
    // The kernel lets go of the queue a while after the socket of the one before was closed.
    ASSERT_TRUE(eventually([&] {
      return std::ranges::any_of(tx.stats().interfaces, [](const interface_stats& i) {
        return i.name == "a0" && i.mode != send_mode::kernel;
      });
    })) << summary(tx.stats());
    auto s = tx.make_sender(as_options(o));
    ASSERT_TRUE(s.try_send(bytes_of("hello"), there));
    const auto ours = wire.next();
    EXPECT_EQ(kernel, ours) << "kernel " << hex(kernel) << "\ncowire " << hex(ours);
    EXPECT_TRUE(drained(tx));
    EXPECT_EQ(0u, tx.stats().kernel_path) << summary(tx.stats());
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
    join(member.get(), there.address, "a0");
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

/// A plain socket that sends the numbers 0, 1, 2 ..., about one in 200 us.
class kernel_stream {
 public:
  kernel_stream(const endpoint& there, const group_sending& o)
      : fd_(group_socket(there.address.family(), o, 8002)), thread_([this, there] {
          const raw_address name(there);
          for (std::uint64_t number = 0; !stopping_; std::this_thread::sleep_for(200us))
            if (::sendto(fd_.get(), &number, sizeof number, 0, name.name(), name.size) ==
                sizeof number)
              sent_ = ++number;
        }) {}
  ~kernel_stream() { stop(); }
  kernel_stream(const kernel_stream&) = delete;
  kernel_stream& operator=(const kernel_stream&) = delete;

  [[nodiscard]] std::uint64_t sent() const { return sent_; }
  void stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  unique_fd fd_;
  std::atomic<bool> stopping_{false};
  std::atomic<std::uint64_t> sent_{0};
  std::thread thread_;
};

// A plain socket beside it sends the same numbers to another port. Beyond, each comes once of both.
// Here, from the moment on at which the member hears the fast path's sender, as each does that the
// kernel's sends from the join on; and none of both that is sent after it has left.
TEST_P(multicast_members, hear_under_traffic_what_they_hear_of_the_kernel) {
  constexpr std::uint16_t kernel_port = 9001;
  constexpr int rounds = 40;
  constexpr std::uint64_t enough = 20;
  const endpoint there = to(GetParam());
  const endpoint beside{there.address, kernel_port};
  sinks[0].reset();
  sinks[1].reset();
  std::unique_ptr<group_ears> beyond[2];
  {
    const netns::scope in_b(*b);
    beyond[0] = std::make_unique<group_ears>(listener(there.address, "b0"));
    beyond[1] = std::make_unique<group_ears>(listener(there.address, "b0", kernel_port));
  }
  // Neither is a member itself: they hear of a group that anybody here has joined.
  group_ears here(listener(there.address, nullptr));
  group_ears of_kernel(listener(there.address, nullptr, kernel_port));
  const unique_fd member = listener(there.address, nullptr, 9002);
  transmitter tx(small());
  numbered_stream ours(tx, {there}, 200us, as_options({.interface = "a0"}));
  kernel_stream kernels(beside, {.interface = "a0"});
  std::uint64_t fast = 0;
  for (int round = 0; round < rounds; ++round) {
    SCOPED_TRACE(round);
    // The last leave is known, or what is still left to the kernel for the membership that it ended
    // would be heard by the next one.
    ASSERT_TRUE(eventually([&] { return tx.stats().transmitted_total() > fast; }));
    // What was submitted before a join may be sent after it.
    const std::uint64_t before = ours.sent();
    ASSERT_TRUE(eventually([&] { return beyond[0]->heard(0, before, 1); }));
    join(member.get(), there.address, "a0");
    const std::uint64_t from_kernel = kernels.sent() + 1;
    ASSERT_TRUE(eventually([&] { return here.end() > before; })) << summary(tx.stats());
    const std::uint64_t from = ours.sent() + 1;
    ASSERT_TRUE(eventually([&] { return ours.sent() > from + enough; }));
    ASSERT_TRUE(eventually([&] { return here.heard(from, from + enough, 1); }));
    ASSERT_TRUE(eventually([&] { return kernels.sent() > from_kernel + enough; }));
    ASSERT_TRUE(eventually([&] { return of_kernel.heard(from_kernel, from_kernel + enough, 1); }));
    fast = tx.stats().transmitted_total();
    join(member.get(), there.address, "a0", false);
    const std::uint64_t quiet = ours.sent() + 1, quiet_kernel = kernels.sent() + 1;
    ASSERT_TRUE(eventually([&] {
      return ours.sent() > quiet + enough && kernels.sent() > quiet_kernel + enough &&
             beyond[0]->end() > quiet + enough;
    }));
    EXPECT_TRUE(here.heard(quiet, quiet + enough, 0));
    EXPECT_TRUE(of_kernel.heard(quiet_kernel, quiet_kernel + enough, 0));
  }
  ours.stop();
  kernels.stop();
  EXPECT_TRUE(eventually([&] { return beyond[0]->heard(0, ours.sent(), 1); }));
  EXPECT_TRUE(eventually([&] { return beyond[1]->heard(0, kernels.sent(), 1); }));
  EXPECT_TRUE(drained(tx));
  EXPECT_LT(0u, by(tx, "a0"));
  EXPECT_LT(0u, tx.stats().diverted["multicast_member"]);
}

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

// IPv6 has no flag of a device for it: a router gets copies of all that is looped back.
TEST_F(multicast, that_an_ipv6_router_on_this_host_wants_is_the_kernels) {
  transmitter tx(small());
  auto s = tx.make_sender({.multicast_interface = "a0"});
  auto silent = tx.make_sender({.multicast_interface = "a0", .multicast_loop = false});
  const endpoint there = to("[ff3e::5:6]:9000");
  ASSERT_TRUE(comes_to(tx, s, there, "")) << summary(tx.stats());
  {
    const unique_fd router(::socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6));
    const int on = 1;
    constexpr int mrt6_init = 200;  // linux/mroute6.h
    ASSERT_EQ(0, ::setsockopt(router.get(), IPPROTO_IPV6, mrt6_init, &on, sizeof on))
        << errno_name(errno);
    EXPECT_TRUE(comes_to(tx, s, there, "multicast_routing")) << summary(tx.stats());
    EXPECT_TRUE(comes_to(tx, silent, there, "")) << summary(tx.stats());
  }
  EXPECT_TRUE(comes_to(tx, s, there, "")) << summary(tx.stats());
}

TEST_F(multicast, devices_that_cannot_be_are_named) {
  (*a)("ip link add other type veth peer name rehto");
  transmitter tx(small());
  const auto refusal = [&](const sender_options& wanted) -> std::string {
    try {
      static_cast<void>(tx.make_sender(wanted));
    } catch (const std::system_error& error) {
      return error.what();
    }
    return "none";
  };
  EXPECT_NE(std::string::npos,
            refusal({.multicast_interface = "no-such"}).find("multicast_interface 'no-such'"));
  const std::string both = refusal({.multicast_interface = "other", .bound_device = "a0"});
  EXPECT_NE(std::string::npos, both.find("on a0 with multicast_interface other")) << both;
  EXPECT_EQ("none", refusal({.multicast_interface = "a0", .bound_device = "a0"}));
}

TEST_F(multicast, ttl_0_is_the_kernels) {
  transmitter tx(small());
  auto s = tx.make_sender({.multicast_ttl = 0});
  EXPECT_TRUE(comes_to(tx, s, to("239.5.5.7:9000"), "multicast_destination"));
}

TEST_F(multicast, adopted_sockets_options_are_read) {
  const endpoint there = to("[ff1e::77]:9000");
  const unique_fd mine =
      group_socket(ip_family::v6, {.ttl = 9, .interface = "a0", .loop = false}, 8002);
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

// What the two above rely on; a kernel that tells more would spare IPv4 the diversion.
TEST_F(multicast, the_device_for_groups_is_read_back_of_ipv6_sockets_alone) {
  const auto index = static_cast<int>(::if_nametoindex("a0"));
  ASSERT_NE(0, index);
  const unique_fd v6 = group_socket(ip_family::v6, {.interface = "a0"}, 8002);
  int told = 0;
  socklen_t size = sizeof told;
  ASSERT_EQ(0, ::getsockopt(v6.get(), IPPROTO_IPV6, IPV6_MULTICAST_IF, &told, &size));
  EXPECT_EQ(index, told);
  // With or without: the same answer, an address and nothing behind it.
  ip_mreqn answers[2];
  socklen_t sizes[2];
  for (const int with : {0, 1}) {
    const unique_fd v4 = group_socket(ip_family::v4, {.interface = with != 0 ? "a0" : ""}, 8003);
    std::memset(&answers[with], 0x5a, sizeof answers[with]);
    sizes[with] = sizeof answers[with];
    ASSERT_EQ(0, ::getsockopt(v4.get(), IPPROTO_IP, IP_MULTICAST_IF, &answers[with], &sizes[with]));
  }
  EXPECT_EQ(sizeof(in_addr), sizes[0]);
  EXPECT_EQ(sizes[0], sizes[1]);
  EXPECT_EQ(0, std::memcmp(&answers[0], &answers[1], sizeof answers[0]));
}

// The kernel path's datagrams go there, too.
TEST_F(multicast, a_device_that_is_given_is_set_on_the_adopted_socket) {
  (*a)("ip link add other type veth peer name rehto && ip link set other up");
  (*a)("ip addr add 10.90.0.1/24 dev other && ip link set rehto up");
  const unique_fd member = listener(to("239.5.5.9:9000").address, "a0");
  const unique_fd mine = group_socket(ip_family::v4, {.interface = "other"}, 8002);
  transmitter tx(small());
  auto s = tx.make_sender({.multicast_interface = "a0", .adopt_socket = mine.get()});
  EXPECT_TRUE(comes_to(tx, s, to("239.5.5.9:9000"), "multicast_member")) << summary(tx.stats());
  EXPECT_TRUE(hears(member.get(), patience));
  capture wire(*b, "b0");
  const raw_address name(to("239.5.5.9:9000"));
  ASSERT_EQ(5, ::sendto(mine.get(), "hello", 5, 0, name.name(), name.size));
  EXPECT_FALSE(wire.next().empty()) << "it is the application's own socket";
}

TEST_F(multicast, of_an_adopted_ipv4_socket_the_device_is_hidden_until_it_is_given) {
  const endpoint there = to("239.5.5.8:9000");
  transmitter tx(small());
  {
    const unique_fd mine = group_socket(ip_family::v4, {.interface = "a0"}, 8002);
    auto s = tx.make_sender({.adopt_socket = mine.get()});
    EXPECT_TRUE(comes_to(tx, s, there, "multicast_interface_unknown")) << summary(tx.stats());
  }
  const unique_fd mine = group_socket(ip_family::v4, {}, 8003);
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

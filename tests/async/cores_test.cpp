// SPDX-License-Identifier: Apache-2.0
// Two TX cores over interfaces with two queues: both send, flows keep their order, and whatever
// happens to an interface the totals add up and no frame leaks.
#include <cowire/xdp/socket.hpp>

#include <tests/support/two_hosts.hpp>

#include <sched.h>
#include <sys/syscall.h>

#include <array>
#include <cstring>
#include <map>

/// How long the kernel goes on holding an AF_XDP socket of this program that was closed.
static std::atomic<std::chrono::milliseconds> release_takes{std::chrono::milliseconds{0}};

/// Instead of the C library's: the kernel sets a queue free after a grace period of RCU and in a
/// work item that needs the lock of all devices, and that takes seconds on some busy machines.
extern "C" int close(int fd) {
  const auto longer = release_takes.load();
  int domain = 0;
  socklen_t size = sizeof domain;
  if (longer.count() != 0 && ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
      domain == AF_XDP)
    std::thread([held = ::fcntl(fd, F_DUPFD_CLOEXEC, 0), longer] {
      std::this_thread::sleep_for(longer);
      ::syscall(SYS_close, held);
    }).detach();
  return static_cast<int>(::syscall(SYS_close, fd));
}

namespace cowire::test {
namespace {

/// So many CPUs of those that this process may use; none if there are fewer.
std::vector<unsigned> cpus(std::size_t wanted) {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  ::sched_getaffinity(0, sizeof usable, &usable);
  std::vector<unsigned> out;
  for (unsigned cpu = 0; cpu < CPU_SETSIZE && out.size() < wanted; ++cpu)
    if (CPU_ISSET(cpu, &usable)) out.push_back(cpu);
  return out.size() == wanted ? out : std::vector<unsigned>{};
}

/// Host B answers for all of 10.78.0.0/16.
class cores : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    (*a)("ip link del a0");
    connect_with(2);
    (*b)("ip route add local 10.78.0.0/16 dev lo");
    sink = std::make_unique<udp_sink>(*b, to("0.0.0.0:9000"));
  }
  void TearDown() override {
    sink.reset();
    two_hosts::TearDown();
  }

  /// 0 = as many as veth has by itself: one.
  void connect_with(unsigned queues) const {
    connect(*a, "a0", *b, "b0", 1, queues);
    (*a)("ip route add 10.78.0.0/16 via 10.77.1.2");
    resolve("10.77.1.2");
  }
  static transmitter_config two_cores() {
    auto config = small();
    config.tx_cores = 2;
    // A thread that moves to another CPU may overtake itself in the receiver's backlogs.
    config.cpus = cpus(2);
    config.idle = idle_policy::adaptive;
    return config;
  }
  static std::vector<endpoint> hosts(unsigned count) {
    std::vector<endpoint> out;
    for (unsigned i = 1; i <= count; ++i) out.push_back({ip_address::v4(0x0a4e0000 + i), 9000});
    return out;
  }
  static std::uint64_t by_core(const transmitter& tx, std::size_t core) {
    return tx.stats().cores[core].transmitted;
  }
  /// Both cores send (again).
  static bool both_send(const transmitter& tx) {
    const std::array before{by_core(tx, 0), by_core(tx, 1)};
    return eventually(
        [&] { return by_core(tx, 0) > before[0] + 5 && by_core(tx, 1) > before[1] + 5; });
  }
  /// Everything is accounted for, by core and in all, and every frame of the producer is free.
  static void expect_settled(const transmitter& tx, stream& flow) {
    flow.stop();
    EXPECT_TRUE(eventually([&] { return tx.stats().on_the_way() == 0; })) << summary(tx.stats());
    const auto stats = tx.stats();
    EXPECT_EQ(flow.sent, stats.submitted) << summary(stats);
    std::uint64_t taken = 0;
    for (const core_stats& core : stats.cores) {
      EXPECT_EQ(core.taken, core.transmitted + core.diverted + core.lost_in_device)
          << summary(stats);
      taken += core.taken;
    }
    EXPECT_EQ(taken, stats.submitted) << summary(stats);
    EXPECT_EQ(flow.free_frames(), small().frames_per_producer) << summary(stats);
  }

  std::unique_ptr<udp_sink> sink;
};

struct numbered {
  std::uint32_t flow, number;
};

TEST_F(cores, each_flow_keeps_its_order_over_two_cores_under_load) {
  constexpr std::uint32_t flows = 250, rounds = 200;
  transmitter tx(two_cores());
  ASSERT_EQ(2u, tx.stats().cores_in_use) << summary(tx.stats());
  std::thread source([&] {
    const auto destinations = hosts(flows);
    auto s = tx.make_sender();
    for (numbered next{0, 0}; next.number < rounds / 2; ++next.number)
      for (next.flow = 0; next.flow < flows; ++next.flow)
        while (!s.try_send(std::as_bytes(std::span(&next, 1)), destinations[next.flow]))
          std::this_thread::yield();
    for (std::uint32_t round = rounds / 2; round < rounds; ++round) {
      std::vector<numbered> all;
      std::vector<message> messages;
      for (std::uint32_t flow = 0; flow < flows; ++flow) all.push_back({flow, round});
      for (const numbered& one : all)
        messages.push_back({std::as_bytes(std::span(&one, 1)), destinations[one.flow]});
      for (std::span<const message> rest(messages); !rest.empty();) {
        std::error_code ec;
        const std::size_t sent = s.try_send_batch(rest, ec);
        if (sent == 0) std::this_thread::yield();
        rest = rest.subspan(sent);
      }
    }
  });
  std::array<std::uint32_t, flows> expected{};
  for (std::uint32_t i = 0; i < flows * rounds; ++i) {
    const auto got = sink->next(20s);
    if (!got || got->bytes.size() != sizeof(numbered)) {
      ADD_FAILURE() << "after " << i << ": " << summary(tx.stats());
      break;
    }
    numbered received;
    std::memcpy(&received, got->bytes.data(), sizeof received);
    EXPECT_EQ(expected[received.flow]++, received.number) << "flow " << received.flow;
  }
  source.join();
  EXPECT_TRUE(drained(tx));
  const auto stats = tx.stats();
  EXPECT_EQ(flows * rounds, stats.transmitted_total()) << summary(stats);
  // By hash: neither has less than a third.
  EXPECT_GT(stats.cores[0].transmitted, flows * rounds / 3) << summary(stats);
  EXPECT_GT(stats.cores[1].transmitted, flows * rounds / 3) << summary(stats);
  EXPECT_EQ(stats.cores[0].transmitted + stats.cores[1].transmitted, stats.transmitted_total());
  EXPECT_EQ(2u, stats.interfaces[0].sockets);
}

TEST_F(cores, a_fan_out_reaches_everybody_over_two_cores) {
  transmitter tx(two_cores());
  auto s = tx.make_sender();
  const auto many = hosts(3000);
  outcome<std::error_code, std::size_t> sent;
  s.async_send(bytes_of("many"), many, sent.handler());
  EXPECT_EQ(many.size(), std::get<1>(sent.future.get()));
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(many.size(), sink->drain()) << summary(tx.stats());
  EXPECT_GT(by_core(tx, 0), many.size() / 3) << summary(tx.stats());
  EXPECT_GT(by_core(tx, 1), many.size() / 3) << summary(tx.stats());
}

TEST_F(cores, what_both_cores_divert_comes_back) {
  auto config = two_cores();
  config.mode = send_mode::kernel;
  transmitter tx(config);
  stream flow(tx, hosts(200));
  EXPECT_TRUE(eventually([&] {
    const auto stats = tx.stats();
    return stats.cores[0].diverted > 500 && stats.cores[1].diverted > 500;
  })) << summary(tx.stats());
  expect_settled(tx, flow);
  EXPECT_EQ(flow.sent, tx.stats().kernel_path) << summary(tx.stats());
  EXPECT_EQ(flow.sent, sink->drain());
}

TEST_F(cores, links_that_flap_leave_nothing_uncounted) {
  transmitter tx(two_cores());
  stream flow(tx, hosts(200));
  for (int i = 0; i < 15; ++i) {
    (*a)("ip link set a0 down");
    (*a)("ip link set a0 up");
    (*a)("ip route replace 10.78.0.0/16 via 10.77.1.2");
  }
  EXPECT_TRUE(both_send(tx)) << summary(tx.stats());
  expect_settled(tx, flow);
}

TEST_F(cores, an_interface_made_anew_under_load_leaves_nothing_uncounted) {
  transmitter tx(two_cores());
  stream flow(tx, hosts(200));
  for (int i = 0; i < 6; ++i) {
    EXPECT_TRUE(both_send(tx)) << i << " " << summary(tx.stats());
    (*a)("ip link del a0");
    connect_with(2);
  }
  EXPECT_TRUE(both_send(tx)) << summary(tx.stats());
  expect_settled(tx, flow);
  EXPECT_EQ(2u, tx.stats().cores_in_use);
}

TEST_F(cores, an_interface_with_one_queue_is_served_by_one_core_as_long_as_it_is_there) {
  (*a)("ip link del a0");
  connect_with(0);
  transmitter tx(two_cores());
  const auto before = tx.stats();
  EXPECT_EQ(1u, before.cores_in_use) << summary(before);
  EXPECT_EQ(1u, before.interfaces[0].sockets);
  EXPECT_EQ(send_mode::copy, before.interfaces[0].mode) << summary(before);
  EXPECT_TRUE(before.cores_reason.starts_with("a0 has transmit queues for 1: "))
      << before.cores_reason;
  stream flow(tx, hosts(200));
  EXPECT_TRUE(eventually([&] { return by_core(tx, 0) > 500; })) << summary(tx.stats());
  EXPECT_EQ(0u, tx.stats().cores[1].taken) << summary(tx.stats());

  (*a)("ip link del a0");
  connect_with(2);
  EXPECT_TRUE(both_send(tx)) << summary(tx.stats());
  EXPECT_EQ(2u, tx.stats().cores_in_use);
  EXPECT_EQ("", tx.stats().cores_reason);

  (*a)("ip link del a0");
  connect_with(0);
  EXPECT_TRUE(eventually([&] { return tx.stats().cores_in_use == 1; }));
  expect_settled(tx, flow);
}

TEST_F(cores, a_queue_that_somebody_else_uses_limits_them) {
  umem their_memory({.frame_count = 64, .huge_pages = false});
  const auto theirs = open_egress(their_memory, read_device("a0"), {.queue = 1});
  ASSERT_TRUE(theirs.socket) << theirs.explain();
  transmitter tx(two_cores());
  const auto stats = tx.stats();
  EXPECT_EQ(send_mode::copy, stats.interfaces[0].mode) << summary(stats);
  EXPECT_EQ(1u, stats.cores_in_use);
  EXPECT_NE(std::string::npos, stats.cores_reason.find("another AF_XDP socket"))
      << stats.cores_reason;
  stream flow(tx, hosts(200));
  EXPECT_TRUE(eventually([&] { return by_core(tx, 0) > 500; })) << summary(tx.stats());
  expect_settled(tx, flow);
}

TEST_F(cores, a_queue_that_becomes_free_is_taken) {
  umem their_memory({.frame_count = 64, .huge_pages = false});
  auto theirs = open_egress(their_memory, read_device("a0"), {.queue = 1});
  ASSERT_TRUE(theirs.socket) << theirs.explain();
  transmitter tx(two_cores());
  ASSERT_EQ(1u, tx.stats().cores_in_use);
  stream flow(tx, hosts(200));
  theirs.socket.reset();
  EXPECT_TRUE(eventually([&] { return tx.stats().cores_in_use == 2; })) << tx.stats().cores_reason;
  EXPECT_TRUE(both_send(tx)) << summary(tx.stats());
  EXPECT_EQ("", tx.stats().cores_reason);
  EXPECT_EQ(2u, tx.stats().interfaces[0].sockets);
  expect_settled(tx, flow);
  EXPECT_EQ(0u, tx.stats().interfaces[0].rebuilt);
}

TEST_F(cores, a_queue_that_becomes_free_late_is_taken) {
  umem their_memory({.frame_count = 64, .huge_pages = false});
  auto theirs = open_egress(their_memory, read_device("a0"), {.queue = 1});
  ASSERT_TRUE(theirs.socket) << theirs.explain();
  transmitter tx(two_cores());
  ASSERT_EQ(1u, tx.stats().cores_in_use);
  // Longer than is waited for a queue that one's own trial has just left.
  release_takes = 1500ms;
  theirs.socket.reset();
  EXPECT_TRUE(eventually([&] { return tx.stats().cores_in_use == 2; })) << tx.stats().cores_reason;
  release_takes = 0ms;
}

TEST_F(cores, the_remedy_for_too_few_queues_is_one) {
  (*a)("ethtool -L a0 tx 1 rx 1");
  auto config = two_cores();
  transmitter tx(config);
  const auto before = tx.stats();
  ASSERT_EQ(1u, before.cores_in_use) << summary(before);
  const std::string remedy = "ethtool -L a0 tx 2";
  EXPECT_EQ("a0 has transmit queues for 1: " + remedy, before.cores_reason);
  stream flow(tx, hosts(200));
  (*a)(remedy);
  EXPECT_TRUE(eventually([&] { return tx.stats().cores_in_use == 2; })) << tx.stats().cores_reason;
  EXPECT_TRUE(both_send(tx)) << summary(tx.stats());
  EXPECT_EQ("", tx.stats().cores_reason);
  expect_settled(tx, flow);
}

TEST_F(cores, the_queue_of_each_can_be_chosen) {
  (*a)("ip link del a0");
  connect_with(4);
  auto config = two_cores();
  config.queues = {3, 1};
  {
    transmitter tx(config);
    ASSERT_EQ(2u, tx.stats().cores_in_use) << summary(tx.stats());
    umem memory({.frame_count = 64, .huge_pages = false});
    for (std::uint32_t queue = 0; queue < 4; ++queue) {
      const auto probe =
          open_egress(memory, read_device("a0"), {.queue = queue, .busy_deadline = 0ms});
      EXPECT_EQ(queue % 2 == 0, probe.socket != nullptr) << queue << " " << probe.explain();
    }
    stream flow(tx, hosts(200));
    EXPECT_TRUE(both_send(tx)) << summary(tx.stats());
    expect_settled(tx, flow);
  }
  // One that is not there: the others do, with what to do about it.
  config.queues = {3, 7};
  {
    const transmitter tx(config);
    EXPECT_EQ(1u, tx.stats().cores_in_use);
    EXPECT_EQ("a0 has transmit queues for 1: its driver has no more", tx.stats().cores_reason);
  }
  config.queues = {7, 3};
  {
    const transmitter tx(config);
    EXPECT_EQ(send_mode::kernel, tx.stats().interfaces[0].mode);
    EXPECT_NE(std::string::npos, tx.stats().interfaces[0].reason.find("no transmit queue 7"))
        << summary(tx.stats());
  }
  config.queues = {3, 3};
  EXPECT_THROW(transmitter{config}, std::system_error);
  if (config.cpus.empty()) return;
  config.queues = {3};
  EXPECT_THROW(transmitter{config}, std::system_error);
}

TEST_F(cores, as_many_as_cannot_be_are_refused) {
  for (const unsigned wrong : {0u, 65u}) {
    auto config = small();
    config.tx_cores = wrong;
    EXPECT_THROW(transmitter{config}, std::system_error) << wrong;
  }
  auto config = small();
  config.cpus = {0, 0};
  EXPECT_THROW(transmitter{config}, std::system_error);
}

}  // namespace
}  // namespace cowire::test

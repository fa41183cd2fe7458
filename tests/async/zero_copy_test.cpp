// SPDX-License-Identifier: Apache-2.0
// Zero-copy, on the two NICs that scripts/lab gives a guest: host A has one, host B the other.
#include <cowire/xdp/device.hpp>
#include <cowire/xdp/program.hpp>

#include <tests/support/two_hosts.hpp>

#include <net/if.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <set>

namespace cowire::test {
namespace {

/// "virtio_net", "igb"; empty where the device is not there.
std::string driver_of(const std::string& device) {
  std::error_code ec;
  const auto link =
      std::filesystem::read_symlink("/sys/class/net/" + device + "/device/driver", ec);
  return ec ? std::string() : link.filename().string();
}

class zero_copy : public two_hosts {
 protected:
  void SetUp() override {
    if (std::getenv("COWIRE_LAB") == nullptr || driver_of("eth1").empty())
      GTEST_SKIP() << "needs the two NICs of scripts/lab";
    ::alarm(300);
    driver = driver_of("eth0");
    a = std::make_unique<netns>();
    b = std::make_unique<netns>();
    run("ip link set eth0 netns " + a->name());
    run("ip link set eth1 netns " + b->name());
    configure(*a, "eth0", "1");
    configure(*b, "eth1", "2");
    inside = std::make_unique<netns::scope>(*a);
    wait_for_the_link();
  }
  void TearDown() override {
    two_hosts::TearDown();
    if (driver.empty()) return;
    // A dead namespace gives its NICs back, a moment later.
    EXPECT_TRUE(
        eventually([] { return !driver_of("eth0").empty() && !driver_of("eth1").empty(); }));
  }

  static void configure(const netns& in, const std::string& device, const std::string& host) {
    in("ip addr add 10.77.1." + host + "/24 dev " + device);
    in("ip addr add fd77:1::" + host + "/64 dev " + device + " nodad");
    in("ip link set " + device + " up");
  }
  void wait_for_the_link() const {
    const auto has_carrier = [](const netns& in, const char* device) {
      return in(std::string("cat /sys/class/net/") + device + "/carrier || true") == "1\n";
    };
    ASSERT_TRUE(eventually([&] { return has_carrier(*a, "eth0") && has_carrier(*b, "eth1"); }));
    resolve("10.77.1.2");
  }

  /// Paced: an emulated NIC drops what comes faster than the guest reads.
  void send_and_count(transmitter& tx, const endpoint& there, std::size_t count) {
    udp_sink sink(*b, {ip_address::any(there.address.family()), there.port});
    auto s = tx.make_sender({.source_port = 8001});
    // The first datagrams go through the kernel until it has resolved the neighbour.
    ASSERT_TRUE(eventually([&] {
      static_cast<void>(s.try_send(bytes_of("????"), there));
      std::this_thread::sleep_for(20ms);
      return tx.stats().transmitted["eth0"] > 0;
    })) << summary(tx.stats());
    ASSERT_TRUE(eventually([&] { return tx.stats().on_the_way() == 0; }));
    while (sink.next(500ms)) continue;

    const auto before = tx.stats();
    std::set<std::string> seen;
    for (std::size_t i = 0; i < count; ++i) {
      const std::string text = std::to_string(i) + std::string(i % 1200, '.');
      ASSERT_TRUE(s.try_send(bytes_of(text), there)) << i;
      if (i % 8 != 7) continue;
      std::this_thread::sleep_for(5ms);
      while (const auto got = sink.next(0ms))
        EXPECT_TRUE(seen.insert(got->bytes).second) << "twice";
    }
    while (const auto got = sink.next(2s)) EXPECT_TRUE(seen.insert(got->bytes).second) << "twice";
    ASSERT_TRUE(eventually([&] { return tx.stats().on_the_way() == 0; }));
    const auto after = tx.stats();
    EXPECT_EQ(count, seen.size()) << summary(after);
    EXPECT_EQ(count, after.transmitted.at("eth0") - before.transmitted.at("eth0"))
        << summary(after);
    EXPECT_EQ(before.kernel_path, after.kernel_path) << summary(after);
  }

  void expect_zero_copy(const transmitter& tx) const {
    const auto stats = tx.stats();
    for (const auto& shown : stats.interfaces)
      if (shown.name == "eth0") {
        EXPECT_EQ(send_mode::zero_copy, shown.mode) << driver << ": " << shown.reason;
      }
  }
  /// Of eth0; unset = it is not served.
  static std::optional<send_mode> rung_of(const transmitter& tx) {
    for (const auto& shown : tx.stats().interfaces)
      if (shown.name == "eth0") return shown.mode;
    return std::nullopt;
  }

  /// What kept eth0 from zero-copy is gone. Pauses between retrials grow to half a minute.
  void expect_better_rung(transmitter& tx) {
    ASSERT_TRUE(eventually([&] { return rung_of(tx) == send_mode::zero_copy; }, 120s))
        << summary(tx.stats());
    wait_for_the_link();
    send_and_count(tx, to("10.77.1.2:9000"), 100);
    expect_zero_copy(tx);
  }

  std::string driver;
};

TEST_F(zero_copy, carries_plain_datagrams) {
  transmitter tx(small());
  send_and_count(tx, to("10.77.1.2:9000"), 400);
  send_and_count(tx, to("[fd77:1::2]:9000"), 400);
  expect_zero_copy(tx);
}

TEST_F(zero_copy, carries_datagrams_in_gre_that_the_kernel_takes_out) {
  for (const auto& [in, own, other] : {std::tuple(a.get(), "1", "2"), {b.get(), "2", "1"}}) {
    (*in)(std::string("ip link add tunnel type gre local 10.77.1.") + own + " remote 10.77.1." +
          other + " ttl 64");
    (*in)(std::string("ip addr add 10.9.0.") + own + "/24 dev tunnel");
    (*in)(std::string("ip addr add fd09::") + own + "/64 dev tunnel nodad");
    (*in)("ip link set tunnel up");
  }
  transmitter tx(small());
  send_and_count(tx, to("10.9.0.2:9000"), 400);
  send_and_count(tx, to("[fd09::2]:9000"), 400);
  expect_zero_copy(tx);
}

/// Each core sends on a queue of its own, and a destination stays with its core.
TEST_F(zero_copy, several_cores_send_on_a_queue_each) {
  if (read_device("eth0").queues.tx < 2) GTEST_SKIP() << driver << " has one queue here";
  constexpr int hosts = 16;
  for (int i = 0; i < hosts; ++i)
    (*b)("ip addr add 10.77.1." + std::to_string(16 + i) + "/24 dev eth1");
  auto config = small();
  config.tx_cores = 2;
  transmitter tx(config);
  ASSERT_TRUE(eventually([&] { return tx.stats().cores_in_use == 2; })) << tx.stats().cores_reason;
  for (int i = 0; i < hosts; ++i)
    send_and_count(tx, to(("10.77.1." + std::to_string(16 + i) + ":9000").c_str()), 40);
  expect_zero_copy(tx);
  const auto stats = tx.stats();
  for (const core_stats& core : stats.cores)
    EXPECT_GT(core.transmitted, 40u) << "of " << hosts << " destinations";
  EXPECT_EQ(stats.transmitted.at("eth0"), stats.cores[0].transmitted + stats.cores[1].transmitted);
}

/// Until then it has no rung at all: a queue is one socket's, whatever the mode.
TEST_F(zero_copy, a_queue_of_another_zero_copy_user_is_taken_once_it_is_free) {
  std::optional<transmitter> theirs(small());
  ASSERT_TRUE(eventually([&] { return rung_of(*theirs) == send_mode::zero_copy; }, 60s));
  wait_for_the_link();
  transmitter tx(small());
  auto s = tx.make_sender({.source_port = 8002});
  ASSERT_TRUE(s.try_send(bytes_of("meanwhile"), to("10.77.1.2:9000")));
  ASSERT_TRUE(eventually([&] { return tx.stats().kernel_path == 1; }, 20s)) << summary(tx.stats());
  EXPECT_NE(rung_of(tx), send_mode::zero_copy);
  EXPECT_EQ(rung_of(*theirs), send_mode::zero_copy);
  theirs.reset();
  expect_better_rung(tx);
}

TEST_F(zero_copy, copy_mode_ends_with_the_program_that_was_in_the_way) {
  std::optional<xdp_pass_program> theirs;
  theirs.emplace(::if_nametoindex("eth0"), xdp_program_mode::native);
  wait_for_the_link();
  transmitter tx(small());
  send_and_count(tx, to("10.77.1.2:9000"), 100);
  EXPECT_EQ(rung_of(tx), send_mode::copy) << summary(tx.stats());
  theirs.reset();
  expect_better_rung(tx);
  const auto stats = tx.stats();
  EXPECT_EQ(stats.submitted, stats.transmitted_total() + stats.kernel_path + stats.refused_total() +
                                 stats.lost_in_device)
      << summary(stats);
}

/// Interrupts deferred: what the driver does it does in the TX core's kicks.
class zero_copy_busy_polled : public zero_copy {
 protected:
  void SetUp() override {
    zero_copy::SetUp();
    if (!IsSkipped()) defer("2", "200000");
  }
  void TearDown() override {
    if (a) defer("0", "0");
    zero_copy::TearDown();
  }
  void defer(const std::string& interrupts, const std::string& timeout_ns) const {
    (*a)("sh -c 'echo " + interrupts + " > /sys/class/net/eth0/napi_defer_hard_irqs'");
    (*a)("sh -c 'echo " + timeout_ns + " > /sys/class/net/eth0/gro_flush_timeout'");
  }
  [[nodiscard]] transmitter_config busy_polled() const {
    auto config = small();
    config.busy_poll = 20us;
    return config;
  }
  [[nodiscard]] static std::vector<std::string> refused_options(const transmitter& tx) {
    for (auto& shown : tx.stats().interfaces)
      if (shown.name == "eth0") return shown.refused_options;
    return {"eth0 is not served"};
  }
};

/// igb serves both directions of a queue in one poll from more than half of its eight queues on
/// (igb_set_flag_queue_pairs() in igb_main.c), which busy polling needs.
TEST_F(zero_copy_busy_polled, a_paired_queue_sends_in_kicks) {
  if (driver != "igb") GTEST_SKIP() << driver << " polls transmission apart";
  (*a)("ethtool -L eth0 combined 8");
  wait_for_the_link();
  transmitter tx(busy_polled());
  send_and_count(tx, to("10.77.1.2:9000"), 400);
  expect_zero_copy(tx);
  EXPECT_EQ(refused_options(tx), std::vector<std::string>{});
}

TEST_F(zero_copy_busy_polled, a_queue_that_is_polled_apart_keeps_its_interrupts) {
  if (driver == "igb") (*a)("ethtool -L eth0 combined 2");
  wait_for_the_link();
  transmitter tx(busy_polled());
  send_and_count(tx, to("10.77.1.2:9000"), 400);
  expect_zero_copy(tx);
  ASSERT_EQ(refused_options(tx).size(), 1u);
  EXPECT_NE(refused_options(tx)[0].find("apart"), std::string::npos) << refused_options(tx)[0];
}

/// An empty fill ring would stop all receiving on the queue.
TEST_F(zero_copy, leaves_the_kernels_own_receiving_alone) {
  transmitter tx(small());
  send_and_count(tx, to("10.77.1.2:9000"), 16);
  expect_zero_copy(tx);
  udp_sink here(*a, to("0.0.0.0:9100"));
  const netns::scope there(*b);
  const unique_fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const raw_address target(to("10.77.1.1:9100"));
  std::size_t received = 0;
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(5, ::sendto(fd.get(), "hello", 5, 0, target.name(), target.size));
    received += here.next(2s).has_value();
  }
  EXPECT_EQ(50u, received);
}

/// Carrier loss under load, again and again: whatever is not transmitted is accounted for.
TEST_F(zero_copy, survives_link_flaps) {
  transmitter tx(small());
  send_and_count(tx, to("10.77.1.2:9000"), 16);
  auto s = tx.make_sender({.source_port = 8002});
  for (int flap = 0; flap < 5; ++flap) {
    (*a)("ip link set eth0 down");
    for (int i = 0; i < 20; ++i) static_cast<void>(s.try_send(bytes_of("x"), to("10.77.1.2:9000")));
    (*a)("ip link set eth0 up");
    for (int i = 0; i < 20; ++i) static_cast<void>(s.try_send(bytes_of("x"), to("10.77.1.2:9000")));
    std::this_thread::sleep_for(50ms);
  }
  wait_for_the_link();
  send_and_count(tx, to("10.77.1.2:9000"), 100);
  const auto stats = tx.stats();
  EXPECT_EQ(stats.submitted, stats.transmitted_total() + stats.kernel_path + stats.refused_total() +
                                 stats.lost_in_device)
      << summary(stats);
}

}  // namespace
}  // namespace cowire::test

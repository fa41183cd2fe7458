// SPDX-License-Identifier: Apache-2.0
// Devices that fail while datagrams flow. Whatever happens, the totals add up and no frame leaks.
#include <cowire/xdp/device.hpp>
#include <cowire/xdp/program.hpp>
#include <cowire/xdp/tx_core.hpp>

#include <tests/support/two_hosts.hpp>

#include <linux/if_xdp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <ctime>
#include <filesystem>
#include <list>
#include <mutex>
#include <optional>
#include <vector>

#ifndef SOL_XDP
#define SOL_XDP 283
#endif

/// How far the wall clock of this program is off.
static std::atomic<std::time_t> clock_step_s{0};

/// Instead of the C library's: namespaces cannot step CLOCK_REALTIME, and everybody's is not ours.
extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
  const auto result = ::syscall(SYS_clock_gettime, clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec += clock_step_s;
  return static_cast<int>(result);
}

namespace cowire::test {
namespace {

class faults : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    sink = std::make_unique<udp_sink>(*b, destination);
    resolve("10.77.1.2");
  }
  void TearDown() override {
    sink.reset();
    two_hosts::TearDown();
  }

  /// The fast path serves the destination (again).
  static bool flows(const transmitter& tx) {
    const auto before = by(tx, "a0");
    return eventually([&] { return by(tx, "a0") > before + 5; });
  }
  static interface_stats first_interface(const transmitter& tx) { return tx.stats().interfaces[0]; }

  /// Everything is accounted for, and every frame of the stream's producer is free.
  static void expect_settled(const transmitter& tx, stream& flow) {
    flow.stop();
    EXPECT_TRUE(eventually([&] { return tx.stats().on_the_way() == 0; })) << summary(tx.stats());
    EXPECT_EQ(flow.sent, tx.stats().submitted) << summary(tx.stats());
    EXPECT_EQ(flow.free_frames(), small().frames_per_producer) << summary(tx.stats());
  }

  const endpoint destination = to("10.77.1.2:9000");
  std::unique_ptr<udp_sink> sink;
};

TEST_F(faults, a_device_that_completes_nothing_gets_a_new_socket) {
  transmitter tx(small());
  stream flow(tx, destination);
  ASSERT_TRUE(flows(tx)) << summary(tx.stats());
  for (std::uint64_t round = 1; round <= 2; ++round) {
    hold_devices_up();
    EXPECT_TRUE(eventually([&] { return first_interface(tx).rebuilt == round; }))
        << summary(tx.stats());
    EXPECT_TRUE(flows(tx)) << round << " " << summary(tx.stats());
  }
  // On a busy machine the queue may stay busy with the old socket for longer than the new one waits
  // for it, which is then opened on a lower rung, and once more when the queue is free.
  EXPECT_TRUE(eventually([&] { return first_interface(tx).mode == send_mode::copy; }))
      << summary(tx.stats());
  expect_settled(tx, flow);
  const auto stats = tx.stats();
  EXPECT_GT(stats.lost_in_device, 0u);
  EXPECT_EQ(stats.submitted - stats.lost_in_device, sink->drain()) << summary(stats);
}

TEST_F(faults, a_device_that_refuses_loses_what_it_had_and_the_kernel_sends_the_rest) {
  log_gate gate;
  auto config = small();
  config.log = gate.log();
  transmitter tx(config);
  stream flow(tx, destination);
  ASSERT_TRUE(flows(tx)) << summary(tx.stats());
  gate.close();  // Or the new socket may be there before anything is refused.
  have_devices_refuse();
  EXPECT_TRUE(eventually([&] { return tx.stats().diverted["device_busy"] > 100; }))
      << summary(tx.stats());
  gate.open();
  EXPECT_TRUE(eventually([&] { return first_interface(tx).rebuilt == 1; })) << summary(tx.stats());
  EXPECT_TRUE(flows(tx)) << summary(tx.stats());
  expect_settled(tx, flow);
  const auto stats = tx.stats();
  EXPECT_LE(stats.lost_in_device, tx_batch) << summary(stats);
  EXPECT_EQ(stats.submitted - stats.lost_in_device, sink->drain()) << summary(stats);
}

TEST_F(faults, a_link_that_flaps_leaves_nothing_uncounted) {
  transmitter tx(small());
  stream flow(tx, destination);
  for (int i = 0; i < 100; ++i) {
    (*a)("ip link set a0 down");
    (*a)("ip link set a0 up");
  }
  EXPECT_TRUE(flows(tx)) << summary(tx.stats());
  expect_settled(tx, flow);
}

TEST_F(faults, an_interface_made_anew_under_load_leaves_nothing_uncounted) {
  transmitter tx(small());
  stream flow(tx, destination);
  for (int i = 0; i < 20; ++i) {
    (*a)("ip link del a0");
    connect(*a, "a0", *b, "b0", 1);
  }
  EXPECT_TRUE(flows(tx)) << summary(tx.stats());
  expect_settled(tx, flow);
}

TEST_F(faults, a_storm_of_deleted_neighbours_loses_nothing) {
  transmitter tx(small());
  stream flow(tx, destination);
  for (int i = 0; i < 60; ++i) forget_neighbour("a0", "10.77.1.2");
  EXPECT_TRUE(flows(tx)) << summary(tx.stats());
  expect_settled(tx, flow);
  EXPECT_EQ(flow.sent, sink->drain()) << summary(tx.stats());
}

TEST_F(faults, somebody_elses_xdp_program_may_come_and_go) {
  transmitter tx(small());
  stream flow(tx, destination);
  const std::uint32_t index = read_device("a0").index;
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(flows(tx)) << i << " " << summary(tx.stats());
    const xdp_pass_program theirs(index, xdp_program_mode::native);
    EXPECT_TRUE(flows(tx)) << i << " " << summary(tx.stats());
  }
  expect_settled(tx, flow);
  EXPECT_EQ(tx.stats().lost_in_device, 0u);
  EXPECT_EQ(flow.sent, sink->drain()) << summary(tx.stats());
}

TEST_F(faults, a_queue_that_somebody_else_uses_is_named_and_left_to_the_kernel_path) {
  const transmitter theirs(small());
  ASSERT_EQ(first_interface(theirs).mode, send_mode::copy);
  transmitter tx(small());
  EXPECT_EQ(first_interface(tx).mode, send_mode::kernel);
  EXPECT_NE(first_interface(tx).reason.find("another AF_XDP socket"), std::string::npos)
      << summary(tx.stats());
  auto s = tx.make_sender();
  ASSERT_TRUE(s.try_send(bytes_of("x"), destination));
  EXPECT_TRUE(sink->next()) << summary(tx.stats());
}

/// What a transmitter says at warning level.
class warnings {
 public:
  log_callback log() {
    return [this](log_severity severity, std::string_view line) {
      const std::lock_guard lock(mutex_);
      if (severity == log_severity::warning) lines_.emplace_back(line);
    };
  }
  std::size_t beginning_with(std::string_view text) {
    const std::lock_guard lock(mutex_);
    return static_cast<std::size_t>(std::ranges::count_if(
        lines_, [&](const std::string& line) { return line.starts_with(text); }));
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> lines_;
};

TEST_F(faults, a_queue_that_becomes_free_is_taken_and_each_change_of_rung_is_a_warning) {
  warnings said;
  auto config = small();
  config.log = said.log();
  std::optional<transmitter> theirs(std::in_place, small());
  ASSERT_EQ(first_interface(*theirs).mode, send_mode::copy);
  transmitter tx(config);
  ASSERT_EQ(first_interface(tx).mode, send_mode::kernel);
  EXPECT_EQ(1u, said.beginning_with("a0: kernel (zero-copy: "));
  stream flow(tx, destination);
  theirs.reset();
  EXPECT_TRUE(flows(tx)) << summary(tx.stats());
  // By a lower rung at first, where the kernel still holds the socket of the trial by then.
  EXPECT_TRUE(eventually([&] { return first_interface(tx).mode == send_mode::copy; }))
      << summary(tx.stats());
  EXPECT_TRUE(eventually([&] { return said.beginning_with("a0: copy") == 1; }));
  (*a)("ip link set a0 down");
  EXPECT_TRUE(eventually([&] { return said.beginning_with("a0: kernel (it is down") == 1; }, 20s));
  (*a)("ip link set a0 up");
  EXPECT_TRUE(eventually([&] { return said.beginning_with("a0: copy") == 2; }));
  EXPECT_TRUE(flows(tx)) << summary(tx.stats());
  expect_settled(tx, flow);
}

TEST_F(faults, an_interface_that_is_not_served_any_more_has_the_reason) {
  transmitter tx(small());
  const auto reason_is = [&](const std::string& text) {
    return eventually([&] {
      const auto of = first_interface(tx);
      return of.name == "a0" && of.mode == send_mode::kernel && of.reason == text;
    });
  };
  (*a)("ip link add br0 type bridge");
  (*a)("ip link set a0 master br0");
  EXPECT_TRUE(reason_is("it is a port of the bridge br0, whose datagrams take the kernel path"))
      << summary(tx.stats());
  (*a)("ip link set a0 nomaster");
  EXPECT_TRUE(eventually([&] { return first_interface(tx).mode == send_mode::copy; }));
  (*a)("ip link set a0 down");
  EXPECT_TRUE(reason_is("it is down: ip link set a0 up")) << summary(tx.stats());
  (*a)("ip link set a0 name x0");
  (*a)("ip link set x0 up");
  EXPECT_TRUE(reason_is("it is called x0 now")) << summary(tx.stats());
  EXPECT_TRUE(eventually([&] { return tx.stats().interfaces.back().mode == send_mode::copy; }))
      << summary(tx.stats());
  EXPECT_EQ("x0", tx.stats().interfaces.back().name);
  (*a)("ip link del x0");
  EXPECT_TRUE(reason_is("there is no such interface any more")) << summary(tx.stats());
}

/// XDP_STATISTICS of all AF_XDP sockets of this process, summed.
xdp_statistics kernels_statistics() {
  xdp_statistics sum{};
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename());
    xdp_statistics one{};
    socklen_t size = sizeof one;
    if (::getsockopt(fd, SOL_XDP, XDP_STATISTICS, &one, &size) == 0)
      sum.tx_invalid_descs += one.tx_invalid_descs;
  }
  return sum;
}

TEST_F(faults, frames_that_the_device_drops_are_counted_as_lost_as_the_device_counts_them) {
  constexpr unsigned count = 300;
  transmitter tx(small());
  auto s = tx.make_sender();
  const auto send_some = [&](std::size_t size) {
    const std::string text(size, 'x');
    for (unsigned i = 0; i < count; ++i)
      ASSERT_TRUE(eventually([&] { return s.try_send(bytes_of(text), destination); }));
    EXPECT_TRUE(eventually([&] { return tx.stats().on_the_way() == 0; })) << summary(tx.stats());
  };
  const auto before = dropped_by("a0");
  send_some(1200);
  EXPECT_EQ(0u, tx.stats().lost_in_device);
  // What is longer than the peer's MTU veth drops (is_skb_forwardable() in net/core/dev.c).
  (*b)("ip link set b0 mtu 1000");
  if (plain_send(destination, std::string(1200, 'x')) != ENOBUFS)
    GTEST_SKIP() << "this kernel's veth tells nobody but its counter that it drops";
  send_some(1200);
  EXPECT_EQ(count, tx.stats().lost_in_device) << summary(tx.stats());
  send_some(100);
  const auto stats = tx.stats();
  EXPECT_EQ(count, stats.lost_in_device) << summary(stats);
  EXPECT_EQ(1 + count, dropped_by("a0") - before);  // One was the plain socket's.
  EXPECT_EQ(2 * count, stats.transmitted_total()) << summary(stats);
  EXPECT_EQ(2 * count, sink->drain());
  EXPECT_EQ(0u, kernels_statistics().tx_invalid_descs);
}

TEST_F(faults, without_frames_senders_are_told_and_producers_refused) {
  auto config = small();
  config.frames_per_producer = 64;
  config.max_producers = 1;
  transmitter tx(config);
  auto s = tx.make_sender();
  std::vector<payload> all;
  while (payload one = s.try_acquire()) all.push_back(std::move(one));
  EXPECT_EQ(all.size(), 64u);
  std::error_code ec;
  s.try_send(bytes_of("x"), destination, ec);
  EXPECT_EQ(ec, make_error_code(error::would_block));
  try {
    static_cast<void>(tx.make_producer());
    ADD_FAILURE() << "a producer beyond max_producers";
  } catch (const std::system_error& refused) {
    EXPECT_EQ(refused.code(), make_error_code(error::no_producer));
  }
  all.clear();
  s.try_send(bytes_of("x"), destination, ec);
  EXPECT_FALSE(ec) << ec.message();
  EXPECT_TRUE(sink->next());
}

TEST_F(faults, a_flood_without_free_frames_loses_none) {
  auto config = small();
  config.frames_per_producer = 64;
  config.max_producers = 3;
  transmitter tx(config);
  std::atomic<std::uint64_t> sent{0}, refused{0}, home{0};
  std::list<std::thread> threads;
  for (std::uint32_t i = 0; i < config.max_producers; ++i)
    threads.emplace_back([&] {
      auto s = tx.make_sender();
      const auto end = std::chrono::steady_clock::now() + 1s;
      while (std::chrono::steady_clock::now() < end)
        ++(s.try_send(bytes_of("flood"), destination) ? sent : refused);
      EXPECT_TRUE(eventually([&] { return tx.stats().on_the_way() == 0; }));
      std::vector<payload> all;
      while (payload one = s.try_acquire()) all.push_back(std::move(one));
      home += all.size();
    });
  for (auto& one : threads) one.join();
  EXPECT_EQ(sent, tx.stats().submitted) << summary(tx.stats());
  EXPECT_EQ(tx.stats().on_the_way(), 0u) << summary(tx.stats());
  EXPECT_GT(refused, 0u) << "there were always free frames";
  EXPECT_EQ(home, 64u * config.max_producers);
}

TEST_F(faults, an_mtu_that_shrinks_and_grows_under_load_loses_nothing) {
  transmitter tx(small());
  stream flow(tx, destination, std::string(1400, 'x'));
  const auto too_long = [&] { return tx.stats().diverted["exceeds_mtu"]; };
  for (int i = 0; i < 5; ++i) {
    const auto before = too_long();
    (*a)("ip link set a0 mtu 1300");
    EXPECT_TRUE(eventually([&] { return too_long() > before + 5; })) << summary(tx.stats());
    (*a)("ip link set a0 mtu 1500");
    EXPECT_TRUE(flows(tx)) << i << " " << summary(tx.stats());
  }
  expect_settled(tx, flow);
  EXPECT_EQ(flow.sent, sink->drain()) << summary(tx.stats());
}

TEST_F(faults, a_process_killed_under_load_leaves_the_interface_as_it_was) {
  for (int i = 0; i < 3; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      transmitter tx(small());
      const stream flow(tx, destination);
      for (;;) ::pause();
    }
    for (int n = 0; n < 500; ++n) ASSERT_TRUE(sink->next(20s)) << n;
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    EXPECT_EQ(read_device("a0").attached, xdp_attachment::none);
    sink->drain();
    transmitter next(small());
    EXPECT_EQ(first_interface(next).mode, send_mode::copy) << summary(next.stats());
    stream flow(next, destination);
    EXPECT_TRUE(flows(next)) << summary(next.stats());
    expect_settled(next, flow);
    EXPECT_EQ(flow.sent, sink->drain()) << summary(next.stats());
  }
}

TEST_F(faults, a_wall_clock_that_jumps_changes_nothing) {
  const auto true_time = std::chrono::system_clock::now();
  transmitter tx(small());
  stream flow(tx, destination);
  for (const std::time_t hours : {100'000, -100'000, 1, 0}) {
    clock_step_s = hours * 3600;
    const auto shown = std::chrono::system_clock::now() - true_time;
    EXPECT_LT(std::chrono::abs(shown - std::chrono::hours(hours)), 10min) << "not our clock";
    EXPECT_TRUE(flows(tx)) << summary(tx.stats());
    // Timers and the control thread too: a change of routes is followed as ever.
    forget_neighbour("a0", "10.77.1.2");
    EXPECT_TRUE(flows(tx)) << summary(tx.stats());
  }
  expect_settled(tx, flow);
  EXPECT_EQ(flow.sent, sink->drain()) << summary(tx.stats());
}

}  // namespace
}  // namespace cowire::test

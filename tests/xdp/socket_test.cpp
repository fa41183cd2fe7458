// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/known_trouble.hpp>
#include <cowire/xdp/socket.hpp>

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <cowire/xdp/program.hpp>
#include <cowire/xdp/tx_core.hpp>

#include <map>
#include <set>
#include <thread>

#include "testbed/hand_made_table.hpp"
#include "testbed/test_producer.hpp"
#include "testbed/veth_lab.hpp"

namespace cowire {
namespace {

using namespace std::chrono_literals;

class socket_on_veth : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = test::veth_lab::unavailable(); !why.empty()) GTEST_SKIP() << why;
    lab_.emplace();
  }

  opened_egress open(const std::string& name, std::optional<send_mode> mode = std::nullopt) {
    const device_facts device = lab_->device_a(name);
    return lab_->in_a([&] { return open_egress(memory_, device, {.mode = mode}); });
  }

  /// A hop from A to B over pair `number`.
  test::hop_spec hop_over(int number) {
    const std::string n = std::to_string(number);
    test::hop_spec spec;
    spec.source_mac = lab_->device_a("a" + n).mac;
    spec.destination_mac = lab_->device_b("b" + n).mac;
    spec.source = ip_address::parse("10." + std::to_string(number + 1) + ".0.1").value();
    spec.egress = static_cast<egress_slot>(number + 1);
    spec.interface_index = lab_->device_a("a" + n).index;
    return spec;
  }

  /// Routes 10.1/16 over a0 and 10.2/16 over a1.
  void publish_routes() {
    table_.route("10.77.1.0/24", table_.add_hop(test::make_hop(hop_over(0))));
    table_.route("10.77.2.0/24", table_.add_hop(test::make_hop(hop_over(1))));
    publisher_.store(&table_.finish());
  }

  /// Which of the sequence numbers 0 to `count` - 1 arrive within the receiver's time-out.
  static std::set<std::uint32_t> receive(const unique_fd& receiver, std::size_t count) {
    std::set<std::uint32_t> seen;
    std::uint32_t number[8] = {};
    while (seen.size() < count && ::recv(receiver.get(), number, sizeof number, 0) == 32)
      EXPECT_TRUE(seen.insert(number[0]).second) << "twice: " << number[0];
    return seen;
  }

  static std::span<const std::byte> numbered(std::uint32_t (&room)[8], std::uint32_t number) {
    room[0] = number;
    return std::as_bytes(std::span(room));
  }

  /// Everything that was sent is taken and has left the core again.
  static void wait_until_quiet(tx_core& core, std::uint64_t sent) {
    const auto deadline = std::chrono::steady_clock::now() + 5s;
    const auto quiet = [&] {
      const tx_snapshot s = core.snapshot();
      return s.completed_total() + s.diverted_total() + s.lost_total() == sent;
    };
    while (!quiet() && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(1ms);
  }

  std::optional<test::veth_lab> lab_;
  umem memory_{{.frame_count = 4096, .huge_pages = false}};
  publisher publisher_;
  epoch_domain epochs_;
  doorbell control_;
  test::hand_made_table table_;
};

request_destination to(const char* address, std::uint16_t port) {
  return request_destination::from({ip_address::parse(address).value(), port});
}

TEST_F(socket_on_veth, facts_name_the_driver_and_its_xdp) {
  const device_facts facts = lab_->device_a("a0");
  EXPECT_EQ(facts.driver, "veth");
  EXPECT_TRUE(facts.ethernet);
  EXPECT_TRUE(facts.up);
  EXPECT_TRUE(facts.carrier);
  EXPECT_EQ(facts.mtu, 1500u);
  EXPECT_GE(facts.queues.tx, 1u);
  EXPECT_EQ(facts.attached, xdp_attachment::none);
  if (facts.features) {
    EXPECT_FALSE(facts.features->zero_copy);
  }
  std::error_code ec;
  EXPECT_TRUE(read_device("nosuch0", ec).name.empty());
  EXPECT_EQ(ec, std::errc::no_such_device);
  EXPECT_THROW(static_cast<void>(read_device("nosuch0")), std::system_error);
}

TEST_F(socket_on_veth, each_rung_carries_datagrams) {
  publish_routes();
  const unique_fd receiver = lab_->udp_receiver(9001);
  for (const send_mode mode : {send_mode::copy, send_mode::generic}) {
    opened_egress egress = open("a0", mode);
    ASSERT_EQ(egress.mode, mode) << egress.explain();
    test::test_producer producer(memory_, 0, 256);
    tx_core core(memory_.memory(), publisher_, epochs_, control_);
    core.attach(producer.channel);
    core.add_port(1, egress.socket->interface_index(), egress.socket->queue());
    core.start();
    std::uint32_t room[8] = {};
    for (std::uint32_t i = 0; i < 5000; ++i)
      while (!producer.send(numbered(room, i), to("10.77.1.2", 9001))) std::this_thread::yield();
    EXPECT_EQ(receive(receiver, 5000).size(), 5000u);
    wait_until_quiet(core, producer.sent);
    const tx_snapshot s = core.snapshot();
    EXPECT_EQ(s.taken, 5000u);
    EXPECT_EQ(s.slots[1].completed, 5000u);
    EXPECT_EQ(s.slots[1].kick_errors, 0u);
    core.remove_port(1, 100ms);
    core.begin_detach(producer.channel);
    while (!core.detached(producer.channel)) std::this_thread::yield();
    producer.reclaim();
    EXPECT_EQ(producer.pool.free_count(), producer.slice.count);
    memory_.release_slice(producer.slice);
  }
}

TEST_F(socket_on_veth, the_ladder_names_what_it_rejects) {
  const opened_egress automatic = open("a0");
  EXPECT_EQ(automatic.mode, send_mode::copy);
  ASSERT_EQ(automatic.rejected.size(), 1u);
  EXPECT_EQ(automatic.rejected[0].mode, send_mode::zero_copy);
  EXPECT_NE(automatic.rejected[0].reason.find("veth"), std::string::npos) << automatic.explain();
  const opened_egress forced = open("a1", send_mode::zero_copy);
  EXPECT_EQ(forced.mode, send_mode::kernel);
  EXPECT_EQ(forced.rejected.size(), 1u) << forced.explain();
  EXPECT_EQ(lab_->device_a("a1").attached, xdp_attachment::none);
  const opened_egress loopback = open("lo");
  EXPECT_EQ(loopback.mode, send_mode::kernel);
  EXPECT_EQ(loopback.rejected.size(), 3u);
  const opened_egress taken = open("a0");
  EXPECT_EQ(taken.mode, send_mode::kernel);
  EXPECT_NE(taken.explain().find("EBUSY"), std::string::npos) << taken.explain();
}

TEST_F(socket_on_veth, the_ladder_passes_over_a_rung_with_known_trouble_unless_it_is_named) {
  device_facts device = lab_->device_a("a0");
  ASSERT_EQ(trouble_to_avoid(device, send_mode::zero_copy), "");
  device.driver = "ena";
  device.features = xdp_features{.native = true, .zero_copy = true};
  EXPECT_EQ(trouble_to_avoid(device, send_mode::copy), "");
  const auto open_as = [&](std::optional<send_mode> mode) {
    return lab_->in_a([&] { return open_egress(memory_, device, {.mode = mode}); });
  };
  const opened_egress automatic = open_as(std::nullopt);
  EXPECT_EQ(automatic.mode, send_mode::copy);
  ASSERT_EQ(automatic.rejected.size(), 1u);
  EXPECT_EQ(automatic.rejected[0].reason, trouble_to_avoid(device, send_mode::zero_copy));
  EXPECT_NE(automatic.explain().find("https://"), std::string::npos) << automatic.explain();
  const opened_egress named = open_as(send_mode::zero_copy);
  ASSERT_EQ(named.rejected.size(), 1u);
  EXPECT_EQ(named.rejected[0].reason.find("known trouble"), std::string::npos)
      << "veth itself refuses: " << named.explain();
}

TEST_F(socket_on_veth, a_queue_is_free_again_soon_after_its_socket_is_closed) {
  for (int i = 0; i < 5; ++i) EXPECT_EQ(open("a0").mode, send_mode::copy);
}

TEST_F(socket_on_veth, rings_of_any_size_carry_datagrams) {
  publish_routes();
  const unique_fd receiver = lab_->udp_receiver(9001);
  const device_facts device = lab_->device_a("a0");
  const std::map<std::uint32_t, std::uint32_t> sizes = {
      {0, 64}, {64, 64}, {511, 512}, {1000, 1024}, {4096, 4096}, {~0u, 1u << 16}};
  for (const auto& [asked, given] : sizes) {
    const opened_egress egress =
        lab_->in_a([&] { return open_egress(memory_, device, {.tx_ring_size = asked}); });
    ASSERT_TRUE(egress.socket) << asked << " " << egress.explain();
    EXPECT_EQ(egress.socket->queue().size, given);
    test::test_producer producer(memory_, 0, 256);
    tx_core core(memory_.memory(), publisher_, epochs_, control_);
    core.attach(producer.channel);
    core.add_port(1, egress.socket->interface_index(), egress.socket->queue());
    core.start();
    std::uint32_t room[8] = {};
    for (std::uint32_t i = 0; i < 1000; ++i)
      while (!producer.send(numbered(room, i), to("10.77.1.2", 9001))) std::this_thread::yield();
    EXPECT_EQ(receive(receiver, 1000).size(), 1000u) << asked;
    wait_until_quiet(core, producer.sent);
    core.remove_port(1, 1s);
    EXPECT_EQ(core.snapshot().slots[1].completed, 1000u) << asked;
    producer.reclaim();
    EXPECT_EQ(producer.pool.free_count(), producer.slice.count) << asked;
    memory_.release_slice(producer.slice);
  }
}

TEST_F(socket_on_veth, two_interfaces_send_from_one_umem) {
  publish_routes();
  const unique_fd receiver = lab_->udp_receiver(9001);
  const opened_egress first = open("a0"), second = open("a1");
  ASSERT_TRUE(first.socket && second.socket) << first.explain() << second.explain();
  test::test_producer producer(memory_, 0, 256);
  tx_core core(memory_.memory(), publisher_, epochs_, control_);
  core.attach(producer.channel);
  core.add_port(1, first.socket->interface_index(), first.socket->queue());
  core.add_port(2, second.socket->interface_index(), second.socket->queue());
  core.start();
  std::uint32_t room[8] = {};
  for (std::uint32_t i = 0; i < 4000; ++i) {
    const auto destination = to(i % 2 == 0 ? "10.77.1.2" : "10.77.2.2", 9001);
    while (!producer.send(numbered(room, i), destination)) std::this_thread::yield();
  }
  EXPECT_EQ(receive(receiver, 4000).size(), 4000u);
  wait_until_quiet(core, producer.sent);
  const tx_snapshot s = core.snapshot();
  EXPECT_EQ(s.slots[1].completed, 2000u);
  EXPECT_EQ(s.slots[2].completed, 2000u);
}

TEST_F(socket_on_veth, an_interface_deleted_under_load_costs_no_frame) {
  publish_routes();
  opened_egress first = open("a0");
  const opened_egress second = open("a1");
  ASSERT_TRUE(first.socket && second.socket);
  test::test_producer producer(memory_, 0, 1024);
  tx_core core(memory_.memory(), publisher_, epochs_, control_);
  core.attach(producer.channel);
  core.add_port(1, first.socket->interface_index(), first.socket->queue());
  core.add_port(2, second.socket->interface_index(), second.socket->queue());
  core.start();
  std::uint32_t room[8] = {};
  const auto take_diverted = [&] {
    diverted_request d;
    while (core.diverted().try_pop(d))
      ASSERT_TRUE(producer.returned_by_kernel.try_push(d.request.frame));
  };
  for (std::uint32_t i = 0; i < 30000; ++i) {
    if (i == 10000) lab_->run_in_a("ip link del a0");
    if (i == 20000) {
      core.remove_port(1, 50ms);
      first.socket.reset();
    }
    // A device that completes nothing any more keeps the frames it has: there may be none left
    // until it is removed.
    for (int tries = 0; tries < 10; ++tries) {
      if (producer.send(numbered(room, i), to(i % 2 == 0 ? "10.77.1.2" : "10.77.2.2", 9001))) break;
      take_diverted();
      std::this_thread::yield();
    }
  }
  wait_until_quiet(core, producer.sent);
  take_diverted();
  producer.reclaim();
  EXPECT_EQ(producer.pool.free_count(), producer.slice.count);
  const tx_snapshot s = core.snapshot();
  EXPECT_EQ(s.taken, producer.sent);
  EXPECT_EQ(s.held, 0u);
  EXPECT_EQ(s.taken, s.completed_total() + s.diverted_total() + s.lost_total());
  EXPECT_EQ(s.slots[2].lost_in_device, 0u);
  EXPECT_GT(s.diverted[static_cast<std::size_t>(divert_reason::no_egress_socket)], 0u);
}

TEST_F(socket_on_veth, the_program_dies_with_a_killed_process) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const std::uint32_t index = lab_->device_a("a0").index;
  const pid_t child = lab_->in_a([&] {
    const pid_t pid = ::fork();
    if (pid == 0) {
      const xdp_pass_program program(index, xdp_program_mode::native);
      static_cast<void>(!::write(ready[1], "x", 1));
      for (;;) ::pause();
    }
    return pid;
  });
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_EQ(lab_->device_a("a0").attached, xdp_attachment::native);
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  for (int i = 0; i < 200 && lab_->device_a("a0").attached != xdp_attachment::none; ++i)
    std::this_thread::sleep_for(10ms);
  EXPECT_EQ(lab_->device_a("a0").attached, xdp_attachment::none);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(socket_on_veth, somebody_elses_program_is_named_and_left_alone) {
  lab_->in_a([&] {
    const std::uint32_t index = read_device("a0").index;
    const xdp_pass_program theirs(index, xdp_program_mode::native);
    const std::uint32_t id = read_device("a0").program_id;
    try {
      const xdp_pass_program ours(index, xdp_program_mode::native);
      ADD_FAILURE() << "attached over another program";
    } catch (const std::system_error& e) {
      EXPECT_NE(std::string(e.what()).find(std::to_string(id)), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("a0"), std::string::npos) << e.what();
    }
    const opened_egress forced =
        open_egress(memory_, read_device("a0"), {.mode = send_mode::zero_copy});
    EXPECT_NE(forced.explain().find(std::to_string(id)), std::string::npos) << forced.explain();
    EXPECT_EQ(read_device("a0").program_id, id);
    return 0;
  });
}

}  // namespace
}  // namespace cowire

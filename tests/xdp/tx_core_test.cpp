// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/tx_core.hpp>

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>

#include "testbed/hand_made_table.hpp"
#include "testbed/test_producer.hpp"
#include "tests/xdp/fake_device.hpp"

namespace cowire {
namespace {

using namespace std::chrono_literals;
using test::fake_device;
using test::test_producer;

/// Routes: 10.1/16 by slot 1, 10.2/16 by slot 2, 10.3/16 by both, 10.4/16 by slot 9 (no socket),
/// fd00:1::/32 by slot 1, 10.5/16, 10.6/16 and fd00:5::/32 by tracked hops of slots 1, 9 and 1,
/// 10.9/16 unresolved; flow class 1 sends all of 10/8 by slot 2.
/// Rings may stay full for as long as the machine takes.
class tx_core_on_memory : public ::testing::Test {
 protected:
  explicit tx_core_on_memory(std::chrono::milliseconds stall_deadline = 1h)
      : stall_deadline_(stall_deadline) {}
  void SetUp() override {
    test::hop_spec spec;
    spec.source = ip_address::v4(0x0a000001);
    spec.egress = 1;
    const std::uint32_t by_1 = table_.add_hop(test::make_hop(spec));
    spec.egress = 2;
    const std::uint32_t by_2 = table_.add_hop(test::make_hop(spec));
    spec.egress = 9;
    const std::uint32_t by_9 = table_.add_hop(test::make_hop(spec));
    spec.egress = 1 + tracked_egress;
    const std::uint32_t by_1_tracked = table_.add_hop(test::make_hop(spec));
    spec.egress = 9 + tracked_egress;
    const std::uint32_t by_9_tracked = table_.add_hop(test::make_hop(spec));
    spec.egress = 1;
    spec.family = ip_family::v6;
    spec.source = ip_address::parse("fd00::1").value();
    const std::uint32_t by_1_v6 = table_.add_hop(test::make_hop(spec));
    spec.egress = 1 + tracked_egress;
    const std::uint32_t by_1_tracked_v6 = table_.add_hop(test::make_hop(spec));
    const flow_class_id other = table_.add_class();
    table_.route("10.5.0.0/16", by_1_tracked);
    table_.route("10.6.0.0/16", by_9_tracked);
    table_.route("fd00:5::/32", by_1_tracked_v6);
    table_.route("10.1.0.0/16", by_1);
    table_.route("10.2.0.0/16", by_2);
    table_.route("10.3.0.0/16", table_.add_group({by_1, by_2}));
    table_.route("10.4.0.0/16", by_9);
    table_.route("fd00:1::/32", by_1_v6);
    table_.route("10.9.0.0/16", static_cast<std::uint32_t>(divert_reason::neighbour_unresolved));
    table_.route("10.0.0.0/8", by_2, other);
    publisher_.store(&table_.finish());
  }

  static request_destination to(const std::string& address, std::uint16_t port = 9000) {
    return request_destination::from({ip_address::parse(address).value(), port});
  }
  bool send(test_producer& producer, const std::string& address, flow_class_id cls = 0,
            std::size_t size = 32) {
    return producer.send(std::span(payload_).first(size), to(address), cls);
  }
  void run(int rounds = 1) {
    for (int i = 0; i < rounds; ++i) static_cast<void>(core_.run_once());
  }
  std::map<divert_reason, int> take_diverted(test_producer& producer) {
    std::map<divert_reason, int> counts;
    diverted_request d;
    while (core_.diverted().try_pop(d)) {
      ++counts[d.reason];
      EXPECT_TRUE(producer.returned_by_kernel.try_push(d.request.frame));
    }
    return counts;
  }
  void expect_all_home(test_producer& producer) {
    producer.reclaim();
    EXPECT_EQ(producer.pool.free_count(), producer.slice.count);
  }
  static bool rung(const doorbell& bell) {
    pollfd p{.fd = bell.fd(), .events = POLLIN, .revents = 0};
    return ::poll(&p, 1, 0) == 1;
  }

  std::vector<std::byte> payload_{1920};
  umem memory_{{.frame_count = 2048, .huge_pages = false}};
  publisher publisher_;
  epoch_domain epochs_;
  doorbell control_;
  test::hand_made_table table_;
  fake_device one_{64}, two_{64};
  tracked_flows flows_{16};
  const std::chrono::milliseconds stall_deadline_;
  tx_core core_{memory_.memory(),
                publisher_,
                epochs_,
                control_,
                {.stall_deadline = stall_deadline_, .tracked = &flows_}};
};

class impatient_tx_core : public tx_core_on_memory {
 protected:
  impatient_tx_core() : tx_core_on_memory(20ms) {}
};

TEST_F(tx_core_on_memory, sends_by_a_tracked_hop_what_is_known_and_diverts_the_rest_with_source) {
  test_producer producer(memory_, 0, 256);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  core_.add_port(2, 12, two_.queue());
  for (const char* address : {"10.5.0.7", "fd00:5::7"}) {
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(send(producer, address));
    run();
    EXPECT_EQ(one_.transmit(), 0u);
    diverted_request told;
    ASSERT_TRUE(core_.diverted().try_pop(told));
    EXPECT_EQ(told.reason, divert_reason::conntrack_new);
    ASSERT_TRUE(told.tracked);
    EXPECT_TRUE(producer.returned_by_kernel.try_push(told.request.frame));
    EXPECT_EQ(take_diverted(producer),
              (std::map<divert_reason, int>{{divert_reason::conntrack_new, 2}}));
    const tracked_key key = tracked_key::of(told.request, told.way);
    EXPECT_EQ(key.source(), told.request.family == ip_family::v4
                                ? ip_address::v4(0x0a000001)
                                : ip_address::parse("fd00::1").value());
    EXPECT_EQ(key.source_port().host(), 8001);
    EXPECT_EQ(key.destination_port().host(), 9000);
    const auto at = flows_.insert(key);
    flows_[at].good_until = std::numeric_limits<std::int64_t>::max();
    // In one batch with plain ones, behind and in front of them, and with unknown ones.
    for (int i = 0; i < 4; ++i) {
      ASSERT_TRUE(send(producer, address));
      ASSERT_TRUE(send(producer, "10.1.0.7"));
      ASSERT_TRUE(send(producer, "10.2.0.7"));
      ASSERT_TRUE(send(producer, "10.5.0.8"));
      ASSERT_TRUE(send(producer, address));
    }
    run();
    EXPECT_EQ(one_.transmit(), 12u);
    EXPECT_EQ(two_.transmit(), 4u);
    EXPECT_NE(flows_[at].last_sent.load(), 0);
    EXPECT_EQ(take_diverted(producer),
              (std::map<divert_reason, int>{{divert_reason::conntrack_new, 4}}));
    one_.complete();
    two_.complete();
    run();
    // Only tracked ones, as one batch.
    for (int i = 0; i < 64; ++i) ASSERT_TRUE(send(producer, address));
    run();
    EXPECT_EQ(one_.transmit(), 64u);
    one_.complete();
    run();
    flows_[at].reason = divert_reason::nat;
    flows_[at].good_until = 0;
    ASSERT_TRUE(send(producer, address));
    run();
    EXPECT_EQ(take_diverted(producer), (std::map<divert_reason, int>{{divert_reason::nat, 1}}));
  }
  // Without a socket, and too long: as plain ones, and the flow is not asked for.
  ASSERT_TRUE(send(producer, "10.6.0.7"));
  ASSERT_TRUE(send(producer, "10.5.0.7", 0, 1700));
  run();
  std::map<divert_reason, int> others;
  for (diverted_request d; core_.diverted().try_pop(d);) {
    ++others[d.reason];
    EXPECT_FALSE(d.tracked);
    EXPECT_TRUE(producer.returned_by_kernel.try_push(d.request.frame));
  }
  EXPECT_EQ(others, (std::map<divert_reason, int>{{divert_reason::no_egress_socket, 1},
                                                  {divert_reason::exceeds_mtu, 1}}));
  expect_all_home(producer);
}

TEST_F(tx_core_on_memory, sends_each_request_by_the_slot_of_its_route) {
  test_producer producer(memory_, 0, 256);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  core_.add_port(2, 12, two_.queue());
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 10; ++i) {
      ASSERT_TRUE(send(producer, "10.1.0.7"));
      ASSERT_TRUE(send(producer, "10.2.0.7"));
      ASSERT_TRUE(send(producer, "fd00:1::7"));
      ASSERT_TRUE(send(producer, "10.1.0.7", 1));
    }
    run();
    EXPECT_EQ(one_.transmit(), 20u);
    EXPECT_EQ(two_.transmit(), 20u);
    one_.complete();
    two_.complete();
    run();
    expect_all_home(producer);
  }
  const tx_snapshot s = core_.snapshot();
  EXPECT_EQ(s.taken, 80u);
  EXPECT_EQ(s.slots[1].completed, 40u);
  EXPECT_EQ(s.slots[2].completed, 40u);
  EXPECT_EQ(s.slots[1].interface_index, 11u);
  EXPECT_EQ(s.held, 0u);
}

TEST_F(tx_core_on_memory, writes_the_frame_that_a_naive_builder_makes) {
  test_producer producer(memory_, 0, 64);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  for (auto& b : payload_) b = std::byte{0x5a};
  ASSERT_TRUE(send(producer, "10.1.2.3", 0, 100));
  run();
  test::hop_spec spec;
  spec.source = ip_address::v4(0x0a000001);
  const test::bytes expected = test::naive_frame(
      spec, {ip_address::parse("10.1.2.3").value(), 9000}, 8001, test::bytes(100, 0x5a));
  one_.transmit(1, [&](const tx_descriptor& d) {
    const auto* const p = reinterpret_cast<const std::uint8_t*>(memory_.memory().base + d.address);
    EXPECT_EQ(test::bytes(p, p + d.length), expected);
  });
}

/// Between others in one batch, to places that are served alike or not, tracked, and diverted.
TEST_F(tx_core_on_memory, an_ecn_codepoint_changes_one_datagram_and_no_other) {
  test_producer producer(memory_, 0, 64);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  core_.add_port(2, 12, two_.queue());
  const auto expect_next = [&](fake_device& device, const std::string& address, unsigned tos) {
    const bool v4 = address.find(':') == std::string::npos;
    test::hop_spec spec;
    spec.family = v4 ? ip_family::v4 : ip_family::v6;
    spec.source = v4 ? ip_address::v4(0x0a000001) : ip_address::parse("fd00::1").value();
    spec.tos = static_cast<std::uint8_t>(tos);
    const test::bytes expected = test::naive_frame(spec, {ip_address::parse(address).value(), 9000},
                                                   8001, test::bytes(100, 0x5a));
    unsigned sent = 0;
    device.transmit(1, [&](const tx_descriptor& d) {
      ++sent;
      const auto* const p =
          reinterpret_cast<const std::uint8_t*>(memory_.memory().base + d.address);
      EXPECT_EQ(test::bytes(p, p + d.length), expected) << address << " tos " << tos;
      EXPECT_EQ(d.options, 0u);
    });
    EXPECT_EQ(sent, 1u);
  };
  for (auto& b : payload_) b = std::byte{0x5a};
  const auto payload = std::span(payload_).first(100);
  ASSERT_TRUE(send(producer, "10.1.0.1", 0, 100));
  ASSERT_TRUE(producer.send_with_ecn(payload, to("10.1.0.2"), 3));
  ASSERT_TRUE(send(producer, "fd00:1::1", 0, 100));
  ASSERT_TRUE(producer.send_with_ecn(payload, to("fd00:1::2"), 0));
  run();
  expect_next(one_, "10.1.0.1", 0);
  expect_next(one_, "10.1.0.2", 3);
  expect_next(one_, "fd00:1::1", 0);
  expect_next(one_, "fd00:1::2", 0);
  ASSERT_TRUE(producer.send_with_ecn(payload, to("10.2.0.1"), 1));
  ASSERT_TRUE(producer.send_with_ecn(payload, to("10.1.0.2"), 2));
  ASSERT_TRUE(send(producer, "10.1.0.3", 0, 100));
  ASSERT_TRUE(producer.send_with_ecn(payload, to("10.9.0.1"), 2));  // Diverted.
  ASSERT_TRUE(
      producer.send_with_ecn(payload, to("10.5.0.1"), 2));  // Of a flow that is not tracked yet.
  run();
  expect_next(two_, "10.2.0.1", 1);
  expect_next(one_, "10.1.0.2", 2);
  expect_next(one_, "10.1.0.3", 0);
  const std::map<divert_reason, int> expected = {{divert_reason::neighbour_unresolved, 1},
                                                 {divert_reason::conntrack_new, 1}};
  EXPECT_EQ(take_diverted(producer), expected);
  one_.complete();
  two_.complete();
  run(2);
  expect_all_home(producer);
}

TEST_F(tx_core_on_memory, too_long_is_told_by_the_payload_whatever_the_ecn_codepoint) {
  test_producer producer(memory_, 0, 64);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  const auto all = std::span<const std::byte>(payload_);
  ASSERT_TRUE(producer.send_with_ecn(all.first(1472), to("10.1.0.1"), 2));
  ASSERT_TRUE(producer.send_with_ecn(all.first(1473), to("10.1.0.1"), 2));
  run();
  one_.transmit(1, [&](const tx_descriptor& d) { EXPECT_EQ(d.length, 1472u + 42); });
  diverted_request d;
  ASSERT_TRUE(core_.diverted().try_pop(d));
  EXPECT_EQ(d.reason, divert_reason::exceeds_mtu);
  EXPECT_EQ(payload_size(d.request), 1473u);
  EXPECT_EQ(ecn_of(d.request), 2u);
  EXPECT_TRUE(producer.returned_by_kernel.try_push(d.request.frame));
  one_.complete();
  run(2);
  expect_all_home(producer);
}

/// The outer header would depend on the codepoint in ways that no hop says.
TEST_F(tx_core_on_memory, a_hop_that_leaves_ecn_to_the_kernel_sends_what_has_none_of_its_own) {
  test::hop_spec spec;
  spec.source = ip_address::v4(0x0a000001);
  spec.egress = 1;
  hop careful = test::make_hop(spec);
  careful.ecn_at[0] = hop::ecn_by_kernel;
  test::hand_made_table table;
  table.route("10.8.0.0/16", table.add_hop(careful));
  publisher_.store(&table.finish());
  test_producer producer(memory_, 0, 64);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  ASSERT_TRUE(send(producer, "10.8.0.1"));
  ASSERT_TRUE(producer.send_with_ecn(std::span(payload_).first(32), to("10.8.0.1"), 2));
  ASSERT_TRUE(send(producer, "10.8.0.1"));
  run();
  EXPECT_EQ(one_.transmit(64, [](const tx_descriptor& d) { EXPECT_EQ(d.length, 32u + 42); }), 2u);
  const std::map<divert_reason, int> expected = {{divert_reason::tunnel, 1}};
  EXPECT_EQ(take_diverted(producer), expected);
  one_.complete();
  run(2);
  expect_all_home(producer);
}

/// Numbers that stand for classes which no table has.
TEST_F(tx_core_on_memory, requests_without_a_table_are_diverted_for_their_reasons) {
  test_producer producer(memory_, 0, 64);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  for (const flow_class_id cls : {new_class, class_limit_class})
    ASSERT_TRUE(send(producer, "10.1.0.1", cls));
  ASSERT_TRUE(send(producer, "10.1.0.1"));
  run();
  const std::map<divert_reason, int> expected = {{divert_reason::new_flow_class, 1},
                                                 {divert_reason::flow_class_limit, 1}};
  EXPECT_EQ(take_diverted(producer), expected);
  EXPECT_EQ(one_.transmit(), 1u);
  one_.complete();
  run(2);
  expect_all_home(producer);
}

TEST_F(tx_core_on_memory, a_hop_that_diverts_some_ports_sends_the_others_as_any_hop_does) {
  test::hop_spec spec;
  spec.source = ip_address::v4(0x0a000001);
  hop guarded = test::make_hop(spec);
  guarded.egress_of_ports = std::exchange(guarded.egress, divert_slot);
  guarded.reason = divert_reason::netfilter;
  guarded.ports[0] = {53, 60};
  guarded.ports[2] = {9000, 9000};
  for (const bool inside : {false, true}) {
    guarded.ports_inside = inside;
    test::hand_made_table table;
    table.route("10.5.0.0/16", table.add_hop(guarded));
    publisher_.store(&table.finish());
    fake_device device(64);
    tx_core core(memory_.memory(), publisher_, epochs_, control_);
    test_producer producer(memory_, 0, 64);
    core.attach(producer.channel);
    core.add_port(1, 11, device.queue());
    const auto send_to = [&](std::uint16_t port, std::size_t size) {
      ASSERT_TRUE(producer.send(std::span(payload_).first(size), to("10.5.0.7", port), 0));
    };
    for (const std::uint16_t port : std::initializer_list<std::uint16_t>{53, 60, 9000})
      send_to(port, 32);
    for (const std::uint16_t port : std::initializer_list<std::uint16_t>{52, 61, 8999, 9001})
      send_to(port, 32);
    send_to(inside ? 53 : 52, 1473);
    static_cast<void>(core.run_once());
    const std::uint32_t passed = inside ? 3 : 4;
    std::vector<std::uint16_t> ports;
    EXPECT_EQ(device.transmit(
                  passed + 1,
                  [&](const tx_descriptor& d) {
                    const auto* const p =
                        reinterpret_cast<const std::uint8_t*>(memory_.memory().base + d.address);
                    ports.push_back(static_cast<std::uint16_t>(p[36] << 8 | p[37]));
                    EXPECT_EQ(test::bytes(p, p + d.length),
                              test::naive_frame(
                                  spec, {ip_address::parse("10.5.0.7").value(), ports.back()}, 8001,
                                  test::bytes(32, 0)));
                  }),
              passed);
    EXPECT_EQ(ports, inside ? (std::vector<std::uint16_t>{53, 60, 9000})
                            : (std::vector<std::uint16_t>{52, 61, 8999, 9001}));
    std::map<divert_reason, std::size_t> diverted;
    diverted_request d;
    while (core.diverted().try_pop(d)) {
      ++diverted[d.reason];
      EXPECT_TRUE(producer.returned_by_kernel.try_push(d.request.frame));
    }
    EXPECT_EQ(diverted[divert_reason::exceeds_mtu], 1u);
    EXPECT_EQ(diverted[divert_reason::netfilter], 7 - passed);
    device.complete();
    static_cast<void>(core.run_once());
    expect_all_home(producer);
  }
}

TEST_F(tx_core_on_memory, a_tracked_hop_asks_nobody_about_ports_that_need_no_entry) {
  test::hop_spec spec;
  spec.source = ip_address::v4(0x0a000001);
  spec.egress = 1 + tracked_egress;
  hop divided = test::make_hop(spec);
  divided.egress_of_ports = 1;
  divided.ports_inside = true;
  divided.ports[0] = {53, 60};
  test::hand_made_table table;
  table.route("10.5.0.0/16", table.add_hop(divided));
  publisher_.store(&table.finish());
  fake_device device(64);
  tx_core core(memory_.memory(), publisher_, epochs_, control_, {.tracked = &flows_});
  test_producer producer(memory_, 0, 64);
  core.attach(producer.channel);
  core.add_port(1, 11, device.queue());
  for (const std::uint16_t port : std::initializer_list<std::uint16_t>{60, 61, 53, 52, 55}) {
    ASSERT_TRUE(producer.send(std::span(payload_).first(32), to("10.5.0.7", port), 0));
  }
  static_cast<void>(core.run_once());
  EXPECT_EQ(device.transmit(), 3u);
  for (const std::uint16_t port : {std::uint16_t{61}, std::uint16_t{52}}) {
    diverted_request told;
    ASSERT_TRUE(core.diverted().try_pop(told));
    EXPECT_EQ(told.reason, divert_reason::conntrack_new);
    EXPECT_TRUE(told.tracked);
    EXPECT_EQ(told.request.destination_port.host(), port);
    EXPECT_TRUE(producer.returned_by_kernel.try_push(told.request.frame));
    flows_[flows_.insert(tracked_key::of(told.request, told.way))].good_until =
        std::numeric_limits<std::int64_t>::max();
  }
  for (const std::uint16_t port : std::initializer_list<std::uint16_t>{61, 52, 60})
    ASSERT_TRUE(producer.send(std::span(payload_).first(32), to("10.5.0.7", port), 0));
  static_cast<void>(core.run_once());
  EXPECT_EQ(device.transmit(), 3u);
  device.complete();
  static_cast<void>(core.run_once());
}

TEST_F(tx_core_on_memory, diverts_with_the_reason_and_rings_the_control_thread) {
  test_producer producer(memory_, 0, 64);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  control_.arm();
  ASSERT_TRUE(send(producer, "192.0.2.1"));
  ASSERT_TRUE(send(producer, "10.9.0.1"));
  ASSERT_TRUE(send(producer, "10.4.0.1"));
  ASSERT_TRUE(send(producer, "10.1.0.1", 0, 1473));
  ASSERT_TRUE(send(producer, "10.1.0.1", 0, 1472));
  ASSERT_TRUE(send(producer, "10.1.0.1", 77));
  ASSERT_TRUE(send(producer, "fd00:2::1"));
  run();
  EXPECT_TRUE(rung(control_));
  const std::map<divert_reason, int> expected = {{divert_reason::no_route, 2},
                                                 {divert_reason::neighbour_unresolved, 1},
                                                 {divert_reason::no_egress_socket, 1},
                                                 {divert_reason::exceeds_mtu, 1},
                                                 {divert_reason::no_table, 1}};
  EXPECT_EQ(take_diverted(producer), expected);
  EXPECT_EQ(one_.transmit(), 1u);
  one_.complete();
  run();
  expect_all_home(producer);
}

TEST_F(tx_core_on_memory, diverts_everything_before_the_first_table) {
  publisher_.store(nullptr);
  test_producer producer(memory_, 0, 64);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  ASSERT_TRUE(send(producer, "10.1.0.1"));
  run();
  EXPECT_EQ(take_diverted(producer)[divert_reason::no_table], 1);
}

TEST_F(tx_core_on_memory, keeps_a_flow_on_one_member_of_a_group_and_uses_all_members) {
  test_producer producer(memory_, 0, 2048);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  core_.add_port(2, 12, two_.queue());
  std::map<std::uint32_t, std::set<int>> slots_of_destination;
  const auto note = [&](int slot) {
    return [&, slot](const tx_descriptor& d) {
      std::uint32_t destination;
      std::memcpy(&destination, memory_.memory().base + d.address + 30, sizeof destination);
      slots_of_destination[destination].insert(slot);
    };
  };
  for (int repeat = 0; repeat < 3; ++repeat) {
    for (int i = 0; i < 200; ++i) {
      ASSERT_TRUE(send(producer, "10.3.0." + std::to_string(i)));
      run();
      one_.transmit(64, note(1));
      two_.transmit(64, note(2));
      one_.complete();
      two_.complete();
    }
  }
  std::map<int, int> share;
  for (const auto& [destination, slots] : slots_of_destination) {
    EXPECT_EQ(slots.size(), 1u);
    ++share[*slots.begin()];
  }
  EXPECT_EQ(slots_of_destination.size(), 200u);
  EXPECT_GT(share[1], 60);
  EXPECT_GT(share[2], 60);
}

TEST_F(tx_core_on_memory, a_full_ring_delays_requests_and_keeps_their_order) {
  test_producer producer(memory_, 0, 512);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  std::vector<std::uint64_t> expected, sent;
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(send(producer, "10.1.0.1"));
  run(6);
  EXPECT_EQ(core_.snapshot().slots[1].waiting, 300u - 64u);
  EXPECT_GT(core_.snapshot().slots[1].ring_full, 0u);
  for (int i = 0; i < 40; ++i) {
    one_.transmit(
        17, [&](const tx_descriptor& d) { sent.push_back(memory_.memory().frame_at(d.address)); });
    one_.complete(11);
    run();
  }
  one_.complete();
  run();
  ASSERT_EQ(sent.size(), 300u);
  // Frames were acquired in rising order.
  EXPECT_TRUE(std::is_sorted(sent.begin(), sent.end()));
  expect_all_home(producer);
}

TEST_F(impatient_tx_core, withheld_completions_end_in_no_free_frame_and_in_diverting_what_waits) {
  test_producer producer(memory_, 0, 256);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  while (send(producer, "10.1.0.1")) {
  }
  run(8);
  EXPECT_EQ(producer.sent, 256u);
  EXPECT_FALSE(send(producer, "10.1.0.1"));
  std::this_thread::sleep_for(25ms);
  run(2);
  EXPECT_EQ(take_diverted(producer)[divert_reason::device_busy], 256 - 64);
  EXPECT_EQ(core_.snapshot().slots[1].stalls, 1u);
  EXPECT_GT(core_.snapshot().slots[1].watchdog_kicks, 0u);
  one_.transmit();
  one_.complete();
  run();
  expect_all_home(producer);
}

/// One batch is in its ring when it first says so; no other follows it.
TEST_F(tx_core_on_memory, a_device_that_takes_nothing_is_given_nothing_until_it_works_again) {
  test_producer producer(memory_, 0, 1024);
  core_.attach(producer.channel);
  fake_device device(1024);
  core_.add_port(1, 11, device.queue());
  for (const int refusal : {ENETDOWN, ENXIO, EINVAL}) {
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(send(producer, "10.1.0.1"));
    run();
    ASSERT_EQ(device.transmit(), 3u);
    device.kick_answer = refusal;
    for (int i = 0; i < 300; ++i) ASSERT_TRUE(send(producer, "10.1.0.1"));
    run(5);
    EXPECT_EQ(take_diverted(producer)[divert_reason::device_busy], 300 - 64) << refusal;
    EXPECT_EQ(core_.snapshot().slots[1].waiting, 0u);
    // What it had taken before does not say that it takes more.
    device.complete();
    ASSERT_TRUE(send(producer, "10.1.0.1"));
    run(2);
    EXPECT_EQ(take_diverted(producer)[divert_reason::device_busy], 1);
    EXPECT_EQ(core_.snapshot().slots[1].outstanding, 64u);
    // It is asked again, and not in each round.
    const std::uint64_t before = device.kicks;
    const auto start = std::chrono::steady_clock::now();
    while (device.kicks < before + 2) run();
    EXPECT_GE(std::chrono::steady_clock::now() - start, 200us);

    device.kick_answer = 0;
    const std::uint64_t refused = device.kicks;
    while (device.kicks == refused) run();
    ASSERT_TRUE(send(producer, "10.1.0.1"));
    run();
    EXPECT_EQ(device.transmit(), 65u);
    device.complete();
    run();
    EXPECT_TRUE(take_diverted(producer).empty());
    expect_all_home(producer);
  }
  EXPECT_EQ(core_.snapshot().slots[1].ring_full, 0u);
}

TEST_F(tx_core_on_memory, a_device_that_holds_nothing_is_asked_whether_it_works_again) {
  test_producer producer(memory_, 0, 64);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  one_.kick_answer = ENETDOWN;
  ASSERT_TRUE(send(producer, "10.1.0.1"));
  run();
  one_.transmit();
  one_.complete();
  run();
  EXPECT_EQ(core_.snapshot().held, 0u);
  one_.kick_answer = 0;
  const std::uint64_t refused = one_.kicks;
  while (one_.kicks == refused) run();
  ASSERT_TRUE(send(producer, "10.1.0.1"));
  run();
  EXPECT_EQ(one_.transmit(), 1u);
  one_.complete();
  run();
  EXPECT_EQ(core_.snapshot().slots[1].stalls, 0u);
  expect_all_home(producer);
}

TEST_F(tx_core_on_memory, a_removed_port_gives_back_what_its_device_did_not_complete) {
  test_producer producer(memory_, 0, 256);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(send(producer, "10.1.0.1"));
  run(4);
  one_.transmit(40);
  one_.complete(30);
  core_.remove_port(1, 5ms);
  const tx_snapshot s = core_.snapshot();
  EXPECT_EQ(s.slots[1].completed, 30u);
  EXPECT_EQ(s.slots[1].lost_in_device, 64u - 30u);
  EXPECT_EQ(take_diverted(producer)[divert_reason::no_egress_socket], 200 - 64);
  EXPECT_EQ(s.held, 0u);
  expect_all_home(producer);
  // The slot is free again.
  core_.add_port(1, 11, two_.queue());
  ASSERT_TRUE(send(producer, "10.1.0.1"));
  run();
  EXPECT_EQ(two_.transmit(), 1u);
}

TEST_F(tx_core_on_memory, what_a_copying_device_drops_is_lost_and_not_completed) {
  test_producer producer(memory_, 0, 256);
  core_.attach(producer.channel);
  tx_queue copying = one_.queue(), other = two_.queue();
  copying.copies = true;
  core_.add_port(1, 11, copying);
  core_.add_port(2, 12, other);
  one_.kick_answer = two_.kick_answer = EBUSY;
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(send(producer, "10.1.0.1"));
    ASSERT_TRUE(send(producer, "10.2.0.1"));
  }
  run();
  one_.kick_answer = two_.kick_answer = 0;
  const std::uint64_t dropped = core_.snapshot().slots[1].kicks_dropped;
  ASSERT_GT(dropped, 0u);
  ASSERT_LT(dropped, 20u);
  for (fake_device* device : {&one_, &two_}) {
    device->transmit();
    device->complete(1);  // One by one at first.
    run();
    device->complete();
    run();
  }
  const tx_snapshot s = core_.snapshot();
  EXPECT_EQ(s.slots[1].lost_in_device, dropped);
  EXPECT_EQ(s.slots[1].completed, 20 - dropped);
  // In zero-copy mode EBUSY says nothing of a frame.
  EXPECT_EQ(s.slots[2].kicks_dropped, 0u);
  EXPECT_GT(s.slots[2].kicks_later, 0u);
  EXPECT_EQ(s.slots[2].lost_in_device, 0u);
  EXPECT_EQ(s.slots[2].completed, 20u);
  expect_all_home(producer);
}

TEST_F(tx_core_on_memory, what_a_removed_device_dropped_is_lost_once) {
  test_producer producer(memory_, 0, 256);
  core_.attach(producer.channel);
  tx_queue copying = one_.queue();
  copying.copies = true;
  core_.add_port(1, 11, copying);
  one_.kick_answer = EBUSY;
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(send(producer, "10.1.0.1"));
  run();
  one_.kick_answer = 0;
  core_.remove_port(1, 5ms);
  const tx_snapshot s = core_.snapshot();
  EXPECT_EQ(s.slots[1].lost_in_device, 20u);
  EXPECT_EQ(s.slots[1].completed, 0u);
  expect_all_home(producer);
}

TEST_F(tx_core_on_memory, an_idle_port_is_removed_at_once) {
  core_.add_port(1, 11, one_.queue());
  const auto start = std::chrono::steady_clock::now();
  core_.remove_port(1, 10s);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 5s);
}

TEST_F(tx_core_on_memory, channels_share_a_batch_fairly) {
  std::vector<std::unique_ptr<test_producer>> producers;
  for (std::uint32_t i = 0; i < 4; ++i) {
    producers.push_back(std::make_unique<test_producer>(memory_, i, 256));
    core_.attach(producers.back()->channel);
  }
  for (auto& producer : producers)
    while (send(*producer, "10.9.0.1")) {
    }
  run(4);
  for (auto& producer : producers)
    EXPECT_EQ(producer->channel.requests.size_approximate(), 256u - 64u);
  // One that sends little is served in the next batch, however much the others have.
  ASSERT_TRUE(producers[0]->channel.requests.size_approximate() > 0);
}

TEST_F(tx_core_on_memory, more_channels_than_places_in_a_batch_are_served_in_turn) {
  std::vector<std::unique_ptr<test_producer>> producers;
  umem big({.frame_count = 100 * 64, .huge_pages = false});
  tx_core core(big.memory(), publisher_, epochs_, control_);
  for (std::uint32_t i = 0; i < 100; ++i) {
    producers.push_back(std::make_unique<test_producer>(big, i, 64));
    core.attach(producers.back()->channel);
    while (send(*producers.back(), "10.9.0.1")) {
    }
  }
  for (int i = 0; i < 25; ++i) static_cast<void>(core.run_once());
  for (auto& producer : producers)
    EXPECT_EQ(producer->channel.requests.size_approximate(), 64u - 16u);
}

TEST_F(tx_core_on_memory, a_channel_is_detached_once_its_frames_are_home) {
  auto producer = std::make_unique<test_producer>(memory_, 0, 64);
  core_.attach(producer->channel);
  core_.add_port(1, 11, one_.queue());
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(send(*producer, "10.1.0.1"));
  core_.begin_detach(producer->channel);
  run(3);
  EXPECT_FALSE(core_.detached(producer->channel));
  one_.transmit();
  one_.complete();
  run();
  EXPECT_TRUE(core_.detached(producer->channel));
  expect_all_home(*producer);
  memory_.release_slice(producer->slice);
  producer = std::make_unique<test_producer>(memory_, 1, 64);
  core_.attach(producer->channel);
  ASSERT_TRUE(send(*producer, "10.1.0.1"));
  run();
  EXPECT_EQ(one_.transmit(), 1u);
}

TEST_F(tx_core_on_memory, kicks_only_when_the_device_asks) {
  test_producer producer(memory_, 0, 256);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  const auto send_one = [&] {
    ASSERT_TRUE(send(producer, "10.1.0.1"));
    run();
    one_.transmit();
    one_.complete();
    run();
  };
  one_.set_need_wakeup(false);
  send_one();
  EXPECT_EQ(one_.kicks, 1u) << "the first kick starts drivers that do not know the flag";
  for (int i = 0; i < 10; ++i) send_one();
  EXPECT_EQ(one_.kicks, 1u);
  one_.set_need_wakeup(true);
  for (int i = 0; i < 10; ++i) send_one();
  EXPECT_EQ(one_.kicks, 11u);
  run(100);
  EXPECT_EQ(one_.kicks, 11u);
}

TEST_F(tx_core_on_memory, kicks_a_busy_polled_device_as_long_as_it_has_frames) {
  test_producer producer(memory_, 0, 256);
  core_.attach(producer.channel);
  tx_queue queue = one_.queue();
  queue.busy_polled = true;
  core_.add_port(1, 11, queue);
  one_.set_need_wakeup(false);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(send(producer, "10.1.0.1"));
    run();
    one_.transmit();
    const std::uint64_t before = one_.kicks;
    run(10);
    EXPECT_EQ(one_.kicks, before + 10) << "it has a frame, whatever its flag says";
    one_.complete();
    run();
  }
  const std::uint64_t before = one_.kicks;
  run(10);
  EXPECT_EQ(one_.kicks, before);
}

TEST_F(tx_core_on_memory, repeats_kicks_that_mean_later_and_counts_other_errors) {
  test_producer producer(memory_, 0, 256);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  for (const int later : {EAGAIN, EBUSY, ENOBUFS}) {
    one_.kick_answer = later;
    const std::uint64_t before = one_.kicks;
    ASSERT_TRUE(send(producer, "10.1.0.1"));
    run(3);
    EXPECT_GE(one_.kicks, before + 3);
    one_.kick_answer = 0;
    run();
    one_.transmit();
    one_.complete();
    run();
  }
  EXPECT_EQ(core_.snapshot().slots[1].kick_errors, 0u);
  one_.kick_answer = ENXIO;
  ASSERT_TRUE(send(producer, "10.1.0.1"));
  run();
  EXPECT_EQ(core_.snapshot().slots[1].kick_errors, 1u);
  EXPECT_EQ(core_.snapshot().slots[1].last_kick_error, std::uint64_t{ENXIO});
}

TEST_F(tx_core_on_memory, ignores_completions_of_frames_that_the_device_does_not_have) {
  test_producer producer(memory_, 0, 64);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  ASSERT_TRUE(send(producer, "10.1.0.1"));
  run();
  one_.transmit();
  one_.report(5 * 2048 + payload_offset);
  one_.report(std::uint64_t{1} << 40);
  one_.complete();
  one_.report(payload_offset);
  run();
  EXPECT_EQ(core_.snapshot().slots[1].unknown_completions, 3u);
  EXPECT_EQ(core_.snapshot().slots[1].completed, 1u);
  expect_all_home(producer);
}

/// Of a device that completes in order the core compares runs; of others it looks frames up.
TEST_F(tx_core_on_memory, a_device_may_complete_in_any_order_and_go_back_to_the_right_one) {
  test_producer producer(memory_, 0, 2048);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  std::vector<std::uint64_t> in_device;
  const auto complete = [&](std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) one_.report(in_device[i]);
    in_device.erase(in_device.begin(), in_device.begin() + static_cast<std::ptrdiff_t>(count));
    run();
  };
  for (int round = 0; round < 400; ++round) {
    const bool shuffled = round % 4 >= 2;
    for (int more = 0; more < 3; ++more) {
      for (int i = 0; i < 13; ++i) ASSERT_TRUE(send(producer, "10.1.0." + std::to_string(i)));
      run();
      one_.transmit(64, [&](const tx_descriptor& d) { in_device.push_back(d.address); });
      if (shuffled) std::shuffle(in_device.begin(), in_device.end(), random);
      complete(random() % in_device.size());
    }
    // Now and then a round begins with frames of the one before.
    if (round % 8 != 3) complete(in_device.size());
    if (!in_device.empty()) continue;
    const tx_snapshot s = core_.snapshot();
    EXPECT_EQ(s.slots[1].completed, producer.sent);
    EXPECT_EQ(s.slots[1].unknown_completions, 0u);
    expect_all_home(producer);
  }
}

/// Whatever is wrong with a completion, and wherever in a run it comes: only it is not counted, and
/// no frame comes home twice.
TEST_F(tx_core_on_memory, completions_that_are_wrong_cost_no_frame_wherever_they_come) {
  test_producer producer(memory_, 0, 256), other(memory_, 1, 64);
  core_.attach(producer.channel);
  core_.attach(other.channel);
  core_.add_port(1, 11, one_.queue());
  core_.add_port(2, 12, two_.queue());
  std::uint64_t wrong = 0, completed = 0;
  for (std::uint32_t place = 0; place <= 20; ++place) {
    for (int kind = 0; kind < 5; ++kind) {
      for (int i = 0; i < 20; ++i) ASSERT_TRUE(send(producer, "10.1.0.1"));
      ASSERT_TRUE(send(other, "10.2.0.1"));
      run();
      std::vector<std::uint64_t> sent, sent_by_two;
      one_.transmit(64, [&](const tx_descriptor& d) { sent.push_back(d.address); });
      two_.transmit(64, [&](const tx_descriptor& d) { sent_by_two.push_back(d.address); });
      ASSERT_EQ(sent.size(), 20u);
      const std::uint64_t kinds[] = {
          sent[place == 0 ? 0 : place - 1],  // Twice.
          std::uint64_t{1} << 40,            // No frame of the memory.
          memory_.memory().payload_address(producer.slice.first + producer.slice.count),
          sent_by_two.at(0),                            // In another device.
          sent[19] ^ memory_.memory().frame_size * 64,  // Not in use.
      };
      auto reported = sent;
      reported.insert(reported.begin() + place, kinds[kind]);
      const std::size_t first_part = (place + static_cast<std::uint32_t>(kind) * 7) % 21;
      for (std::size_t i = 0; i < reported.size(); ++i) {
        if (i == first_part) run();
        one_.report(reported[i]);
      }
      run();
      completed += 20;
      EXPECT_EQ(core_.snapshot().slots[1].unknown_completions, ++wrong) << place << ' ' << kind;
      EXPECT_EQ(core_.snapshot().slots[1].completed, completed) << place << ' ' << kind;
      expect_all_home(producer);
      two_.complete();
      run();
      expect_all_home(other);
    }
  }
  EXPECT_EQ(core_.snapshot().slots[2].unknown_completions, 0u);
}

TEST_F(tx_core_on_memory, a_port_removed_out_of_order_gives_back_what_it_has_and_no_more) {
  test_producer producer(memory_, 0, 256);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(send(producer, "10.1.0.1"));
  run();
  std::vector<std::uint64_t> sent;
  one_.transmit(64, [&](const tx_descriptor& d) { sent.push_back(d.address); });
  for (const std::size_t i : {7u, 3u, 29u}) one_.report(sent.at(i));
  run();
  core_.remove_port(1, 0ms);
  EXPECT_EQ(core_.snapshot().slots[1].completed, 3u);
  EXPECT_EQ(core_.snapshot().slots[1].lost_in_device, 27u);
  expect_all_home(producer);
}

TEST_F(tx_core_on_memory, makes_a_waiting_producer_known_but_not_for_every_frame) {
  test_producer producer(memory_, 0, 256);
  core_.attach(producer.channel);
  core_.add_port(1, 11, one_.queue());
  for (int i = 0; i < 64; ++i) ASSERT_TRUE(send(producer, "10.1.0.1"));
  run();
  one_.transmit();
  producer.channel.waiting = true;
  control_.arm();
  one_.complete(1);
  run();
  EXPECT_FALSE(rung(control_)) << "one frame, and the core is busy";
  run();
  EXPECT_TRUE(rung(control_)) << "nothing more came: one frame is better than none";
  control_.disarm();
  control_.arm();
  one_.complete(63);
  run();
  EXPECT_TRUE(rung(control_));
}

TEST_F(tx_core_on_memory, rings_of_every_size_give_every_frame_back) {
  std::mt19937_64 random(1);
  // Nothing is diverted, however slowly this runs.
  tx_core core(memory_.memory(), publisher_, epochs_, control_, {.stall_deadline = 1h});
  for (std::uint32_t size = 1; size <= 4096; size *= 2) {
    test_producer producer(memory_, 0, 1024);
    fake_device device(size, size);
    core.attach(producer.channel);
    core.add_port(1, 11, device.queue());
    const std::uint64_t completed_before = core.snapshot().slots[1].completed;
    while (producer.sent < 3000) {
      for (std::uint64_t n = random() % 200; n > 0 && producer.sent < 3000; --n)
        if (!send(producer, "10.1.0.1")) break;
      static_cast<void>(core.run_once());
      device.transmit(1 + static_cast<std::uint32_t>(random() % 100));
      device.complete(1 + static_cast<std::uint32_t>(random() % 100));
    }
    while (core.snapshot().held != 0 || producer.channel.requests.readable() != 0) {
      static_cast<void>(core.run_once());
      device.transmit();
      device.complete();
    }
    EXPECT_EQ(core.snapshot().slots[1].completed - completed_before, 3000u) << size;
    expect_all_home(producer);
    core.remove_port(1, 0ms);
    core.begin_detach(producer.channel);
    static_cast<void>(core.run_once());
    ASSERT_TRUE(core.detached(producer.channel));
    memory_.release_slice(producer.slice);
  }
}

TEST_F(tx_core_on_memory, totals_add_up_exactly_under_random_traffic) {
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  const std::vector<std::string> destinations = {"10.1.0.1",  "10.2.0.1",  "10.3.0.1",
                                                 "10.3.0.2",  "10.4.0.1",  "10.9.0.1",
                                                 "192.0.2.1", "fd00:1::1", "fd00:2::1"};
  std::vector<std::unique_ptr<test_producer>> producers;
  for (std::uint32_t i = 0; i < 3; ++i) {
    producers.push_back(std::make_unique<test_producer>(memory_, i, 256));
    core_.attach(producers.back()->channel);
  }
  auto two = std::make_unique<fake_device>(64);
  core_.add_port(1, 11, one_.queue());
  core_.add_port(2, 12, two->queue());
  bool has_two = true;
  std::uint64_t kernel_path = 0;
  const auto take_all_diverted = [&] {
    diverted_request d;
    while (core_.diverted().try_pop(d)) {
      ++kernel_path;
      for (auto& p : producers)
        if (d.request.frame - p->slice.first < p->slice.count) {
          ASSERT_TRUE(p->returned_by_kernel.try_push(d.request.frame));
        }
    }
  };
  for (int step = 0; step < 20000; ++step) {
    test_producer& producer = *producers[random() % 3];
    for (std::uint64_t n = random() % 40; n > 0; --n) {
      if (!send(producer, destinations[random() % destinations.size()],
                static_cast<flow_class_id>(random() % 2), random() % 1600))
        break;
    }
    if (random() % 3 == 0) one_.transmit(static_cast<std::uint32_t>(random() % 40));
    if (random() % 3 == 0) two->transmit(static_cast<std::uint32_t>(random() % 40));
    if (random() % 3 == 0) one_.complete(static_cast<std::uint32_t>(random() % 40));
    if (random() % 3 == 0) two->complete(static_cast<std::uint32_t>(random() % 40));
    if (random() % 2 == 0) take_all_diverted();
    if (random() % 500 == 0) {
      if (has_two) {
        core_.remove_port(2, 0ms);
      } else {
        two = std::make_unique<fake_device>(64);
        core_.add_port(2, 12, two->queue());
      }
      has_two = !has_two;
    }
    run();
  }
  if (has_two) core_.remove_port(2, 0ms);
  for (int i = 0; i < 100; ++i) {
    one_.transmit();
    one_.complete();
    run();
  }
  take_all_diverted();
  const tx_snapshot s = core_.snapshot();
  std::uint64_t sent = 0;
  for (auto& producer : producers) {
    sent += producer->sent;
    expect_all_home(*producer);
  }
  EXPECT_EQ(s.taken, sent);
  EXPECT_EQ(s.held, 0u);
  EXPECT_EQ(s.diverted_total(), kernel_path);
  EXPECT_EQ(sent, s.completed_total() + kernel_path + s.lost_total());
  EXPECT_GT(s.lost_total(), 0u);
}

}  // namespace
}  // namespace cowire

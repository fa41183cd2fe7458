// SPDX-License-Identifier: Apache-2.0
// What senders are told, and what becomes of their datagrams, while a device is held up and all
// frames are on the way; by one TX core and by two.
#include <tests/async/numbered_stream.hpp>
#include <tests/support/two_hosts.hpp>

#include <vector>

namespace cowire::test {
namespace {

class back_pressure : public two_hosts, public ::testing::WithParamInterface<unsigned> {
 protected:
  static constexpr unsigned flows = 16;

  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    (*a)("ip link del a0");
    connect(*a, "a0", *b, "b0", 1, 2);
    resolve("10.77.1.2");
    sink = std::make_unique<numbered_sink>(*b, to("10.77.1.2:9000"));
    transmitter_config config = small();
    config.tx_cores = GetParam();
    config.log = gate.log();
    tx = std::make_unique<transmitter>(config);
  }
  void TearDown() override {
    gate.open();
    tx.reset();
    sink.reset();
    two_hosts::TearDown();
  }

  /// No frame comes back from here to let_go().
  void hold() {
    gate.close();
    hold_devices_up();
  }
  void let_go() { gate.open(); }
  /// Sends the next number; false if it is told that there is no frame.
  bool send(sender& s) {
    std::error_code ec;
    s.try_send(std::as_bytes(std::span(&number, 1)), destination, ec);
    if (!ec) {
      ++number;
      return true;
    }
    EXPECT_EQ(make_error_code(error::would_block), ec);
    return false;
  }
  /// Everything is accounted for and what was neither shed nor lost has arrived, once.
  void expect_settled() {
    EXPECT_TRUE(eventually([&] { return tx->stats().on_the_way() == 0; })) << summary(tx->stats());
    sink->stop();
    const auto stats = tx->stats();
    EXPECT_EQ(number, stats.submitted) << summary(stats);
    EXPECT_EQ(number - stats.shed - stats.lost_in_device, sink->arrived()) << summary(stats);
    EXPECT_EQ(0u, sink->duplicates());
  }

  const endpoint destination = to("10.77.1.2:9000");
  const std::uint64_t frames = small().frames_per_producer;
  std::uint64_t number = 0;
  std::unique_ptr<numbered_sink> sink;
  log_gate gate;
  std::unique_ptr<transmitter> tx;
};

INSTANTIATE_TEST_SUITE_P(cores, back_pressure, ::testing::Values(1u, 2u),
                         ::testing::PrintToStringParamName());

TEST_P(back_pressure, a_sender_that_waits_goes_on_when_frames_come_back) {
  auto s = tx->make_sender();
  hold();
  while (send(s)) continue;
  EXPECT_EQ(number, frames);
  outcome<std::error_code, std::size_t> sent;
  s.async_send(std::as_bytes(std::span(&number, 1)), destination, sent.handler());
  let_go();
  EXPECT_FALSE(std::get<0>(sent.future.get()));
  ++number;
  expect_settled();
  EXPECT_EQ(0u, tx->stats().shed);
}

TEST_P(back_pressure, a_sender_that_fails_is_told_at_once) {
  auto s = tx->make_sender({.when_full = full_policy::fail});
  std::vector<payload> leased;
  while (payload one = s.try_acquire()) leased.push_back(std::move(one));
  ASSERT_EQ(leased.size(), frames);
  EXPECT_FALSE(send(s));
  outcome<std::error_code, payload> acquired;
  s.async_acquire(acquired.handler());
  EXPECT_EQ(make_error_code(error::would_block), std::get<0>(acquired.future.get()));
  // Three frames for five: as many as can be are submitted.
  hold();
  leased.resize(leased.size() - 3);
  const std::vector<endpoint> many(5, destination);
  outcome<std::error_code, std::size_t> sent;
  s.async_send(bytes_of("x"), many, sent.handler());
  let_go();
  EXPECT_EQ((std::tuple{make_error_code(error::would_block), std::size_t{3}}), sent.future.get());
  EXPECT_EQ(3u, tx->stats().submitted);
  EXPECT_TRUE(eventually([&] { return tx->stats().on_the_way() == 0; })) << summary(tx->stats());
}

TEST_P(back_pressure, a_sender_that_sheds_keeps_the_newest) {
  auto s = tx->make_sender({.when_full = full_policy::shed_oldest});
  hold();
  while (number < 4 * frames) ASSERT_TRUE(send(s)) << number << " " << summary(tx->stats());
  EXPECT_EQ(tx->stats().shed, 3 * frames) << summary(tx->stats());
  // Nothing is called from here on: what is held back leaves by itself.
  let_go();
  expect_settled();
  for (std::uint64_t i = number - frames / 2; i < number; ++i)
    EXPECT_EQ(1u, sink->times(i)) << i << " of " << number << " " << summary(tx->stats());
  std::vector<payload> all;
  while (payload one = s.try_acquire()) all.push_back(std::move(one));
  EXPECT_EQ(frames, all.size());
}

TEST_P(back_pressure, an_operation_of_a_sender_that_sheds_does_not_wait) {
  auto s = tx->make_sender({.when_full = full_policy::shed_oldest});
  hold();
  const std::vector<endpoint> many(5 * frames, destination);
  outcome<std::error_code, std::size_t> sent;
  s.async_send(std::as_bytes(std::span(&number, 1)), many, sent.handler());
  EXPECT_EQ(tx->stats().shed, 4 * frames) << summary(tx->stats());
  let_go();
  EXPECT_EQ((std::tuple{std::error_code(), many.size()}), sent.future.get());
  outcome<std::error_code> flushed;
  s.async_flush(flushed.handler());
  EXPECT_FALSE(std::get<0>(flushed.future.get()));
  const auto stats = tx->stats();
  EXPECT_EQ(0u, stats.on_the_way()) << summary(stats);
  EXPECT_EQ(many.size(), stats.submitted);
}

TEST_P(back_pressure, datagrams_of_senders_that_wait_do_not_give_way) {
  const producer both = tx->make_producer();
  auto waits = tx->make_sender({.via = both});
  auto sheds = tx->make_sender({.when_full = full_policy::shed_oldest, .via = both});
  hold();
  while (send(waits)) continue;
  EXPECT_EQ(number, frames);
  EXPECT_FALSE(send(sheds)) << summary(tx->stats());
  EXPECT_EQ(0u, tx->stats().shed);
  let_go();
  expect_settled();
}

TEST_P(back_pressure, shedding_under_load_adds_up) {
  auto s = tx->make_sender({.when_full = full_policy::shed_oldest});
  std::vector<endpoint> to_all;
  for (std::uint16_t port = 9000; port < 9000 + flows; ++port)
    to_all.push_back({destination.address, port});
  for (std::uint64_t sent = 0; sent < 100'000; ++sent)
    ASSERT_TRUE(s.try_send(bytes_of("x"), to_all[sent % flows])) << summary(tx->stats());
  EXPECT_TRUE(eventually([&] { return tx->stats().on_the_way() == 0; })) << summary(tx->stats());
  EXPECT_EQ(100'000u, tx->stats().submitted);
}

}  // namespace
}  // namespace cowire::test

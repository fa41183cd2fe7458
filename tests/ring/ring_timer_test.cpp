// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/ring_timer.hpp>

#include "on_both_backends.hpp"

#include <asio/io_context.hpp>

#include <algorithm>
#include <iostream>
#include <optional>
#include <random>
#include <thread>
#include <vector>

namespace cowire {
namespace {

using test::on_both_backends;
using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;

class ring_timer_test : public on_both_backends {};

TEST_P(ring_timer_test, completes_at_its_deadline_not_before) {
  for (int round = 0; round < 2; ++round) {
    ring_timer timer(ring(), 20ms);
    std::optional<std::error_code> result;
    timer.async_wait([&](std::error_code ec) { result = ec; });
    run();
    EXPECT_GE(clock::now(), timer.expiry());
    EXPECT_LT(clock::now(), timer.expiry() + 1s);
    EXPECT_EQ(std::error_code(), result);
  }
}

TEST_P(ring_timer_test, an_expiry_in_the_past_completes_but_not_inside_the_call) {
  ring_timer timer(ring());
  bool called = false;
  asio::post(ring(), [&] {
    timer.async_wait([&](std::error_code ec) {
      EXPECT_FALSE(ec);
      called = true;
    });
    EXPECT_FALSE(called);
  });
  run();
  EXPECT_TRUE(called);
}

TEST_P(ring_timer_test, many_timers_expire_in_order_of_deadline_some_cancelled) {
  const auto seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  std::mt19937 random(seed);
  std::vector<ring_timer> timers;
  std::vector<ring_timer::time_point> seen;
  std::size_t cancelled = 0;
  const auto now = clock::now();
  for (int i = 0; i < 500; ++i) {
    auto& timer = timers.emplace_back(ring());
    timer.expires_at(now + std::chrono::microseconds(random() % 30'000));
    timer.async_wait([&, when = timer.expiry()](std::error_code ec) {
      if (ec)
        ++cancelled;
      else
        seen.push_back(when);
    });
  }
  for (auto& timer : timers)
    if (random() % 3 == 0) timer.cancel();
  run();
  EXPECT_EQ(500u, seen.size() + cancelled);
  EXPECT_GT(cancelled, 0u);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST_P(ring_timer_test, a_new_expiry_and_cancel_and_destruction_abort_waits) {
  std::vector<std::error_code> results;
  const auto note = [&](std::error_code ec) { results.push_back(ec); };
  auto timer = std::make_unique<ring_timer>(ring(), 1h);
  timer->async_wait(note);
  timer->async_wait(note);
  timer->expires_after(1h);
  run();
  EXPECT_EQ(2u, results.size());
  timer->async_wait(note);
  timer->cancel();
  run();
  EXPECT_EQ(3u, results.size());
  timer->async_wait(note);
  timer.reset();
  run();
  EXPECT_EQ(std::vector(4, operation_aborted()), results);
}

TEST_P(ring_timer_test, a_cancellation_slot_ends_its_own_wait_only) {
  ring_timer timer(ring(), 10ms);
  asio::cancellation_signal signal;
  std::vector<std::error_code> results;
  const auto note = [&](std::error_code ec) { results.push_back(ec); };
  timer.async_wait(asio::bind_cancellation_slot(signal.slot(), note));
  timer.async_wait(note);
  signal.emit(asio::cancellation_type::total);
  run();
  EXPECT_EQ((std::vector{operation_aborted(), std::error_code()}), results);
  signal.emit(asio::cancellation_type::total);  // Late: finds nothing.
  timer.expires_after(1ms);
  timer.async_wait(note);
  run();
  EXPECT_EQ(std::error_code(), results.back());
}

awaitable<std::size_t> first_of(ring_timer& a, ring_timer& b) {
  using namespace awaitable_operators;
  const auto winner = co_await (a.async_wait(use_awaitable) || b.async_wait(use_awaitable));
  co_return winner.index();
}

TEST_P(ring_timer_test, the_first_of_two_wins_and_the_other_is_cancelled) {
  ring_timer soon(ring(), 5ms), late(ring(), 1h);
  auto second = co_spawn(ring(), first_of(late, soon), use_future);
  run();
  EXPECT_EQ(1u, second.get());
  soon.expires_after(5ms);
  auto first = co_spawn(ring(), first_of(soon, late), use_future);
  run();
  EXPECT_EQ(0u, first.get());
}

TEST_P(ring_timer_test, serves_coroutines_of_another_io_context) {
  auto work = std::make_unique<asio::any_io_executor>(
      asio::prefer(ring().get_executor(), asio::execution::outstanding_work.tracked));
  std::thread runner([&] { run(); });
  asio::io_context application(1);
  ring_timer soon(ring(), 5ms), late(ring(), 1h);
  auto winner = co_spawn(application, first_of(soon, late), use_future);
  std::thread::id delivered;
  ring_timer third(ring(), 1ms);
  third.async_wait(asio::bind_executor(
      application, [&](std::error_code) { delivered = std::this_thread::get_id(); }));
  application.run();
  EXPECT_EQ(0u, winner.get());
  EXPECT_EQ(std::this_thread::get_id(), delivered);
  work.reset();
  runner.join();
}

TEST_P(ring_timer_test, every_kind_of_token) {
  ring_timer timer(ring(), 1ms);
  auto future = timer.async_wait(use_future([](std::error_code ec) { return !ec; }));
  bool deferred_ran = false;
  timer.async_wait(deferred)([&](std::error_code ec) { deferred_ran = !ec; });
  std::error_code tuple_result = operation_aborted();
  timer.async_wait(as_tuple([&](std::tuple<std::error_code> t) { tuple_result = std::get<0>(t); }));
  timer.async_wait(detached);
  run();
  EXPECT_TRUE(future.get());
  EXPECT_TRUE(deferred_ran);
  EXPECT_EQ(std::error_code(), tuple_result);
}

TEST_P(ring_timer_test, waits_survive_the_end_of_run_and_go_on_in_another_thread) {
  ring_timer timer(ring(), 30ms);
  bool expired = false;
  timer.async_wait([&](std::error_code ec) { expired = !ec; });
  asio::post(ring(), [&] { ring().stop(); });
  run();
  EXPECT_FALSE(expired);
  std::thread([&] { run(); }).join();
  EXPECT_TRUE(expired);
}

/// A handler that counts how many of its kind live.
struct counted {
  std::shared_ptr<int> token;
  void operator()(std::error_code) const { FAIL() << "called"; }
};

awaitable<void> wait_for_ever(ring_context& ring, std::shared_ptr<int> token) {
  ring_timer timer(ring, 1h);
  co_await timer.async_wait(use_awaitable);
  ADD_FAILURE() << "resumed " << *token;
}

TEST_P(ring_timer_test, a_destroyed_ring_destroys_waiting_handlers_and_coroutines_uncalled) {
  auto token = std::make_shared<int>(0);
  auto outlived = std::make_unique<ring_timer>(ring(), 1h);
  outlived->async_wait(counted{token});
  co_spawn(ring(), wait_for_ever(ring(), token), detached);
  ring_timer stopper(ring(), 5ms);
  stopper.async_wait([&](std::error_code) { ring().stop(); });
  run();
  outlived.reset();
  EXPECT_GT(token.use_count(), 1);
  { auto moved = std::move(stopper); }
  ring_.reset();
  EXPECT_EQ(1, token.use_count());
}

COWIRE_ON_BOTH_BACKENDS(ring_timer_test);

}  // namespace
}  // namespace cowire

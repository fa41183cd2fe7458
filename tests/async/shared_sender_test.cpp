// SPDX-License-Identifier: Apache-2.0
// One sender for many threads, which have no producers of their own.
#include <cowire/async/await_frames.hpp>

#include <tests/async/numbered_stream.hpp>
#include <tests/support/two_hosts.hpp>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/bind_executor.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>

#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <map>
#include <string>
#include <type_traits>

namespace cowire::test {
namespace {

/// Host B takes what comes to ports 9000 and, in order, 9001.
class shared_senders : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    sink = std::make_unique<numbered_sink>(*b, destination);
    resolve("10.77.1.2");
  }
  void TearDown() override {
    sink.reset();
    two_hosts::TearDown();
  }
  static std::span<const std::byte> bytes_in(const std::uint64_t& number) {
    return std::as_bytes(std::span(&number, 1));
  }
  /// The one shared producer has `frames_each` frames.
  static transmitter_config with_one() {
    auto config = small();
    config.frames_per_producer = frames_each;
    config.shared_producers = 1;
    return config;
  }
  static std::vector<payload> all_frames(const shared_sender& s) {
    std::vector<payload> out;
    while (payload one = s.try_acquire()) out.push_back(std::move(one));
    return out;
  }
  /// All of the numbers below `sent` arrive, once each.
  void expect_exactly(const transmitter& tx, std::uint64_t sent) {
    EXPECT_TRUE(drained(tx)) << summary(tx.stats());
    EXPECT_EQ(sent, tx.stats().submitted) << summary(tx.stats());
    EXPECT_TRUE(eventually([&] { return sink->arrived() == sent; })) << sink->arrived();
    sink->stop();
    EXPECT_EQ("", sink->missing(sent)) << summary(tx.stats());
    EXPECT_EQ(0u, sink->duplicates());
  }

  static constexpr std::uint32_t frames_each = 64;
  const endpoint destination = to("10.77.1.2:9000");
  std::unique_ptr<numbered_sink> sink;
};

/// An io_context on a thread of its own, until it goes.
struct application {
  application()
      : thread([this] {
          const auto work = asio::make_work_guard(context);
          context.run();
        }) {}
  ~application() {
    context.stop();
    thread.join();
  }
  application(const application&) = delete;
  application& operator=(const application&) = delete;

  asio::io_context context{1};
  std::thread thread;
};

TEST_F(shared_senders, hundreds_of_threads_lose_and_repeat_nothing) {
  constexpr std::uint64_t threads = 256, each = 500;
  auto config = small();
  config.max_producers = 1;
  transmitter tx(config);
  const auto own = tx.make_sender();  // Takes the only producer.
  const shared_sender s = tx.make_shared_sender();
  std::vector<std::thread> all;
  for (std::uint64_t t = 0; t < threads; ++t)
    all.emplace_back([&, t, copy = s] {
      for (std::uint64_t i = t * each; i < (t + 1) * each; ++i)
        while (!copy.try_send(bytes_in(i), destination)) std::this_thread::yield();
    });
  for (auto& one : all) one.join();
  expect_exactly(tx, threads * each);
}

TEST_F(shared_senders, threads_that_wait_for_few_frames_are_all_served) {
  constexpr std::uint64_t threads = 256, each = 100;
  transmitter tx(with_one());
  const auto s = tx.make_shared_sender();
  std::vector<std::thread> all;
  for (std::uint64_t t = 0; t < threads; ++t)
    all.emplace_back([&, t] {
      for (std::uint64_t i = t * each; i < (t + 1) * each; ++i) {
        outcome<std::error_code, std::size_t> sent;
        s.async_send(bytes_in(i), destination, sent.handler());
        ASSERT_EQ((std::tuple{std::error_code(), std::size_t{1}}), sent.future.get());
      }
    });
  for (auto& one : all) one.join();
  expect_exactly(tx, threads * each);
}

TEST_F(shared_senders, what_a_thread_sends_stays_in_order) {
  constexpr std::uint64_t threads = 8, each = 1000;
  udp_sink in_order(*b, to("10.77.1.2:9001"));
  transmitter tx(small());
  const auto s = tx.make_shared_sender();
  std::vector<std::thread> all;
  for (std::uint64_t t = 0; t < threads; ++t)
    all.emplace_back([&, t] {
      for (std::uint64_t i = t << 32; i < (t << 32) + each; ++i)
        while (!s.try_send(bytes_in(i), to("10.77.1.2:9001"))) std::this_thread::yield();
    });
  std::map<std::uint64_t, std::uint64_t> next;
  for (std::uint64_t got = 0; got < threads * each; ++got) {
    const auto one = in_order.next();
    if (!one) {
      ADD_FAILURE() << got << " " << summary(tx.stats());
      break;
    }
    std::uint64_t number;
    std::memcpy(&number, one->bytes.data(), sizeof number);
    EXPECT_EQ(next[number >> 32]++, number & 0xffffffff) << "of thread " << (number >> 32);
  }
  for (auto& one : all) one.join();
}

TEST_F(shared_senders, one_shared_producer_keeps_the_order_of_calls_of_several_threads) {
  udp_sink in_order(*b, to("10.77.1.2:9001"));
  transmitter tx(with_one());
  const auto s = tx.make_shared_sender();
  constexpr std::uint64_t count = 200;
  for (std::uint64_t i = 0; i < count; ++i)
    std::thread([&] {
      while (!s.try_send(bytes_in(i), to("10.77.1.2:9001"))) std::this_thread::yield();
    }).join();
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto one = in_order.next();
    ASSERT_TRUE(one) << i;
    std::uint64_t number;
    std::memcpy(&number, one->bytes.data(), sizeof number);
    ASSERT_EQ(i, number);
  }
}

TEST_F(shared_senders, a_fan_out_says_whom_it_has_reached) {
  transmitter tx(with_one());
  const auto s = tx.make_shared_sender();
  std::vector<endpoint> many;
  for (std::uint16_t port = 9000; port < 9010; ++port) many.push_back({destination.address, port});
  std::vector<std::unique_ptr<udp_sink>> sinks;
  for (std::size_t i = 1; i < many.size(); ++i)
    sinks.push_back(std::make_unique<udp_sink>(*b, many[i]));
  auto leased = all_frames(s);
  ASSERT_EQ(frames_each, leased.size());
  const std::uint64_t number = 0;
  std::error_code ec;
  EXPECT_EQ(0u, s.try_send(bytes_in(number), many, ec));
  EXPECT_EQ(make_error_code(error::would_block), ec);
  hold_devices_up();  // Or those who had it would give their frames to the others.
  leased.resize(leased.size() - 6);
  const auto accepted = s.try_send(bytes_in(number), many, ec);
  EXPECT_EQ(6u, accepted);
  EXPECT_EQ(make_error_code(error::would_block), ec);
  leased.clear();
  EXPECT_EQ(4u, s.try_send(bytes_in(number), std::span(many).subspan(accepted), ec));
  EXPECT_FALSE(ec);
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(many.size(), tx.stats().submitted);
  sink->stop();
  EXPECT_EQ(0u, sink->duplicates());
  std::uint64_t arrived = sink->arrived();
  for (const auto& one : sinks) {
    const auto count = one->drain();
    EXPECT_LE(count, 1u);
    arrived += count;
  }
  EXPECT_EQ(many.size() - tx.stats().lost_in_device, arrived) << summary(tx.stats());
}

TEST_F(shared_senders, batches_of_many_threads_lose_and_repeat_nothing) {
  constexpr std::uint64_t threads = 8, each = 3000;
  transmitter tx(small());
  const auto s = tx.make_shared_sender();
  std::vector<std::thread> all;
  for (std::uint64_t t = 0; t < threads; ++t)
    all.emplace_back([&, t, s] {
      std::vector<std::uint64_t> numbers(each);
      std::vector<message> messages;
      for (std::uint64_t i = 0; i < each; ++i) numbers[i] = t * each + i;
      for (const std::uint64_t& number : numbers)
        messages.push_back({bytes_in(number), destination});
      std::span<const message> rest(messages);
      while (rest.size() > each / 2) {
        std::error_code ec;
        const std::size_t sent = s.try_send_batch(rest.first(100), ec);
        EXPECT_EQ(sent == 100, !ec) << ec.message();
        if (sent == 0) std::this_thread::yield();
        rest = rest.subspan(sent);
      }
      EXPECT_EQ(rest.size(), s.async_send_batch(rest, asio::use_future).get());
    });
  for (std::thread& one : all) one.join();
  expect_exactly(tx, threads * each);
}

TEST_F(shared_senders, segments_are_numbered_pieces) {
  transmitter tx(small());
  const auto s = tx.make_shared_sender();
  std::vector<std::uint64_t> numbers(200);
  for (std::uint64_t i = 0; i < numbers.size(); ++i) numbers[i] = i;
  const auto bytes = std::as_bytes(std::span(numbers));
  std::error_code ec;
  EXPECT_EQ(100u, s.try_send_segments(bytes.first(800), 8, destination, ec));
  EXPECT_EQ(100u,
            s.async_send_segments(bytes.subspan(800), 8, destination, asio::use_future).get());
  expect_exactly(tx, 200);
}

TEST_F(shared_senders, a_payload_stays_the_callers_until_all_have_got_it) {
  transmitter tx(with_one());
  const auto s = tx.make_shared_sender();
  const std::vector<endpoint> many(5, to("10.77.1.2:9001"));
  udp_sink other(*b, to("10.77.1.2:9001"));
  auto leased = all_frames(s);
  payload what = std::move(leased.back());
  leased.resize(leased.size() - 3);  // Two are free then: one was moved from.
  std::ranges::copy(bytes_of("same"), what.bytes().begin());
  what.resize(4);
  std::error_code ec;
  hold_devices_up();
  const auto accepted = s.try_send(what, many, ec);
  EXPECT_EQ(2u, accepted);
  EXPECT_EQ(make_error_code(error::would_block), ec);
  ASSERT_TRUE(what);
  leased.clear();
  EXPECT_EQ(3u, s.try_send(what, std::span(many).subspan(accepted), ec));
  EXPECT_FALSE(ec);
  EXPECT_FALSE(what);
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(many.size(), tx.stats().submitted);
  for (std::uint64_t i = tx.stats().lost_in_device; i < many.size(); ++i) {
    const auto got = other.next();
    ASSERT_TRUE(got) << i << " " << summary(tx.stats());
    EXPECT_EQ("same", got->bytes);
  }
  EXPECT_EQ(frames_each, all_frames(s).size());
}

TEST_F(shared_senders, frames_are_waited_for_where_a_payload_is_at_home) {
  auto config = with_one();
  config.shared_producers = 2;
  config.frames_per_producer = 2 * frames_each;
  transmitter tx(config);
  const auto s = tx.make_shared_sender();
  std::vector<payload> theirs;
  std::size_t place = s.place();
  while (place == s.place())
    std::thread([&] {
      place = s.place();
      theirs = all_frames(s);
    }).join();
  ASSERT_EQ(frames_each, theirs.size());
  EXPECT_EQ(place, s.place(theirs.front()));
  EXPECT_EQ(s.place(), s.place(s.try_acquire()));
  EXPECT_EQ(s.place(), s.place(payload()));
  outcome<std::error_code, payload> acquired;
  s.async_acquire_at(place, acquired.handler());
  EXPECT_EQ(std::future_status::timeout, acquired.future.wait_for(0s));
  theirs.pop_back();
  const auto [ec, got] = acquired.future.get();
  EXPECT_FALSE(ec);
  EXPECT_EQ(place, s.place(got));
}

TEST_F(shared_senders, payloads_go_from_thread_to_thread) {
  transmitter tx(small());
  const auto s = tx.make_shared_sender();
  constexpr std::uint64_t count = 100;
  for (std::uint64_t i = 0; i < count; ++i) {
    payload p = s.try_acquire();
    ASSERT_TRUE(p);
    std::ranges::copy(bytes_in(i), p.bytes().begin());
    p.resize(sizeof i);
    std::thread([&, moved = std::move(p)]() mutable {
      std::error_code ec;
      s.send(std::move(moved), destination, ec);
      EXPECT_FALSE(ec);
      moved = s.try_acquire();  // Is dropped on yet another thread.
    }).join();
  }
  expect_exactly(tx, count);
}

TEST_F(shared_senders, every_form_and_default_tokens_are_taken) {
  using namespace std::literals;
  udp_sink texts(*b, to("10.77.1.2:9001"));
  const endpoint there = to("10.77.1.2:9001");
  transmitter tx(small());
  auto s = use_awaitable.as_default_on(tx.make_shared_sender());
  static_assert(std::is_copy_constructible_v<decltype(s)>);
  const std::string text = "same";
  const std::vector<endpoint> two{there, there};
  std::size_t sent = 0;
  const auto fill = [&](payload p) {
    std::ranges::copy(bytes_of(text), p.bytes().begin());
    p.resize(text.size());
    return p;
  };
  asio::io_context app{1};
  const auto send = [&]() -> awaitable<void> {
    sent += co_await s.async_send(fill(co_await s.async_acquire()), there);
    sent += co_await s.async_send(fill(co_await s.async_acquire()), two);
    sent += co_await s.async_send("same"sv, there);
    sent += co_await s.async_send(text, two);
    sent += co_await s.async_send(asio::buffer(text), there, use_awaitable);
  };
  co_spawn(app, send(), rethrow);
  app.run();
  EXPECT_TRUE(s.try_send("same"sv, there));
  std::error_code ec;
  s.try_send(text, there, ec);
  EXPECT_FALSE(ec);
  EXPECT_EQ(7u, sent);
  for (std::size_t i = 0; i < sent + 2; ++i) {
    const auto got = texts.next();
    ASSERT_TRUE(got) << i;
    EXPECT_EQ(text, got->bytes);
  }
}

TEST_F(shared_senders, await_frames_goes_on_at_once_or_waits_for_a_frame) {
  transmitter tx(with_one());
  const auto s = tx.make_shared_sender();
  const auto as_default = await_frames.as_default_on(s);
  const std::uint64_t numbers[] = {0, 1, 2, 3};
  asio::io_context app{1};
  std::vector<payload> held;
  std::vector<int> order;
  const auto send = [&]() -> awaitable<void> {
    asio::post(app, [&] { order.push_back(2); });
    co_await s.async_send(bytes_in(numbers[0]), destination, await_frames);
    co_await s.async_send(bytes_in(numbers[1]), destination, {.ecn = ecn_codepoint::ce},
                          await_frames);
    co_await as_default.async_send(bytes_in(numbers[2]), destination);
    held.push_back(co_await s.async_acquire(await_frames));
    order.push_back(1);
    EXPECT_TRUE(eventually([&] {
      std::ranges::move(all_frames(s), std::back_inserter(held));
      return held.size() == frames_each;
    }));
    asio::post(app, [&] {
      order.push_back(3);
      held.pop_back();
    });
    co_await s.async_send(bytes_in(numbers[3]), destination, await_frames);
    order.push_back(4);
  };
  co_spawn(app, send(), rethrow);
  app.run();
  EXPECT_EQ((std::vector<int>{1, 2, 3, 4}), order);
  expect_exactly(tx, 4);
}

TEST_F(shared_senders, operations_of_several_contexts_wait_and_are_cancelled) {
  constexpr std::uint64_t each = 200;
  transmitter tx(with_one());
  const auto s = tx.make_shared_sender();
  std::vector<std::uint64_t> numbers(3 * each);
  for (std::uint64_t i = 0; i < numbers.size(); ++i) numbers[i] = i;
  std::vector<asio::cancellation_signal> signals(numbers.size());
  std::vector<std::promise<std::pair<std::error_code, std::size_t>>> results(numbers.size());
  std::array<application, 3> apps;  // Their threads use all of these.
  auto leased = all_frames(s);
  const auto start = [&](std::uint64_t i) {
    s.async_send(bytes_in(numbers[i]), destination,
                 asio::bind_cancellation_slot(
                     signals[i].slot(),
                     asio::bind_executor(apps[i % 3].context.get_executor(),
                                         [&results, i](std::error_code ec, std::size_t count) {
                                           results[i].set_value({ec, count});
                                         })));
  };
  for (std::uint64_t i = 0; i < numbers.size(); ++i)
    asio::post(apps[i % 3].context, [&, i] { start(i); });
  // Every other one is cancelled where it was begun, while frames come back and others are served.
  for (std::uint64_t i = 0; i < numbers.size(); i += 2)
    asio::post(apps[i % 3].context, [&, i] { signals[i].emit(asio::cancellation_type::total); });
  leased.clear();
  std::uint64_t sent = 0;
  std::vector<bool> was_sent(numbers.size());
  for (std::uint64_t i = 0; i < numbers.size(); ++i) {
    const auto [ec, count] = results[i].get_future().get();
    EXPECT_EQ(ec ? 0u : 1u, count) << i;
    EXPECT_TRUE(!ec || (ec == asio::error::operation_aborted && i % 2 == 0)) << i << ec.message();
    was_sent[i] = !ec;
    sent += count;
  }
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(sent, tx.stats().submitted);
  EXPECT_TRUE(eventually([&] { return sink->arrived() == sent; }));
  sink->stop();
  EXPECT_EQ(0u, sink->duplicates());
  for (std::uint64_t i = 0; i < numbers.size(); ++i) EXPECT_EQ(was_sent[i], sink->times(i) != 0);
}

TEST_F(shared_senders, a_context_that_goes_takes_its_waiters_along_and_no_others) {
  transmitter tx(with_one());
  const auto s = tx.make_shared_sender();
  auto leased = all_frames(s);
  const std::uint64_t number = 0;
  bool called = false;
  outcome<std::error_code, std::size_t> second;
  {
    asio::io_context gone{1};
    const std::vector<endpoint> many(frames_each, destination);
    const auto wait = [&, copy = s]() -> awaitable<void> {
      std::uint64_t on_its_frame = 7;
      static_cast<void>(co_await copy.async_send(bytes_in(on_its_frame), many, use_awaitable));
      called = true;
    };
    co_spawn(gone, wait(), detached);
    gone.poll();
    s.async_send(bytes_in(number), destination, second.handler());
  }
  leased.clear();
  EXPECT_EQ((std::tuple{std::error_code(), std::size_t{1}}), second.future.get());
  EXPECT_FALSE(called);
  expect_exactly(tx, 1);
}

TEST_F(shared_senders, contexts_go_while_others_are_served) {
  transmitter tx(with_one());
  const auto s = tx.make_shared_sender();
  const auto held = std::make_shared<int>();
  std::atomic<bool> done{false};
  std::thread hammer([&] {
    while (!done)
      if (!s.try_send(bytes_of("x"), destination)) std::this_thread::yield();
  });
  for (int round = 0; round < 200; ++round) {
    asio::io_context short_lived{1};
    for (int i = 0; i < 100; ++i)
      co_spawn(
          short_lived,
          [&, copy = s, mine = held]() -> awaitable<void> {
            const std::string its_own(100, 'y');
            const std::vector<endpoint> many(20, destination);
            static_cast<void>(co_await copy.async_send(its_own, many, use_awaitable));
          },
          detached);
    short_lived.poll();
  }
  done = true;
  hammer.join();
  EXPECT_TRUE(drained(tx)) << summary(tx.stats());
  EXPECT_EQ(frames_each, all_frames(s).size());
  EXPECT_EQ(1, held.use_count());  // Each was called, or destroyed with its context.
}

TEST_F(shared_senders, stopping_completes_what_waits_and_refuses_the_rest) {
  auto tx = std::make_unique<transmitter>(with_one());
  auto s = tx->make_shared_sender();
  auto leased = all_frames(s);
  std::error_code ec;
  EXPECT_FALSE(s.try_acquire(ec));
  EXPECT_EQ(make_error_code(error::would_block), ec);
  leased.pop_back();
  EXPECT_TRUE(s.try_acquire(ec));
  EXPECT_FALSE(ec);
  leased.push_back(s.try_acquire());
  outcome<std::error_code, payload> acquired;
  outcome<std::error_code, std::size_t> sent;
  outcome<std::error_code, send_error> failed;
  s.async_acquire(acquired.handler());
  s.async_send(bytes_of("x"), destination, sent.handler());
  s.async_next_error(failed.handler());
  tx->stop();
  EXPECT_EQ(make_error_code(error::closed), std::get<0>(acquired.future.get()));
  EXPECT_EQ(make_error_code(error::closed), std::get<0>(sent.future.get()));
  EXPECT_EQ(make_error_code(error::closed), std::get<0>(failed.future.get()));
  tx.reset();
  s.try_send(bytes_of("x"), destination, ec);
  EXPECT_EQ(make_error_code(error::closed), ec);
  EXPECT_FALSE(s.try_acquire(ec));
  EXPECT_EQ(make_error_code(error::closed), ec);
  s.send(std::move(leased.back()), destination, ec);
  EXPECT_EQ(make_error_code(error::closed), ec);
  s = {};
  leased.clear();  // What is behind them lives as long as the last frame.
}

TEST_F(shared_senders, stopping_while_many_threads_send_hangs_and_loses_nothing) {
  transmitter tx(small());
  const auto s = tx.make_shared_sender();
  std::atomic<std::uint64_t> next{0}, sent{0};
  std::vector<std::thread> all;
  for (int t = 0; t < 16; ++t)
    all.emplace_back([&] {
      for (std::error_code ec; ec != error::closed;) {
        const std::uint64_t number = next++;
        do s.try_send(bytes_in(number), destination, ec);
        while (ec == error::would_block);
        if (!ec) ++sent;
      }
    });
  EXPECT_TRUE(eventually([&] { return sent > 2000; }));
  tx.stop();
  for (auto& one : all) one.join();
  EXPECT_EQ(sent, tx.stats().submitted);
  EXPECT_TRUE(eventually([&] { return sink->arrived() + tx.stats().on_the_way() >= sent; }));
}

TEST_F(shared_senders, handles_come_and_go_on_all_threads) {
  transmitter tx(small());
  std::vector<std::thread> all;
  std::atomic<std::uint64_t> next{0};
  for (int t = 0; t < 8; ++t)
    all.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        // The last one gives the producers back, which the next one wants at once.
        const auto s = tx.make_shared_sender();
        const std::uint64_t number = next++;
        while (!s.try_send(bytes_in(number), destination)) std::this_thread::yield();
      }
    });
  for (auto& one : all) one.join();
  expect_exactly(tx, next);
}

TEST_F(shared_senders, an_error_is_told_once) {
  transmitter tx(small());
  const auto s = tx.make_shared_sender();
  outcome<std::error_code, send_error> first, second;
  EXPECT_TRUE(s.try_send(bytes_of("x"), to("10.77.1.2:7")));  // Nobody listens there.
  s.async_next_error(first.handler());
  const auto from_network = std::get<1>(first.future.get());
  EXPECT_EQ(send_error::origin::network, from_network.from);
  EXPECT_EQ(std::errc::connection_refused, from_network.code);
  EXPECT_TRUE(s.try_send(bytes_of("x"), to("203.0.113.1:7")));  // There is no route.
  s.async_next_error(second.handler());
  const auto local = std::get<1>(second.future.get());
  EXPECT_EQ(send_error::origin::local, local.from);
  EXPECT_EQ(std::errc::network_unreachable, local.code);
}

TEST_F(shared_senders, senders_that_shed_keep_the_newest) {
  auto config = small();
  config.shared_producers = 1;
  log_gate gate;
  config.log = gate.log();
  transmitter tx(config);
  const auto s = tx.make_shared_sender({.when_full = full_policy::shed_oldest});
  gate.close();
  hold_devices_up();
  std::uint64_t number = 0;
  for (; number < 4 * config.frames_per_producer; ++number)
    EXPECT_TRUE(s.try_send(bytes_in(number), destination)) << summary(tx.stats());
  EXPECT_EQ(3 * config.frames_per_producer, tx.stats().shed) << summary(tx.stats());
  gate.open();
  EXPECT_TRUE(drained(tx)) << summary(tx.stats());
  const auto stats = tx.stats();
  EXPECT_TRUE(eventually([&] {
    return sink->arrived() == number - stats.shed - stats.lost_in_device;
  })) << summary(stats);
}

TEST_F(shared_senders, refuses_what_cannot_be_with_a_clear_error) {
  auto config = small();
  config.shared_producers = 0;
  transmitter none(config);
  std::error_code ec;
  static_cast<void>(none.make_shared_sender({}, ec));
  EXPECT_EQ(make_error_code(error::no_producer), ec);
  transmitter tx(small());
  static_cast<void>(tx.make_shared_sender({.via = tx.make_producer()}, ec));
  EXPECT_EQ(make_error_code(error::invalid_argument), ec);
  const auto s = tx.make_shared_sender();
  s.try_send(bytes_of(std::string(s.payload_capacity() + 1, 'x')), destination, ec);
  EXPECT_EQ(make_error_code(error::too_long), ec);
  EXPECT_EQ(0u, s.try_send(bytes_of("x"), std::span<const endpoint>(), ec));
  EXPECT_EQ(make_error_code(error::no_destination), ec);
}

TEST_F(shared_senders, a_child_is_refused_whoever_held_the_lock) {
  transmitter tx(with_one());
  const auto s = tx.make_shared_sender();
  std::atomic<bool> done{false};
  std::thread hammer([&] {
    while (!done) static_cast<void>(s.try_send(bytes_of("parent"), destination));
  });
  for (int i = 0; i < 20; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(60);  // A hang is a failure.
      std::error_code ec;
      s.try_send(bytes_of("child"), destination, ec);
      bool refused = ec == error::forked && !s.try_acquire();
      ec.clear();
      refused = refused && !s.try_acquire(ec) && ec == error::forked;
      { const auto copy = s; }
      ::_exit(refused ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(child, ::waitpid(child, &status, 0));
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(0, WEXITSTATUS(status));
  }
  done = true;
  hammer.join();
  EXPECT_TRUE(drained(tx));
}

}  // namespace
}  // namespace cowire::test

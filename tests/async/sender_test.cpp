// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/await_frames.hpp>
#include <cowire/ring/endpoint.hpp>

#include <tests/support/two_hosts.hpp>

#include <asio/buffer.hpp>
#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>

#include <netinet/udp.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

namespace cowire::test {
namespace {

using namespace awaitable_operators;
using namespace std::literals;

/// Host B answers for all of 10.78.0.0/16.
class sender_operations : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (IsSkipped()) return;
    (*b)("ip route add local 10.78.0.0/16 dev lo");
    (*a)("ip route add 10.78.0.0/16 via 10.77.1.2");
    sink = std::make_unique<udp_sink>(*b, to("0.0.0.0:9000"));
    resolve("10.77.1.2");
  }
  void TearDown() override {
    sink.reset();
    two_hosts::TearDown();
  }
  static endpoint host(unsigned n) { return {ip_address::v4(0x0a4e0000 + n), 9000}; }

  asio::io_context app{1};
  std::unique_ptr<udp_sink> sink;
};

awaitable<void> send_some(sender& s, std::vector<endpoint> destinations, int rounds,
                          std::size_t& total) {
  const auto text = std::string(200, 'x');
  for (int i = 0; i < rounds; ++i) {
    for (const endpoint& destination : destinations)
      total += co_await s.async_send(bytes_of(text), destination, use_awaitable);
  }
}

TEST_F(sender_operations, a_thousand_coroutines_reach_five_thousand_destinations) {
  constexpr unsigned senders = 1000, destinations = 5000, rounds = 3;
  transmitter tx(small());
  std::vector<sender> all;
  std::size_t total = 0;
  for (unsigned i = 0; i < senders; ++i) all.push_back(tx.make_sender());
  for (unsigned i = 0; i < senders; ++i) {
    std::vector<endpoint> mine;
    for (unsigned d = i; d < destinations; d += senders) mine.push_back(host(d + 1));
    co_spawn(app, send_some(all[i], mine, rounds, total), rethrow);
  }
  app.run();
  EXPECT_TRUE(drained(tx));
  const auto stats = tx.stats();
  EXPECT_EQ(destinations * rounds, total);
  EXPECT_EQ(total, stats.submitted);
  EXPECT_EQ(total, stats.transmitted_total() + stats.kernel_path) << summary(stats);
  EXPECT_EQ(total, sink->drain()) << summary(stats);
}

TEST_F(sender_operations, a_payload_goes_to_many_destinations_in_order) {
  transmitter tx(small());
  auto s = tx.make_sender();
  std::vector<endpoint> many;
  for (unsigned i = 0; i < 3000; ++i) many.push_back(host(i + 1));
  std::size_t sent = 0;
  const auto send = [&]() -> awaitable<void> {
    payload p = co_await s.async_acquire(use_awaitable);
    std::ranges::copy(bytes_of("fan-out"), p.bytes().begin());
    p.resize(7);
    sent = co_await s.async_send(std::move(p), many, use_awaitable);
    co_await s.async_flush(use_awaitable);
    EXPECT_EQ(0u, tx.stats().on_the_way());
  };
  co_spawn(app, send(), detached);
  app.run();
  EXPECT_EQ(3000u, sent);
  for (unsigned i = 0; i < 3000; ++i) {
    const auto got = sink->next();
    ASSERT_TRUE(got) << i;
    ASSERT_EQ("fan-out", got->bytes);
  }
}

// A later flush may find what the earlier one waits for before the control thread does.
TEST_F(sender_operations, every_flush_ends_whoever_collects_its_frames) {
  transmitter tx(small());
  auto s = tx.make_sender();
  int asked = 0, ended = 0;
  for (int round = 0; round < 500; ++round) {
    std::error_code ec;
    s.try_send(bytes_of("x"), host(1), ec);
    ASSERT_FALSE(ec) << ec.message();
    do {
      ++asked;
      s.async_flush(asio::bind_executor(app, [&](std::error_code) { ++ended; }));
    } while (tx.stats().on_the_way() != 0);
    app.restart();
    app.run_for(patience);
    ASSERT_EQ(asked, ended) << "round " << round;
  }
}

TEST_F(sender_operations, acquiring_waits_for_a_frame_and_serves_in_order) {
  transmitter tx(small());
  auto s = tx.make_sender();
  std::vector<payload> held;
  while (payload p = s.try_acquire()) held.push_back(std::move(p));
  EXPECT_EQ(1024u, held.size());
  std::error_code ec;
  s.try_send(bytes_of("x"), host(1), ec);
  EXPECT_EQ(make_error_code(error::would_block), ec);
  std::vector<int> order;
  const auto acquire = [&](int number) -> awaitable<void> {
    const payload p = co_await s.async_acquire(use_awaitable);
    order.push_back(number);
  };
  for (int i = 0; i < 3; ++i) co_spawn(app, acquire(i), detached);
  const auto release = [&]() -> awaitable<void> {
    asio::steady_timer timer(app, 20ms);
    co_await timer.async_wait(use_awaitable);
    EXPECT_TRUE(order.empty());
    s.send(std::move(held.back()), host(1), ec);  // Comes back over the wire ...
    EXPECT_FALSE(ec);
    held.pop_back();
    timer.expires_after(50ms);
    co_await timer.async_wait(use_awaitable);
    held.pop_back();  // ... or is dropped.
  };
  co_spawn(app, release(), detached);
  app.run();
  EXPECT_EQ((std::vector<int>{0, 1, 2}), order);
}

TEST_F(sender_operations, await_frames_goes_on_at_once_or_waits_for_a_frame) {
  transmitter tx(small());
  auto s = tx.make_sender();
  std::vector<payload> held;
  std::vector<int> order;
  std::size_t sent = 0;
  const auto send = [&]() -> awaitable<void> {
    asio::post(app, [&] { order.push_back(2); });
    sent += co_await s.async_send("x"sv, host(1), await_frames);
    sent += co_await s.async_send("x"sv, host(1), {.ecn = ecn_codepoint::ect_0}, await_frames);
    held.push_back(co_await s.async_acquire(await_frames));
    order.push_back(1);
    co_await s.async_flush(await_frames);
    while (payload p = s.try_acquire()) held.push_back(std::move(p));
    asio::post(app, [&] {
      order.push_back(3);
      held.pop_back();
    });
    sent += co_await s.async_send("x"sv, host(1), await_frames);
    order.push_back(4);
  };
  co_spawn(app, send(), rethrow);
  app.run();
  EXPECT_EQ(3u, sent);
  EXPECT_EQ((std::vector<int>{1, 2, 3, 4}), order);
}

TEST_F(sender_operations, await_frames_fails_as_use_awaitable_does) {
  transmitter tx(small());
  auto s = await_frames.as_default_on(tx.make_sender());
  const std::vector<std::byte> long_one(s.payload_capacity() + 1);
  std::vector<std::error_code> failed;
  const auto send = [&]() -> awaitable<void> {
    EXPECT_EQ(1u, co_await s.async_send("x"sv, host(1)));
    EXPECT_TRUE(co_await s.async_acquire());
    for (int i = 0; i < 2; ++i) {
      try {
        co_await s.async_send(long_one, host(1));
      } catch (const std::system_error& e) {
        failed.push_back(e.code());
      }
      tx.stop();
    }
  };
  co_spawn(app, send(), rethrow);
  app.run();
  EXPECT_EQ((std::vector<std::error_code>{error::too_long, error::closed}), failed);
}

TEST_F(sender_operations, a_waiting_acquire_can_be_cancelled) {
  transmitter tx(small());
  auto s = tx.make_sender();
  std::vector<payload> held;
  while (payload p = s.try_acquire()) held.push_back(std::move(p));
  std::size_t winner = 9;
  const auto wait = [&]() -> awaitable<void> {
    asio::steady_timer timer(app, 20ms);
    const auto result = co_await (s.async_acquire(as_tuple(use_awaitable)) ||
                                  timer.async_wait(as_tuple(use_awaitable)));
    winner = result.index();
  };
  co_spawn(app, wait(), detached);
  app.run();
  EXPECT_EQ(1u, winner);
  held.clear();
  EXPECT_TRUE(s.try_acquire());
}

TEST_F(sender_operations, a_fan_out_larger_than_the_pool_is_sent_as_frames_come_back) {
  transmitter tx(small());
  auto s = tx.make_sender();
  std::vector<endpoint> many(5000, host(1));
  outcome<std::error_code, std::size_t> sent;
  s.async_send(bytes_of("many"), many, sent.handler());
  EXPECT_EQ(5000u, std::get<1>(sent.future.get()));
  EXPECT_EQ(5000u, sink->drain());
}

/// What arrives, in order.
std::vector<std::string> next_of(udp_sink& sink, std::size_t count) {
  std::vector<std::string> out;
  while (out.size() < count) {
    const auto got = sink.next();
    if (!got) break;
    out.push_back(got->bytes);
  }
  return out;
}

std::string text_of(std::size_t length) {
  std::string out(length, ' ');
  for (std::size_t i = 0; i < length; ++i) out[i] = static_cast<char>('a' + (i * 7 + i / 26) % 26);
  return out;
}

// The sum of what is alike is taken with the first copy. A wrong one would not arrive.
TEST_F(sender_operations, copies_of_one_content_arrive_whole_whatever_its_length) {
  transmitter tx(small());
  auto s = tx.make_sender();
  const std::vector<endpoint> many(300, host(1));  // More than there are frames.
  for (const std::size_t length : {1u, 63u, 255u, 1231u}) {
    const std::string text = text_of(length);
    outcome<std::error_code, std::size_t> one, all;
    s.async_send(bytes_of(text), host(1), one.handler());
    EXPECT_EQ(1u, std::get<1>(one.future.get()));
    s.async_send(bytes_of(text), many, all.handler());
    EXPECT_EQ(many.size(), std::get<1>(all.future.get()));
    EXPECT_EQ(std::vector(many.size() + 1, text), next_of(*sink, many.size() + 1)) << length;
  }
}

TEST_F(sender_operations, a_batch_is_what_its_messages_say) {
  transmitter tx(small());
  auto s = use_awaitable.as_default_on(tx.make_sender());
  std::vector<std::string> texts;
  std::vector<message> messages;
  for (unsigned i = 0; i < 3000; ++i) texts.push_back(text_of(i % 1200) + std::to_string(i));
  for (unsigned i = 0; i < 3000; ++i) messages.push_back({texts[i], host(i % 7 + 1)});
  std::error_code ec;
  const std::span<const message> all(messages);
  EXPECT_EQ(100u, s.try_send_batch(all.first(100), ec));
  EXPECT_FALSE(ec) << ec.message();
  EXPECT_EQ(0u, s.try_send_batch({}, ec));
  EXPECT_FALSE(ec) << ec.message();
  std::size_t sent = 0;
  const auto send = [&]() -> awaitable<void> {
    sent = co_await s.async_send_batch(all.subspan(100));  // More than there are frames.
    EXPECT_EQ(0u, co_await s.async_send_batch({}));
  };
  co_spawn(app, send(), detached);
  app.run();
  EXPECT_EQ(2900u, sent);
  EXPECT_EQ(texts, next_of(*sink, 3000)) << summary(tx.stats());
  EXPECT_EQ(3000u, tx.stats().submitted);
}

TEST_F(sender_operations, a_batch_goes_on_where_frames_ran_out) {
  transmitter tx(small());
  auto s = tx.make_sender();
  std::vector<std::string> texts;
  for (unsigned i = 0; i < 5000; ++i) texts.push_back(std::to_string(i));
  std::vector<message> messages;
  for (const std::string& text : texts) messages.push_back({text, host(1)});
  std::vector<payload> held;
  while (payload p = s.try_acquire()) held.push_back(std::move(p));
  std::error_code ec;
  std::span<const message> rest(messages);
  EXPECT_EQ(0u, s.try_send_batch(rest, ec));
  EXPECT_EQ(make_error_code(error::would_block), ec);
  held.resize(held.size() - 10);
  EXPECT_TRUE(eventually([&] {
    const std::size_t sent = s.try_send_batch(rest, ec);  // Ten, unless some are back already.
    rest = rest.subspan(sent);
    return sent >= 10;
  }));
  EXPECT_EQ(!rest.empty(), ec == error::would_block) << ec.message();
  held.clear();
  EXPECT_TRUE(eventually([&] {
    rest = rest.subspan(s.try_send_batch(rest, ec));
    return rest.empty();
  }));
  EXPECT_EQ(texts, next_of(*sink, 5000)) << summary(tx.stats());
}

TEST_F(sender_operations, a_batch_ends_before_what_cannot_be_sent) {
  transmitter tx(small());
  auto s = tx.make_sender({.source_v4 = ip_address::parse("10.77.1.1")});
  const std::string longer(s.payload_capacity() + 1, 'x');
  const std::vector<message> with_longer{
      {"a"sv, host(1)}, {"b"sv, host(2)}, {longer, host(1)}, {"c"sv, host(1)}};
  std::error_code ec;
  EXPECT_EQ(2u, s.try_send_batch(with_longer, ec));
  EXPECT_EQ(make_error_code(error::too_long), ec);
  outcome<std::error_code, std::size_t> sent;
  s.async_send_batch(with_longer, sent.handler());
  EXPECT_EQ(std::tuple(make_error_code(error::too_long), std::size_t{2}), sent.future.get());
  EXPECT_EQ(0u, s.try_send_batch(std::span(with_longer).subspan(2), ec));
  EXPECT_EQ(make_error_code(error::too_long), ec);
  EXPECT_EQ((std::vector<std::string>{"a", "b", "a", "b"}), next_of(*sink, 4));
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(4u, tx.stats().submitted);
}

/// As the kernel cuts what UDP_SEGMENT asks it to.
TEST_F(sender_operations, segments_are_those_of_a_socket) {
  transmitter tx(small());
  auto s = tx.make_sender();
  const unique_fd plain(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const raw_address there(host(1));
  struct cut {
    std::size_t length;
    int size;
  };
  for (const auto& [length, size] :
       {cut{10'000, 1200}, cut{9600, 1200}, cut{1201, 1200}, cut{1200, 1200}, cut{300, 1200},
        cut{0, 1200}, cut{64, 1}, cut{700, 0}, cut{0, 0}}) {
    SCOPED_TRACE(std::to_string(length) + " by " + std::to_string(size));
    const std::string text = text_of(length);
    ASSERT_EQ(0, ::setsockopt(plain.get(), SOL_UDP, UDP_SEGMENT, &size, sizeof size));
    ASSERT_EQ(static_cast<ssize_t>(length),
              ::sendto(plain.get(), text.data(), length, 0, there.name(), there.size));
    std::vector<std::string> kernel;
    do kernel.push_back(sink->next().value_or(udp_sink::received{}).bytes);
    while (kernel.size() * static_cast<std::size_t>(size) < length && size != 0);
    std::error_code ec;
    EXPECT_EQ(kernel.size(),
              s.try_send_segments(text, static_cast<std::size_t>(size), host(1), ec));
    EXPECT_FALSE(ec) << ec.message();
    EXPECT_EQ(kernel, next_of(*sink, kernel.size()));
    outcome<std::error_code, std::size_t> sent;
    s.async_send_segments(text, static_cast<std::size_t>(size), host(1), sent.handler());
    EXPECT_EQ(std::tuple(std::error_code(), kernel.size()), sent.future.get());
    EXPECT_EQ(kernel, next_of(*sink, kernel.size()));
  }
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(0u, sink->drain());
  std::error_code ec;
  const std::string longer(2 * s.payload_capacity() + 2, 'x');
  EXPECT_EQ(0u, s.try_send_segments(longer, s.payload_capacity() + 1, host(1), ec));
  EXPECT_EQ(make_error_code(error::too_long), ec);
}

TEST_F(sender_operations, refuses_what_cannot_be_sent_with_a_clear_error) {
  transmitter tx(small());
  auto s = tx.make_sender();
  std::error_code ec;
  const std::string long_text(s.payload_capacity() + 1, 'x');
  s.try_send(bytes_of(long_text), host(1), ec);
  EXPECT_EQ(make_error_code(error::too_long), ec);
  outcome<std::error_code, std::size_t> none;
  s.async_send(bytes_of("x"), std::span<const endpoint>(), none.handler());
  EXPECT_EQ(make_error_code(error::no_destination), std::get<0>(none.future.get()));
}

TEST_F(sender_operations, stopping_completes_what_waits) {
  transmitter tx(small());
  auto s = tx.make_sender();
  std::vector<payload> held;
  while (payload p = s.try_acquire()) held.push_back(std::move(p));
  outcome<std::error_code, payload> acquired;
  outcome<std::error_code, send_error> failed;
  s.async_acquire(acquired.handler());
  s.async_next_error(failed.handler());
  tx.stop();
  EXPECT_EQ(make_error_code(error::closed), std::get<0>(acquired.future.get()));
  EXPECT_EQ(make_error_code(error::closed), std::get<0>(failed.future.get()));
}

TEST_F(sender_operations, default_tokens_and_every_form_of_bytes_are_taken) {
  using namespace std::literals;
  transmitter tx(small());
  auto s = use_awaitable.as_default_on(tx.make_sender());
  static_assert(std::is_same_v<decltype(s), asio::use_awaitable_t<>::as_default_on_t<sender>>);
  const std::string text = "same";
  std::size_t sent = 0;
  const auto send = [&]() -> awaitable<void> {
    payload p = co_await s.async_acquire();
    std::ranges::copy(bytes_of(text), p.bytes().begin());
    p.resize(text.size());
    sent += co_await s.async_send(std::move(p), host(1));
    sent += co_await s.async_send("same"sv, host(1));
    sent += co_await s.async_send(text, host(1));
    sent += co_await s.async_send(asio::buffer(text), host(1));
    sent += co_await s.async_send(bytes_of(text), to_endpoint(to_asio(host(1))));
    const std::vector<endpoint> several{host(1), host(2)};
    sent += co_await s.async_send("same"sv, several);
    sent += co_await s.async_send("same"sv, several, use_awaitable);
    co_await s.async_flush();
  };
  co_spawn(app, send(), rethrow);
  app.run();
  EXPECT_EQ(9u, sent);
  EXPECT_TRUE(s.try_send("same"sv, host(1)));
  for (int i = 0; i < 10; ++i) {
    const auto got = sink->next();
    ASSERT_TRUE(got) << i;
    EXPECT_EQ(text, got->bytes);
  }
}

TEST_F(sender_operations, producers_that_are_all_lent_are_an_error_of_their_own) {
  transmitter tx(small());
  std::vector<producer> all;
  for (int i = 0; i < 4; ++i) all.push_back(tx.make_producer());
  try {
    static_cast<void>(tx.make_producer());
    FAIL();
  } catch (const std::system_error& refused) {
    EXPECT_EQ(make_error_code(error::no_producer), refused.code());
    EXPECT_NE(std::string::npos, std::string(refused.what()).find("max_producers"));
  }
}

TEST_F(sender_operations, explicit_producers_serve_several_threads) {
  auto config = small();
  config.max_producers = 3;
  transmitter tx(config);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      auto s = tx.make_sender({.via = tx.make_producer()});
      for (int i = 0; i < 2000; ++i)
        while (!s.try_send(bytes_of("x"), host(1))) std::this_thread::yield();
    });
  for (auto& t : threads) t.join();
  EXPECT_TRUE(drained(tx));
  EXPECT_EQ(6000u, tx.stats().submitted);
  EXPECT_EQ(6000u, sink->drain()) << summary(tx.stats());
  // The producers are back: three more threads find room, a fourth producer does not.
  std::vector<producer> again;
  for (int i = 0; i < 3; ++i) again.push_back(tx.make_producer());
  EXPECT_THROW(static_cast<void>(tx.make_producer()), std::system_error);
}

}  // namespace
}  // namespace cowire::test

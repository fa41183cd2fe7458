// SPDX-License-Identifier: Apache-2.0
// What goes before what: contexts before those that their handlers wait for, and a transmitter on
// its own control thread.
#include <cowire/follow/route_events.hpp>

#include <tests/support/two_hosts.hpp>

#include <asio/io_context.hpp>
#if ASIO_VERSION >= 103000
#include <asio/any_completion_handler.hpp>
#endif

#include <fstream>
#include <optional>

namespace cowire::test {
namespace {

/// Threads of this process that are ours.
unsigned own_threads() {
  unsigned count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::ifstream(task.path() / "comm") >> name;
    if (name.starts_with("cowire-")) ++count;
  }
  return count;
}

/// Counts what is destroyed: a coroutine's frame, say.
struct counted {
  explicit counted(int& of) : count(&of) {}
  counted(counted&& other) noexcept : count(std::exchange(other.count, nullptr)) {}
  counted& operator=(counted&&) = delete;
  ~counted() {
    if (count) ++*count;
  }
  int* count;
};

template <class Context>
class lifetime : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (!IsSkipped()) resolve("10.77.1.2");
  }
  static std::vector<payload> all_of(sender& s) {
    std::vector<payload> out;
    while (payload one = s.try_acquire()) out.push_back(std::move(one));
    return out;
  }
  static void run_some(asio::io_context& context) { context.run_for(20ms); }
  static void run_some(ring_context& context) {
    context.restart();
    asio::post(context, [&context] { asio::post(context, [&context] { context.stop(); }); });
    context.run();
    context.restart();
  }
  const endpoint destination = to("10.77.1.2:9000");
};

using contexts = ::testing::Types<asio::io_context, ring_context>;
TYPED_TEST_SUITE(lifetime, contexts);

TYPED_TEST(lifetime, a_context_may_go_before_what_its_coroutines_wait_for) {
  int destroyed = 0;
  const auto wait = [&](auto operation) -> awaitable<void> {
    const counted frame(destroyed);
    co_await operation();
  };
  {
    transmitter tx(this->small());
    auto s = tx.make_sender();
    auto changes = tx.watch_routes();
    auto held = this->all_of(s);
    TypeParam application;
    co_spawn(application,
             wait([&]() -> awaitable<void> { co_await s.async_next_error(use_awaitable); }),
             detached);
    co_spawn(application,
             wait([&]() -> awaitable<void> { co_await changes.async_next(use_awaitable); }),
             detached);
    auto ways = s.watch_path(this->destination);
    co_spawn(application, wait([&]() -> awaitable<void> {
               for (;;) co_await ways.async_next(use_awaitable);
             }),
             detached);
    co_spawn(asio::make_strand(application), wait([&]() -> awaitable<void> {
               co_await s.async_resolve(to("10.77.1.77:9000"), use_awaitable);
             }),
             detached);
    co_spawn(asio::make_strand(application),
             wait([&]() -> awaitable<void> { co_await s.async_acquire(use_awaitable); }), detached);
    co_spawn(application, wait([&]() -> awaitable<void> {
               co_await s.async_send(bytes_of("x"), this->destination, use_awaitable);
             }),
             detached);
    this->run_some(application);
    EXPECT_EQ(0, destroyed);
  }
  EXPECT_EQ(6, destroyed);
  EXPECT_EQ(0u, own_threads());
}

TYPED_TEST(lifetime, a_dead_context_makes_room_for_the_next_reader) {
  transmitter tx(this->small());
  auto s = tx.make_sender();
  int destroyed = 0, called = 0;
  {
    TypeParam first;
    s.async_next_error(asio::bind_executor(
        first, [&, frame = counted(destroyed)](std::error_code, const send_error&) { ++called; }));
  }
  EXPECT_EQ(1, destroyed);
  TypeParam second;
  std::error_code answer;
  s.async_next_error(asio::bind_executor(
      second, [&](std::error_code ec, const send_error&) { ++called, answer = ec; }));
  s = sender();
  second.run();
  EXPECT_EQ(1, called);
  EXPECT_EQ(make_error_code(error::closed), answer);
}

TYPED_TEST(lifetime, a_dead_context_does_not_jam_its_producer) {
  transmitter tx(this->small());
  auto s = tx.make_sender();
  auto held = this->all_of(s);
  {
    TypeParam application;
    s.async_acquire(asio::bind_executor(application, [](std::error_code, payload) { FAIL(); }));
    s.async_send(bytes_of("x"), this->destination,
                 asio::bind_executor(application, [](std::error_code, std::size_t) { FAIL(); }));
    EXPECT_FALSE(s.try_send(bytes_of("x"), this->destination));
  }
  held.clear();
  EXPECT_TRUE(s.try_send(bytes_of("x"), this->destination));
  EXPECT_TRUE(this->drained(tx));
  EXPECT_EQ(1u, tx.stats().submitted);
}

TYPED_TEST(lifetime, the_next_in_line_is_served_whose_context_lives) {
  for (const bool woken : {false, true}) {
    transmitter tx(this->small());
    auto s = tx.make_sender();
    auto held = this->all_of(s);
    auto first = std::make_unique<TypeParam>();
    asio::io_context second{1};
    s.async_acquire(asio::bind_executor(*first, [](std::error_code, payload) { FAIL(); }));
    bool served = false;
    s.async_acquire(
        asio::bind_executor(second, [&](std::error_code ec, payload p) { served = !ec && p; }));
    // Before or after the first context was asked to serve, which nobody runs.
    if (woken) held.pop_back();
    first.reset();
    if (!woken) held.pop_back();
    second.run_for(patience);
    EXPECT_TRUE(served) << woken;
  }
}

TYPED_TEST(lifetime, a_flush_goes_with_its_context) {
  transmitter tx(this->small());
  auto s = tx.make_sender();
  hold_devices_up();
  ASSERT_TRUE(s.try_send(bytes_of("x"), this->destination));
  int destroyed = 0;
  {
    TypeParam application;
    s.async_flush(
        asio::bind_executor(application, [frame = counted(destroyed)](std::error_code) {}));
  }
  EXPECT_EQ(1, destroyed);
  asio::io_context other{1};
  bool flushed = false;
  s.async_flush(asio::bind_executor(other, [&](std::error_code ec) { flushed = !ec; }));
  other.run_for(patience);
  EXPECT_TRUE(flushed);
}

TYPED_TEST(lifetime, a_producer_is_lent_again_after_its_waiters_context_went) {
  auto config = this->small();
  config.max_producers = 1;
  transmitter tx(config);
  {
    auto s = tx.make_sender({.via = tx.make_producer()});
    auto held = this->all_of(s);
    TypeParam application;
    s.async_acquire(asio::bind_executor(application, [](std::error_code, payload) { FAIL(); }));
  }
  EXPECT_NO_THROW(static_cast<void>(tx.make_producer()));
}

// The control thread closes and completes while a context goes.
TYPED_TEST(lifetime, contexts_go_while_the_control_thread_completes) {
  for (int round = 0; round < 30; ++round) {
    auto tx = std::make_unique<transmitter>(this->small());
    auto s = tx->make_sender();
    auto held = this->all_of(s);
    auto application = std::make_unique<TypeParam>();
    int destroyed = 0;
    s.async_next_error(asio::bind_executor(
        *application, [frame = counted(destroyed)](std::error_code, const send_error&) {}));
    s.async_acquire(asio::bind_executor(
        *application, [frame = counted(destroyed)](std::error_code, const payload&) {}));
    std::thread stopping([&] { tx->stop(); });
    application.reset();
    stopping.join();
    EXPECT_EQ(2, destroyed) << round;
  }
}

using control_thread = lifetime<asio::io_context>;

TEST_F(control_thread, stop_may_be_called_in_its_handlers) {
  transmitter tx(small());
  auto s = tx.make_sender();
  ASSERT_TRUE(s.try_send(bytes_of("x"), destination));
  outcome<std::error_code> flushed, refused;
  s.async_flush([&, done = flushed.handler()](std::error_code ec) {
    tx.stop();
    tx.stop();
    done(ec);
  });
  EXPECT_EQ(std::error_code(), std::get<0>(flushed.future.get()));
  tx.stop();  // Waits for all but the end of the thread that did it.
  EXPECT_TRUE(eventually([] { return own_threads() == 0; }));
  EXPECT_EQ(0u, tx.stats().on_the_way()) << summary(tx.stats());
  std::error_code ec;
  s.try_send(bytes_of("x"), destination, ec);
  EXPECT_EQ(make_error_code(error::closed), ec);
}

TEST_F(control_thread, a_transmitter_may_end_in_its_handlers) {
  auto tx = std::make_unique<transmitter>(small());
  auto s = tx->make_sender();
  ASSERT_TRUE(s.try_send(bytes_of("x"), destination));
  outcome<std::error_code> flushed;
  s.async_flush([&, done = flushed.handler()](std::error_code ec) {
    tx.reset();
    done(ec);
  });
  EXPECT_EQ(std::error_code(), std::get<0>(flushed.future.get()));
  EXPECT_TRUE(eventually([] { return own_threads() == 0; }));
  EXPECT_FALSE(s.try_acquire());
}

TEST_F(control_thread, every_member_may_be_called_in_its_handlers) {
  transmitter tx(small());
  auto s = tx.make_sender();
  outcome<std::error_code> flushed;
  s.async_flush([&, done = flushed.handler()](std::error_code ec) {
    auto mine = tx.make_sender({.via = tx.make_producer()});
    EXPECT_TRUE(mine.try_send(bytes_of("x"), destination));
    EXPECT_EQ(1u, tx.stats().submitted);
    static_cast<void>(tx.watch_routes());
    done(ec);
  });
  EXPECT_EQ(std::error_code(), std::get<0>(flushed.future.get()));
  EXPECT_TRUE(drained(tx));
}

// The executor of a future runs what it is given in the caller: the control thread serves.
TEST_F(control_thread, a_future_waits_for_a_frame) {
  transmitter tx(small());
  auto s = tx.make_sender();
  auto held = all_of(s);
  auto waiting = s.async_acquire(use_future);
  held.pop_back();
  ASSERT_EQ(std::future_status::ready, waiting.wait_for(patience));
  EXPECT_TRUE(waiting.get());
}

TEST_F(control_thread, a_route_watcher_may_end_in_its_handlers) {
  auto watcher = std::make_unique<route_watcher>();
  auto changes = watcher->watch();
  outcome<std::error_code> seen;
  changes.async_next([&, done = seen.handler()](std::error_code ec, const route_change&) {
    watcher.reset();
    done(ec);
  });
  (*a)("ip route add 10.99.0.0/16 via 10.77.1.2");
  EXPECT_EQ(std::error_code(), std::get<0>(seen.future.get()));
  outcome<std::error_code, route_change> last;
  changes.async_next(asio::bind_executor(asio::system_executor(), last.handler()));
  EXPECT_EQ(make_error_code(error::closed), std::get<0>(last.future.get()));
}

// Bare callbacks run on the control thread: a flush that cannot end must not keep what it waits in.
TEST_F(control_thread, stopping_ends_a_flush_that_waits_on_it) {
  auto config = small();
  config.drain_timeout = 50ms;
  int destroyed = 0;
  std::error_code ended;
  {
    transmitter tx(config);
    auto s = tx.make_sender();
    hold_devices_up();
    ASSERT_TRUE(s.try_send(bytes_of("x"), destination));
    s.async_flush([&, frame = counted(destroyed)](std::error_code ec) { ended = ec; });
    tx.stop();
    EXPECT_TRUE(!ended || ended == error::closed) << ended.message();
  }
  EXPECT_EQ(1, destroyed);
}

#if ASIO_VERSION >= 103000
TEST_F(control_thread, type_erased_handlers_are_served_on_their_executors) {
  transmitter tx(small());
  auto s = tx.make_sender();
  asio::io_context application{1};
  asio::any_io_executor erased = application.get_executor();
  const auto here = std::this_thread::get_id();
  int called = 0;
  const auto count = [&](std::error_code ec, const auto&...) {
    EXPECT_FALSE(ec) << ec.message();
    EXPECT_EQ(here, std::this_thread::get_id());
    ++called;
  };
  using sent = asio::any_completion_handler<sender::send_signature>;
  s.async_send(bytes_of("x"), destination, sent(asio::bind_executor(application, count)));
  s.async_send(bytes_of("x"), destination, sent(asio::bind_executor(erased, count)));
  s.async_send(bytes_of("x"), destination,
               sent(asio::bind_executor(asio::make_strand(application), count)));
  s.async_flush(
      asio::any_completion_handler<sender::flush_signature>(asio::bind_executor(erased, count)));
  auto held = all_of(s);
  s.async_acquire(
      asio::any_completion_handler<sender::acquire_signature>(asio::bind_executor(erased, count)));
  held.clear();
  EXPECT_EQ(0, called);
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (called < 5 && std::chrono::steady_clock::now() < deadline) {
    application.restart();
    application.run_for(10ms);
  }
  EXPECT_EQ(5, called);
  int destroyed = 0;
  {
    asio::io_context short_lived{1};
    s.async_next_error(asio::any_completion_handler<sender::error_signature>(asio::bind_executor(
        short_lived, [frame = counted(destroyed)](std::error_code, const send_error&) {})));
  }
  EXPECT_EQ(1, destroyed);
}
#endif

}  // namespace
}  // namespace cowire::test

// SPDX-License-Identifier: Apache-2.0
// What every asynchronous operation promises: any completion token, the handler's own executor,
// allocator and cancellation slot, and that no handler runs inside the call. (Of ports, whose
// receives need somebody who sends, the tests of ports say the same.)
#include <tests/support/two_hosts.hpp>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/bind_executor.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/io_context.hpp>

#include <string>
#include <type_traits>
#include <vector>

namespace cowire::test {
namespace {

template <class T>
struct counting_allocator {
  using value_type = T;
  explicit counting_allocator(std::atomic<int>& all, std::atomic<int>& now)
      : all_(&all), now_(&now) {}
  template <class U>
  counting_allocator(const counting_allocator<U>& other) : all_(other.all_), now_(other.now_) {}
  T* allocate(std::size_t n) {
    ++*all_;
    ++*now_;
    return std::allocator<T>().allocate(n);
  }
  void deallocate(T* p, std::size_t n) {
    --*now_;
    std::allocator<T>().deallocate(p, n);
  }
  template <class U>
  bool operator==(const counting_allocator<U>& other) const {
    return all_ == other.all_;
  }
  std::atomic<int>*all_, *now_;
};

/// With an executor and an allocator of its own.
struct particular_handler {
  using executor_type = asio::io_context::executor_type;
  using allocator_type = counting_allocator<void>;
  [[nodiscard]] executor_type get_executor() const noexcept { return on; }
  [[nodiscard]] allocator_type get_allocator() const noexcept {
    return allocator_type(*allocated, *held);
  }
  template <class... Results>
  void operator()(std::error_code ec, Results&&...) const {
    EXPECT_FALSE(ec) << ec.message();
    EXPECT_TRUE(on.running_in_this_thread());
    ++*called;
  }
  executor_type on;
  std::atomic<int>*allocated, *held;
  int* called;
};

template <class Sender>
payload filled(Sender& s) {
  payload p;
  EXPECT_TRUE(eventually([&] { return static_cast<bool>(p = s.try_acquire()); }));
  p.resize(10);
  return p;
}

class contracts : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (!IsSkipped()) resolve("10.77.1.2");
  }
  void run() {
    app.restart();
    app.run();
  }

  /// `start(token)` begins what ends soon, with success.
  template <class Start>
  void expect_kept(const char* what, const Start& start) {
    SCOPED_TRACE(what);
    int called = 0;
    const auto count = [&](std::error_code ec, auto&&...) {
      EXPECT_FALSE(ec) << ec.message();
      ++called;
    };
    asio::cancellation_signal signal;
    start(asio::bind_cancellation_slot(signal.slot(), asio::bind_executor(app, count)));
    EXPECT_EQ(0, called) << "inside the call";
    run();
    EXPECT_EQ(1, called);
    signal.emit(asio::cancellation_type::total);  // Comes too late.

    std::atomic<int> allocated{0}, held{0};
    start(particular_handler{app.get_executor(), &allocated, &held, &called});
    EXPECT_EQ(1, called) << "inside the call";
    run();
    EXPECT_EQ(2, called);
    EXPECT_GT(allocated, 0);
    EXPECT_EQ(0, held);

    start(deferred)(asio::bind_executor(app, count));
    EXPECT_EQ(2, called) << "inside the call";
    run();
    EXPECT_EQ(3, called);

    EXPECT_NO_THROW(start(use_future).get());
    std::promise<void> bare;  // Has no executor: the control thread's.
    start([&](std::error_code, auto... results) {
      // What it got goes before the thread goes on that is the sender's.
      static_cast<void>(std::tuple(std::move(results)...));
      bare.set_value();
    });
    bare.get_future().get();

    const auto coroutine = [&]() -> awaitable<void> {
      co_await start(use_awaitable);
      ++called;
      static_cast<void>(co_await start(as_tuple(use_awaitable)));
      ++called;
    };
    co_spawn(app, coroutine(), rethrow);
    run();
    EXPECT_EQ(5, called);
  }

  /// What senders of both kinds have.
  template <class Sender>
  void expect_kept_by(Sender& s) {
    const auto with = [&](const char* what, auto start) { expect_kept(what, start); };
    with("acquire", [&](auto token) { return s.async_acquire(token); });
    with("payload", [&](auto token) { return s.async_send(filled(s), there, token); });
    with("payloads", [&](auto token) { return s.async_send(filled(s), several, token); });
    with("bytes", [&](auto token) { return s.async_send(text, several, token); });
    with("options", [&](auto token) { return s.async_send(text, there, {.dscp = 1}, token); });
    with("batch", [&](auto token) { return s.async_send_batch(messages, token); });
    with("segments", [&](auto token) { return s.async_send_segments(text, 100, there, token); });
    with("resolve", [&](auto token) { return s.async_resolve(there, token); });
    with("resolve with", [&](auto token) { return s.async_resolve(there, {.dscp = 2}, token); });
  }

  /// `start(token)` begins what waits until it is cancelled.
  template <class Start>
  void expect_cancellable(const char* what, const Start& start) {
    SCOPED_TRACE(what);
    for (const auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial,
                            asio::cancellation_type::total}) {
      std::error_code result;
      asio::cancellation_signal signal;
      start(asio::bind_cancellation_slot(
          signal.slot(),
          asio::bind_executor(app, [&](std::error_code ec, auto&&...) { result = ec; })));
      app.restart();
      app.poll();
      EXPECT_FALSE(result) << result.message();
      signal.emit(type);
      EXPECT_FALSE(result) << "inside emit()";
      run();
      EXPECT_EQ(operation_aborted(), result);
    }
  }

  const endpoint there = to("10.77.1.2:9000"), nobody = to("10.77.1.77:9000");
  const std::vector<endpoint> several{there, there, there};
  const std::string text = std::string(300, 'x');
  const std::vector<message> messages{{text, there}, {text, there, {.ecn = ecn_codepoint::ect_0}}};
  asio::io_context app{1};
};

TEST_F(contracts, are_kept_by_all_operations_of_a_sender) {
  transmitter tx(small());
  auto s = tx.make_sender();
  expect_kept_by(s);
  expect_kept("flush", [&](auto token) { return s.async_flush(token); });
  std::vector<path_events> ways;  // The first state of each.
  for (int i = 0; i < 7; ++i) ways.push_back(s.watch_path(there));
  auto next = ways.begin();
  expect_kept("path", [&](auto token) { return (next++)->async_next(token); });
}

TEST_F(contracts, are_kept_by_all_operations_of_a_shared_sender) {
  transmitter tx(small());
  const auto s = tx.make_shared_sender();
  expect_kept_by(s);
}

TEST_F(contracts, to_be_cancellable_are_kept_by_all_that_wait) {
  auto config = small();
  config.shared_producers = 1;
  transmitter tx(config);
  auto s = tx.make_sender();
  const auto shared = tx.make_shared_sender();
  auto ways = s.watch_path(there);
  outcome<std::error_code, path_state> first;
  ways.async_next(first.handler());
  EXPECT_TRUE(std::get<1>(first.future.get()).is_fast());
  std::vector<payload> held;
  const auto with = [&](const char* what, auto start) { expect_cancellable(what, start); };
  const auto all_wait_at = [&](auto& one) {
    while (payload p = one.try_acquire()) held.push_back(std::move(p));
    with("acquire", [&](auto token) { return one.async_acquire(token); });
    with("bytes", [&](auto token) { return one.async_send(text, several, token); });
    with("batch", [&](auto token) { return one.async_send_batch(messages, token); });
    with("segments", [&](auto token) { return one.async_send_segments(text, 99, there, token); });
    with("resolve", [&](auto token) { return one.async_resolve(nobody, token); });
    with("errors", [&](auto token) { return one.async_next_error(token); });
  };
  all_wait_at(s);
  all_wait_at(shared);
  with("path", [&](auto token) { return ways.async_next(token); });
}

TEST_F(contracts, default_tokens_serve_the_newest_operations) {
  transmitter tx(small());
  auto s = use_awaitable.as_default_on(tx.make_sender());
  auto shared = use_awaitable.as_default_on(tx.make_shared_sender());
  auto ways = use_awaitable.as_default_on(s.watch_path(there));
  static_assert(
      std::is_same_v<decltype(ways), asio::use_awaitable_t<>::as_default_on_t<path_events>>);
  int fast = 0;
  const auto ask = [&]() -> awaitable<void> {
    fast += (co_await ways.async_next()).is_fast();
    fast += (co_await s.async_resolve(there)).is_fast();
    fast += (co_await s.async_resolve(there, {.ttl = 9})).is_fast();
    fast += (co_await shared.async_resolve(there)).is_fast();
    fast += (co_await shared.async_resolve(there, {.ttl = 9})).is_fast();
    EXPECT_EQ(2u, co_await shared.async_send_batch(messages));
    EXPECT_EQ(3u, co_await shared.async_send_segments(text, 100, there));
  };
  co_spawn(app, ask(), rethrow);
  run();
  EXPECT_EQ(5, fast);
}

}  // namespace
}  // namespace cowire::test

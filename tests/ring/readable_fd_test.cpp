// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/readable_fd.hpp>

#include <cowire/base/doorbell.hpp>
#include <cowire/ring/ring_timer.hpp>

#include "on_both_backends.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>

#include <atomic>
#include <optional>
#include <thread>
#include <vector>

namespace cowire {
namespace {

using test::on_both_backends;
using namespace std::chrono_literals;

class readable_fd_test : public on_both_backends {
 protected:
  readable_fd_test() : counter_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  void bump() const {
    const std::uint64_t one = 1;
    ASSERT_EQ(ssize_t{sizeof one}, ::write(counter_.get(), &one, sizeof one));
  }
  void drain() const {
    std::uint64_t value = 0;
    ASSERT_EQ(ssize_t{sizeof value}, ::read(counter_.get(), &value, sizeof value));
  }
  unique_fd counter_;
};

TEST_P(readable_fd_test, completes_when_it_becomes_readable_again_and_again) {
  readable_fd readable(ring(), counter_.get());
  for (int round = 0; round < 3; ++round) {
    std::optional<std::error_code> result;
    readable.async_wait([&](std::error_code ec) { result = ec; });
    ring_timer later(ring(), 2ms);
    later.async_wait([&](std::error_code) {
      EXPECT_FALSE(result);
      bump();
    });
    run();
    EXPECT_EQ(std::error_code(), result);
    drain();
  }
}

TEST_P(readable_fd_test, what_was_left_unread_completes_the_next_wait) {
  readable_fd readable(ring(), counter_.get());
  bump();
  int completed = 0;
  for (int round = 0; round < 3; ++round) {
    readable.async_wait([&](std::error_code ec) { completed += !ec; });
    EXPECT_EQ(round, completed);
    run();
  }
  EXPECT_EQ(3, completed);
}

TEST_P(readable_fd_test, what_was_read_meanwhile_does_not_complete_the_next_wait) {
  readable_fd readable(ring(), counter_.get());
  bump();
  std::vector<std::error_code> results;
  const auto note = [&](std::error_code ec) { results.push_back(ec); };
  readable.async_wait([&](std::error_code) {
    bump();
    drain();
    readable.async_wait(note);
  });
  ring_timer later(ring(), 5ms);
  later.async_wait([&](std::error_code) { readable.cancel(); });
  run();
  EXPECT_EQ(std::vector{operation_aborted()}, results);
}

TEST_P(readable_fd_test, the_callers_descriptor_may_be_closed) {
  const unique_fd writer(::fcntl(counter_.get(), F_DUPFD_CLOEXEC, 0));
  readable_fd readable(ring(), counter_.get());
  counter_.reset();
  std::optional<std::error_code> result;
  readable.async_wait([&](std::error_code ec) { result = ec; });
  counter_ = unique_fd(::fcntl(writer.get(), F_DUPFD_CLOEXEC, 0));
  bump();
  run();
  EXPECT_EQ(std::error_code(), result);
}

TEST_P(readable_fd_test, what_cannot_be_polled_is_an_error) {
  EXPECT_THROW(readable_fd(ring(), -1), std::system_error);
}

TEST_P(readable_fd_test, slot_cancel_and_destruction_abort) {
  std::vector<std::error_code> results;
  const auto note = [&](std::error_code ec) { results.push_back(ec); };
  auto readable = std::make_unique<readable_fd>(ring(), counter_.get());
  asio::cancellation_signal signal;
  readable->async_wait(asio::bind_cancellation_slot(signal.slot(), note));
  signal.emit(asio::cancellation_type::terminal);
  run();
  readable->async_wait(note);
  readable->cancel();
  run();
  readable->async_wait(note);
  readable.reset();
  run();
  EXPECT_EQ(std::vector(3, operation_aborted()), results);
}

awaitable<std::uint64_t> consume(readable_fd& readable, doorbell& bell,
                                 std::atomic<std::uint64_t>& queue, std::uint64_t total) {
  std::uint64_t seen = 0;
  while (seen < total) {
    bell.arm();
    if (queue.load(std::memory_order_acquire) == seen) co_await readable.async_wait(use_awaitable);
    bell.disarm();
    seen = queue.load(std::memory_order_acquire);
  }
  co_return seen;
}

TEST_P(readable_fd_test, a_doorbell_wakes_a_coroutine_and_never_too_late) {
  constexpr std::uint64_t total = 50'000;
  doorbell bell;
  std::atomic<std::uint64_t> queue{0};
  readable_fd readable(ring(), bell.fd());
  auto seen = co_spawn(ring(), consume(readable, bell, queue, total), use_future);
  std::thread producer([&] {
    for (std::uint64_t i = 1; i <= total; ++i) {
      queue.store(i, std::memory_order_release);
      bell.ring();
      if (i % 512 == 0) std::this_thread::sleep_for(20us);
    }
  });
  run();
  EXPECT_EQ(total, seen.get());
  producer.join();
}

TEST_P(readable_fd_test, a_destroyed_ring_destroys_what_waits) {
  auto token = std::make_shared<int>(0);
  readable_fd readable(ring(), counter_.get());
  readable.async_wait([token](std::error_code) { FAIL(); });
  asio::post(ring(), [&] { asio::post(ring(), [&] { ring().stop(); }); });
  run();
  { const auto last = std::move(readable); }
  ring_.reset();
  EXPECT_EQ(1, token.use_count());
}

COWIRE_ON_BOTH_BACKENDS(readable_fd_test);

}  // namespace
}  // namespace cowire

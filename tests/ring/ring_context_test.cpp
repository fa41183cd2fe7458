// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/ring_context.hpp>

#include "on_both_backends.hpp"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <asio/io_context.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <future>
#include <iostream>
#include <stdexcept>
#include <thread>
#include <vector>

namespace cowire {
namespace {

using test::on_both_backends;
using namespace std::chrono_literals;

class ring_context_test : public on_both_backends {};

TEST_P(ring_context_test, says_which_backend_runs_and_why) {
  EXPECT_EQ(GetParam(), ring().backend());
  EXPECT_FALSE(ring().backend_reason().empty());
  std::cout << ring().backend_reason() << '\n';
}

TEST_P(ring_context_test, a_queue_without_depth_is_refused) {
  EXPECT_THROW(static_cast<void>(make_ring(0)), std::system_error);
}

TEST_P(ring_context_test, posts_run_in_order_and_never_inside_the_call) {
  std::vector<int> seen;
  asio::post(ring(), [&] {
    seen.push_back(1);
    asio::post(ring(), [&] { seen.push_back(4); });
    asio::defer(ring(), [&] { seen.push_back(5); });
    seen.push_back(2);
  });
  asio::post(ring(), [&] { seen.push_back(3); });
  EXPECT_TRUE(seen.empty());
  EXPECT_EQ(4u, ring().run());  // Handlers, not numbers.
  EXPECT_EQ((std::vector{1, 2, 3, 4, 5}), seen);
}

TEST_P(ring_context_test, dispatch_runs_at_once_on_the_ring_thread_only) {
  bool dispatched = false;
  asio::dispatch(ring(), [&] { dispatched = true; });
  EXPECT_FALSE(dispatched);
  asio::post(ring(), [&] {
    EXPECT_TRUE(dispatched);
    EXPECT_TRUE(ring().running_in_this_thread());
    bool inner = false;
    asio::dispatch(ring(), [&] { inner = true; });
    EXPECT_TRUE(inner);
  });
  run();
  EXPECT_FALSE(ring().running_in_this_thread());
}

TEST_P(ring_context_test, executor_has_the_properties_asio_asks_for) {
  const auto plain = ring().get_executor();
  const auto never = asio::require(plain, asio::execution::blocking.never);
  EXPECT_NE(plain, never);
  EXPECT_EQ(plain, asio::require(never, asio::execution::blocking.possibly));
  EXPECT_EQ(asio::execution::blocking_t(asio::execution::blocking.never),
            asio::query(never, asio::execution::blocking));
  EXPECT_EQ(&ring(), &asio::query(plain, asio::execution::context));
  const asio::any_io_executor any = plain;
  EXPECT_EQ(&ring(), &asio::query(any, asio::execution::context));
  const auto continued = asio::prefer(plain, asio::execution::relationship.continuation);
  EXPECT_EQ(asio::execution::relationship_t(asio::execution::relationship.continuation),
            asio::query(continued, asio::execution::relationship));
}

TEST_P(ring_context_test, tracked_executor_keeps_run_from_returning) {
  auto work = std::make_unique<asio::any_io_executor>(
      asio::prefer(ring().get_executor(), asio::execution::outstanding_work.tracked));
  const auto begun = std::chrono::steady_clock::now();
  std::thread later([&] {
    std::this_thread::sleep_for(20ms);
    work.reset();
  });
  run();
  EXPECT_GE(std::chrono::steady_clock::now() - begun, 15ms);
  later.join();
}

TEST_P(ring_context_test, without_work_run_returns_at_once_and_can_be_repeated) {
  for (int round = 0; round < 3; ++round) {
    run();
    EXPECT_TRUE(ring().stopped());
    int ran = 0;
    asio::post(ring(), [&] { ++ran; });
    EXPECT_EQ(0u, ring().run());  // Stopped until restart().
    run();
    EXPECT_EQ(1, ran);
  }
}

TEST_P(ring_context_test, stop_leaves_the_rest_for_the_next_run) {
  std::vector<int> seen;
  asio::post(ring(), [&] {
    seen.push_back(1);
    asio::post(ring(), [&] { seen.push_back(3); });
    ring().stop();
  });
  asio::post(ring(), [&] { seen.push_back(2); });
  run();
  EXPECT_EQ((std::vector{1}), seen);
  run();
  EXPECT_EQ((std::vector{1, 2, 3}), seen);
}

TEST_P(ring_context_test, an_exception_leaves_run_and_nothing_else_is_lost) {
  int ran = 0;
  asio::post(ring(), [] { throw std::runtime_error("one"); });
  asio::post(ring(), [&] {
    // Dispatched inline: must not surface in the middle of this handler.
    asio::dispatch(ring(), [] { throw std::runtime_error("two"); });
    ++ran;
  });
  asio::post(ring(), [&] { ++ran; });
  EXPECT_THROW(run(), std::runtime_error);
  EXPECT_THROW(run(), std::runtime_error);
  run();
  EXPECT_EQ(2, ran);
}

TEST_P(ring_context_test, run_may_move_from_thread_to_thread) {
  for (int round = 0; round < 4; ++round) {
    std::thread::id ran;
    asio::post(ring(), [&] { ran = std::this_thread::get_id(); });
    std::thread other([&] { run(); });
    const auto id = other.get_id();
    other.join();
    EXPECT_EQ(id, ran);
  }
}

awaitable<int> sum_on_this_thread(int n) {
  const auto executor = co_await asio::this_coro::executor;
  int sum = 0;
  for (int i = 1; i <= n; ++i) {
    co_await asio::post(executor, use_awaitable);
    sum += i;
  }
  co_return sum;
}

TEST_P(ring_context_test, coroutines_and_futures) {
  auto result = co_spawn(ring(), sum_on_this_thread(100), use_future);
  std::thread runner([&] { run(); });
  EXPECT_EQ(5050, result.get());
  runner.join();
}

TEST_P(ring_context_test, strands_work_on_its_executor) {
  auto strand = asio::make_strand(ring());
  std::vector<int> seen;
  for (int i = 0; i < 100; ++i) asio::post(strand, [&seen, i] { seen.push_back(i); });
  run();
  ASSERT_EQ(100u, seen.size());
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST_P(ring_context_test, posts_of_many_threads_all_arrive_each_thread_in_order) {
  constexpr int threads = 4, each = 25'000;
  std::array<int, threads> last{};
  bool in_order = true;
  auto work = std::make_unique<asio::any_io_executor>(
      asio::prefer(ring().get_executor(), asio::execution::outstanding_work.tracked));
  std::vector<std::thread> producers;
  for (unsigned t = 0; t < threads; ++t)
    producers.emplace_back([&, t] {
      for (int i = 1; i <= each; ++i) {
        asio::post(ring(), [&, t, i] { in_order &= std::exchange(last[t], i) == i - 1; });
        if (i % 1000 == 0) std::this_thread::sleep_for(10us);  // Lets the ring fall asleep.
      }
    });
  std::thread runner([&] { run(); });
  for (auto& p : producers) p.join();
  work.reset();
  runner.join();
  for (const int n : last) EXPECT_EQ(each, n);
  EXPECT_TRUE(in_order);
}

TEST_P(ring_context_test, one_lone_post_always_wakes_a_sleeping_ring) {
  auto work = std::make_unique<asio::any_io_executor>(
      asio::prefer(ring().get_executor(), asio::execution::outstanding_work.tracked));
  std::thread runner([&] { run(); });
  std::atomic<int> answered{0};
  for (int i = 1; i <= 2000; ++i) {
    asio::post(ring(), [&] { answered.fetch_add(1, std::memory_order_release); });
    while (answered.load(std::memory_order_acquire) != i) std::this_thread::yield();
  }
  work.reset();
  runner.join();
}

TEST_P(ring_context_test, destroyed_with_queued_handlers_it_destroys_them_uncalled) {
  auto token = std::make_shared<int>(0);
  asio::post(ring(), [token] { FAIL(); });
  asio::post(asio::make_strand(ring()), [token] { FAIL(); });
  std::thread([&] { asio::post(ring(), [token] { FAIL(); }); }).join();
  EXPECT_GT(token.use_count(), 1);
  ring_.reset();
  EXPECT_EQ(1, token.use_count());
}

TEST_P(ring_context_test, two_rings_may_run_one_inside_the_other) {
  const auto other = make_ring();
  bool ran = false;
  asio::post(ring(), [&] {
    asio::post(*other, [&] {
      EXPECT_TRUE(ring().running_in_this_thread());
      EXPECT_TRUE(other->running_in_this_thread());
      ran = true;
    });
    other->run();
    EXPECT_FALSE(other->running_in_this_thread());
  });
  run();
  EXPECT_TRUE(ran);
}

COWIRE_ON_BOTH_BACKENDS(ring_context_test);

// ---- refusal ----------------------------------------------------------------------------------

/// From now on io_uring_setup fails in this process.
void refuse_io_uring(unsigned number) {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | number),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{.len = std::size(program), .filter = program};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0)
    ::_exit(99);
}

/// Runs `check` in a child where io_uring is refused; its return value is the exit status.
template <class Check>
int in_a_child_without_io_uring(unsigned number, Check check) {
  const pid_t child = ::fork();
  if (child == 0) {
    refuse_io_uring(number);
    int status = 98;
    try {
      status = check();
    } catch (const std::exception& e) {
      std::cerr << e.what() << '\n';
    }
    ::_exit(status);
  }
  int status = -1;
  EXPECT_EQ(child, ::waitpid(child, &status, 0));
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(ring_context_refused, automatic_falls_back_to_epoll_works_and_says_why) {
  for (const unsigned number : {unsigned{EPERM}, unsigned{ENOSYS}}) {
    EXPECT_EQ(0, in_a_child_without_io_uring(number, [number] {
                ring_context ring;
                if (ring.backend() != ring_backend::epoll) return 1;
                std::cerr << ring.backend_reason() << '\n';
                const char* name =
                    number == EPERM ? "io_uring_setup: EPERM" : "io_uring_setup: ENOSYS";
                if (ring.backend_reason().find(name) == std::string::npos) return 2;
                if (ring.backend_reason().find("epoll") == std::string::npos) return 3;
                auto sum = co_spawn(ring, sum_on_this_thread(10), use_future);
                ring.run();
                return sum.get() == 55 ? 0 : 4;
              }));
  }
}

TEST(ring_context_refused, insisting_on_io_uring_is_an_error_that_names_the_call) {
  EXPECT_EQ(
      0, in_a_child_without_io_uring(EPERM, [] {
        try {
          ring_context ring({.queue_depth = 64, .backend = ring_context::backend_choice::io_uring});
        } catch (const std::system_error& e) {
          const bool named = std::string(e.what()).find("io_uring_setup") != std::string::npos;
          return e.code() == std::errc::operation_not_permitted && named ? 0 : 1;
        }
        return 2;
      }));
}

}  // namespace
}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// A mutual exclusion for critical sections of some hundred nanoseconds, taken by hundreds of
/// threads.
///
/// Free, it costs one compare-and-exchange to take and one exchange to give back, inline; a
/// std::mutex costs two calls that look at its kind and its owner besides. Taken, a thread spins
/// for about as long as such a section lasts and then sleeps in the kernel, so that threads whose
/// holder was preempted leave the CPU to it. The algorithm is "mutex, take 2" of Ulrich Drepper,
/// "Futexes Are Tricky".
///
/// Not fair in order: a thread that runs may take it before one that was woken. Nobody sleeps for
/// ever: each release with a sleeper wakes one, and a woken thread spins again.
///
/// Not recursive, not for sections that may block, no priority inheritance, no robustness against a
/// holder that ends. In a child of fork() it may be held by a thread that is not there: ask a
/// fork_mark first. Lockable as std::lock_guard has it. Any thread.
#pragma once

#include <atomic>
#include <cstdint>

namespace cowire {

class short_lock {
 public:
  short_lock() noexcept = default;
  short_lock(const short_lock&) = delete;
  short_lock& operator=(const short_lock&) = delete;

  /// Acquire: pairs with the release in unlock().
  void lock() noexcept {
    if (!try_lock()) [[unlikely]]
      lock_slowly();
  }
  [[nodiscard]] bool try_lock() noexcept {
    std::uint32_t expected = free;
    return state_.compare_exchange_strong(expected, held, std::memory_order_acquire,
                                          std::memory_order_relaxed);
  }
  /// Release: pairs with the acquire of whoever takes it next.
  void unlock() noexcept {
    if (state_.exchange(free, std::memory_order_release) == contended) [[unlikely]]
      wake_one();
  }

 private:
  enum state : std::uint32_t { free, held, contended };  ///< contended: held, and some may sleep.
  void lock_slowly() noexcept;
  void wake_one() noexcept;

  std::atomic<std::uint32_t> state_{free};
};

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// Wakes a thread that sleeps on an eventfd, at no cost while it is awake.
///
/// One sleeper, any number of ringers. The sleeper says "I am about to sleep" (arm), looks once
/// more whether there is work, and only then waits on fd(). A ringer makes its work visible first
/// and then rings: while the bell is not armed that is one fence and one load, no system call.
///
/// Why nothing sleeps for ever: arm() stores `armed_`, then a full fence, then the sleeper reads
/// the queue; ring() follows the ringer's write to the queue by a full fence, then reads `armed_`.
/// The two fences are totally ordered (Dekker's pattern), so either the sleeper sees the work or
/// the ringer sees the bell armed.
#pragma once

#include <cowire/base/forked.hpp>
#include <cowire/base/unique_fd.hpp>

#include <atomic>

namespace cowire {

class doorbell {
 public:
  /// Throws std::system_error when no eventfd can be made.
  doorbell();

  /// Sleeper: from now on a ringer writes the eventfd. Check for work once more before waiting.
  void arm() noexcept {
    armed_.store(true, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);  // Pairs with the fence in ring().
  }

  /// Sleeper, after waking or on finding work after arm(): reads the eventfd empty, then disarms.
  /// In this order: disarming first would let a write of an earlier ring be read away later and
  /// cost a wake-up.
  void disarm() noexcept;

  /// Any thread, after its work is visible to the sleeper. Never blocks.
  void ring() noexcept {
    std::atomic_thread_fence(std::memory_order_seq_cst);  // Pairs with the fence in arm().
    if (armed_.load(std::memory_order_relaxed)) write_once();
  }

  /// Becomes readable when rung while armed. For poll, epoll or io_uring; owned by the doorbell.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  void write_once() noexcept;

  const detail::fork_mark born_;  ///< The eventfd is the parent's: a child does not write it.
  unique_fd fd_;
  alignas(64) std::atomic<bool> armed_{false};
};

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// A deadline to wait for on a ring_context, in the manner of asio::steady_timer.
///
/// Timers live in a heap of the ring thread; the earliest bounds the thread's sleep, so that no
/// timer costs a system call of its own. Resolution is the kernel's high-resolution clock; a
/// handler runs never before the deadline.
///
/// Threads: as an Asio object, one thread at a time, not necessarily the ring thread.
#pragma once

#include <cowire/ring/detail/completion.hpp>
#include <cowire/ring/ring_context.hpp>

#include <chrono>
#include <memory>
#include <system_error>
#include <utility>

namespace cowire {

class ring_timer {
 public:
  using executor_type = ring_context::executor_type;
  /// As asio::steady_timer has them.
  using clock_type = std::chrono::steady_clock;
  using time_point = clock_type::time_point;
  using duration = clock_type::duration;

  /// Expired until an expiry is set.
  explicit ring_timer(ring_context& ring);
  ring_timer(ring_context& ring, duration from_now) : ring_timer(ring) {
    expiry_ = clock_type::now() + from_now;
  }
  ring_timer(ring_timer&&) noexcept = default;
  ring_timer& operator=(ring_timer&& other) noexcept;
  /// Cancels.
  ~ring_timer();

  [[nodiscard]] executor_type get_executor() const noexcept { return ring_->get_executor(); }
  /// The deadline that is set.
  [[nodiscard]] time_point expiry() const noexcept { return expiry_; }

  /// Sets the deadline; waits begun before are cancelled.
  void expires_at(time_point when);
  /// expires_at(), so long from now.
  void expires_after(duration from_now) { expires_at(clock_type::now() + from_now); }

  /// Every wait begun before completes with operation_aborted, unless its deadline has passed and
  /// it has completed already. Returns at once; the handlers run later.
  void cancel();

  /// Completes at the deadline. Signature: void(std::error_code).
  ///
  /// Errors: operation_aborted after cancel(), a new expiry, or the timer's destruction.
  /// Per-operation cancellation: terminal, partial, total; all end the wait with operation_aborted.
  template <class Token>
  auto async_wait(Token&& token) {
    return detail::initiate<std::error_code>(
        std::forward<Token>(token), *ring_, object(),
        [s = state_.get(), when = expiry_](detail::completion_ptr<std::error_code> c) {
          start(*s, when, std::move(c));
        });
  }

 private:
  struct state;
  [[nodiscard]] std::shared_ptr<detail::ring_object> object() const noexcept;
  static void start(state& s, time_point when, detail::completion_ptr<std::error_code> c);

  ring_context* ring_;
  std::shared_ptr<state> state_;
  time_point expiry_ = time_point::min();
};

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// The truth audit's I/O: takes samples of the traffic, asks the kernel about them at the rate that
/// is allowed, and has what comes out acted upon.
///
/// Ring thread. Network namespace: the creating thread's.
#pragma once

#include <cowire/follow/detail/question_socket.hpp>
#include <cowire/follow/detail/truth_audit.hpp>
#include <cowire/ring/asio.hpp>
#include <cowire/ring/ring_context.hpp>
#include <cowire/ring/ring_timer.hpp>
#include <cowire/route/mirror.hpp>

#include <chrono>
#include <cstdint>

namespace cowire::detail {

class truth_auditor {
 public:
  using clock = std::chrono::steady_clock;

  /// Who follows the kernel, and whose answers are audited.
  class follower {
   public:
    /// The next sample of the traffic; false = there is none now.
    virtual bool next_flow(flow& in_use) = 0;
    /// Whether the mirror is whole and follows the kernel.
    [[nodiscard]] virtual bool is_followed() const noexcept = 0;
    /// Whether it is believed to show all that the kernel has announced.
    [[nodiscard]] virtual bool is_settled() const noexcept = 0;
    virtual void act_on(const truth_audit::finding& finding) = 0;
    /// The kernel goes on to disagree: perhaps all is well once everything is read anew.
    virtual void read_anew() = 0;
    /// Everything else that is due, before a turn.
    [[nodiscard]] virtual awaitable<void> let_others_run() = 0;
    /// A turn is over.
    virtual void on_audited(const truth_audit_stats& stats) = 0;

   protected:
    ~follower() = default;
  };

  /// `state` is the live mirror; it and `owner` outlive this. `rate`: flows a second, not 0. Throws
  /// std::system_error.
  truth_auditor(ring_context& ring, const mirror& state, follower& owner, std::uint32_t rate);

  void start();
  void stop();

  /// The mirror was read anew.
  void on_resynced() { audit_.on_resynced(); }
  /// The mirror is known to be doubtful.
  void forget_suspicions() { audit_.forget_suspicions(); }

 private:
  [[nodiscard]] awaitable<void> follow_answers();
  [[nodiscard]] awaitable<void> keep_auditing();
  void take_turn(clock::time_point now);
  void act_on(const truth_audit::finding& finding, clock::time_point now);
  void send_questions(clock::time_point now);

  ring_context& ring_;
  follower& owner_;
  const std::uint32_t rate_;
  question_socket questions_;
  ring_timer timer_;
  truth_audit audit_;
  std::uint32_t sampled_ = 0;
  clock::time_point next_repair_;  ///< While anything is diverted: when to read all anew.
  clock::duration repair_delay_{};
  bool stopped_ = false;
};

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// When the next datagrams are due at a given rate. Pure arithmetic on a clock that the caller
/// reads: no state but numbers, no I/O, no thread.
///
/// Below a thousand datagrams a second each one has its own moment. Above, waking for each would
/// cost more than it is worth: they are due in bursts, one a millisecond. A sender that was held up
/// catches up with at most a tenth of a second's datagrams; what it missed beyond that is not sent
/// in a flood later.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace cowire::cli {

class pacer {
 public:
  using clock = std::chrono::steady_clock;

  /// The rates that the clock's nanoseconds in 63 bits can tell apart and add up: one datagram in
  /// 11 days, and one a nanosecond. Others give no sense.
  static constexpr double rate_pps_min = 1e-6, rate_pps_max = 1e9;

  pacer(double rate_pps, clock::time_point start) noexcept
      : interval_(std::chrono::nanoseconds(std::chrono::seconds(1)) / rate_pps),
        backlog_limit_(static_cast<std::uint64_t>(std::max(1.0, rate_pps * 0.1))),
        start_(start) {}

  /// How many datagrams are due now beyond those sent. The first is due at the start.
  [[nodiscard]] std::uint64_t due(clock::time_point now) noexcept {
    const auto moment = moment_of_next();
    if (now < moment) return 0;
    const auto count = 1 + static_cast<std::uint64_t>((now - moment) / interval_);
    if (count <= backlog_limit_) return count;
    start_ += std::chrono::duration_cast<clock::duration>(
        interval_ * static_cast<double>(count - backlog_limit_));
    return backlog_limit_;
  }

  void sent(std::uint64_t datagrams) noexcept { sent_ += datagrams; }

  /// When to look again: the next datagram's moment, but not within a millisecond of `now` at high
  /// rates.
  [[nodiscard]] clock::time_point next(clock::time_point now) const noexcept {
    constexpr std::chrono::milliseconds tick{1};
    const auto moment = moment_of_next();
    return interval_ < tick ? std::max(moment, now + tick) : moment;
  }

 private:
  using interval = std::chrono::duration<double, std::nano>;

  // From the start, not from the datagram before: rounding must not add up.
  [[nodiscard]] clock::time_point moment_of_next() const noexcept {
    return start_ + std::chrono::ceil<clock::duration>(interval_ * static_cast<double>(sent_));
  }

  interval interval_;
  std::uint64_t backlog_limit_;
  clock::time_point start_;
  std::uint64_t sent_ = 0;
};

}  // namespace cowire::cli

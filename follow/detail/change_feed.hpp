// SPDX-License-Identifier: Apache-2.0
/// Tells subscribers of route changes, each with the version of the table that first reflects it.
///
/// Changes are reported as they are applied and told when they are published, in order. A
/// subscriber whose queue is full hears one `resynced` change instead of all that it holds.
///
/// Ring thread, but where said otherwise.
#pragma once

#include <cowire/follow/route_events.hpp>
#include <cowire/ring/event_queue.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace cowire::detail {

class change_feed {
 public:
  using clock = std::chrono::steady_clock;
  using queue = event_queue<route_change>;

  /// `executor` runs subscribers' handlers that have none of their own.
  explicit change_feed(ring_context::executor_type executor) : executor_(std::move(executor)) {}

  /// Any thread.
  [[nodiscard]] std::shared_ptr<queue> subscribe(std::size_t limit);

  /// Whether changes need to be put in words. False where somebody subscribes just now: what has
  /// just been read may be missed.
  [[nodiscard]] bool watched() const noexcept { return watched_; }
  /// A change that the next publication reflects; read from the kernel at `received_at`.
  void report(route_change change, clock::time_point received_at);
  /// When the oldest reported change that is not published was read.
  [[nodiscard]] std::optional<clock::time_point> oldest() const noexcept { return oldest_; }
  /// Table `version`, published at `now`, reflects all that was reported: the subscribers hear it.
  void tell(std::uint64_t version, clock::time_point now);
  /// Subscribers hear error::closed.
  void close();

 private:
  static void tell(queue& whom, const route_change& change);

  const ring_context::executor_type executor_;
  std::optional<clock::time_point> oldest_;
  std::vector<std::pair<route_change, clock::time_point>> reported_;  ///< While watched.
  std::atomic<bool> watched_{false};  ///< Set under the mutex; read without.

  std::mutex mutex_;  ///< Guards subscribers_.
  std::vector<std::weak_ptr<queue>> subscribers_;
};

}  // namespace cowire::detail

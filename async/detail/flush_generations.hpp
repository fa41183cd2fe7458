// SPDX-License-Identifier: Apache-2.0
/// Tells when all that a producer had submitted by some point has come back.
///
/// Frames on the way are counted by generation; a flush closes the newest one and waits until it,
/// and all before it, have nothing on the way. The producer's thread.
#pragma once

#include <cowire/xdp/tx_request.hpp>
#include <cowire/xdp/umem.hpp>

#include <cstdint>
#include <deque>
#include <functional>
#include <utility>
#include <vector>

namespace cowire::detail {

class flush_generations {
 public:
  explicit flush_generations(const frame_slice& slice)
      : first_frame_(slice.first), generation_of_(slice.count) {}

  void note_submitted(frame_index frame) noexcept {
    generation_of_[frame - first_frame_] = newest_;
    ++newest_outstanding_;
  }
  void note_returned(frame_index frame) noexcept {
    const auto generation = generation_of_[frame - first_frame_];
    if (generation == newest_)
      --newest_outstanding_;
    else
      --older_outstanding_[generation - oldest()];
  }

  /// The newest generation that holds all that was submitted so far.
  [[nodiscard]] std::uint64_t close();
  /// Whether all of this and of older generations came back, by the last settle().
  [[nodiscard]] bool is_over(std::uint64_t generation) const noexcept {
    return generation < oldest();
  }
  /// Has `then` called once everything submitted so far came back: now, or in settle().
  void when_over(std::function<void()> then);
  /// After frames came back.
  void settle();

 private:
  struct promise {
    std::uint64_t generation = 0;
    std::function<void()> then;
  };
  [[nodiscard]] std::uint64_t oldest() const noexcept {
    return newest_ - older_outstanding_.size();
  }

  const frame_index first_frame_;
  std::vector<std::uint64_t> generation_of_;  ///< By frame.
  std::uint64_t newest_ = 1;                  ///< From 1: "all before it" is then a generation too.
  std::uint32_t newest_outstanding_ = 0;
  std::deque<std::uint32_t> older_outstanding_;  ///< Of the closed ones, the oldest first.
  std::deque<promise> promises_;                 ///< The oldest first.
};

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// The free frames of one producer: a stack over its slice of the umem.
///
/// The last frame released is the first acquired, because it is the one still in the cache. Owned
/// by the producer and used by its thread only; frames that come back from other threads arrive in
/// the rings of the producer_channel and are released here by the producer itself. Allocates in the
/// constructor and nowhere else.
#pragma once

#include <cowire/base/assert.hpp>
#include <cowire/xdp/umem.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace cowire {

class frame_pool {
 public:
  /// All frames of `slice` are free at first.
  frame_pool(const frame_memory& memory, const frame_slice& slice);

  /// Takes a free frame; false when there is none. O(1).
  [[nodiscard]] bool try_acquire(frame_index& frame) noexcept {
    if (free_.empty()) return false;
    frame = free_.back();
    free_.pop_back();
    mark(frame, false);
    return true;
  }

  /// Gives a frame of this slice back. O(1).
  void release(frame_index frame) noexcept {
    COWIRE_DEBUG_ASSERT(frame - slice_.first < slice_.count);
    mark(frame, true);
    free_.push_back(frame);  // Never allocates: the capacity is the whole slice.
  }
  void release(std::span<const frame_index> frames) noexcept {
    for (const frame_index frame : frames) release(frame);
  }

  [[nodiscard]] std::size_t free_count() const noexcept { return free_.size(); }
  [[nodiscard]] const frame_slice& slice() const noexcept { return slice_; }
  /// Where a frame's payload lies, for a request.
  [[nodiscard]] payload_place place(frame_index frame) const noexcept {
    return {frame, memory_.payload_address(frame)};
  }
  /// Longest payload in bytes.
  [[nodiscard]] std::size_t payload_capacity() const noexcept { return memory_.payload_capacity(); }
  /// The whole payload room of a frame.
  [[nodiscard]] std::span<std::byte> payload(frame_index frame) const noexcept {
    return {memory_.payload(frame), memory_.payload_capacity()};
  }

 private:
  /// Debug builds: a frame is released once, and acquired once.
  void mark([[maybe_unused]] frame_index frame, [[maybe_unused]] bool free) noexcept {
#if defined(COWIRE_DEBUG_CHECKS)
    COWIRE_ASSERT(is_free_[frame - slice_.first] != free);
    is_free_[frame - slice_.first] = free;
#endif
  }

  frame_memory memory_;
  frame_slice slice_;
  std::vector<frame_index> free_;
#if defined(COWIRE_DEBUG_CHECKS)
  std::vector<bool> is_free_;
#endif
};

}  // namespace cowire

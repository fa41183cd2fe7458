// SPDX-License-Identifier: Apache-2.0
/// What a device holds, in the order in which it got it: a run of addresses.
///
/// Nearly every device completes in this order (tx_queue.hpp), and then a run of completions is
/// compared with a run of these, where frame_places would be asked about each. Belongs to the core
/// thread.
#pragma once

#include <cowire/xdp/detail/frame_runs.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace cowire::detail {

class submission_order {
 public:
  /// Room for each of `frame_count` frames once.
  explicit submission_order(std::uint32_t frame_count)
      : addresses_(std::bit_ceil(frame_count)),
        mask_(static_cast<std::uint32_t>(addresses_.size() - 1)) {}

  void append(std::uint64_t address) noexcept { addresses_[tail_++ & mask_] = address; }
  void append(const tx_descriptor* descriptors, std::uint32_t count) noexcept {
    const std::uint32_t at = tail_ & mask_;
    const std::uint32_t before_wrap = std::min(count, mask_ + 1 - at);
    copy_addresses(descriptors, before_wrap, addresses_.data() + at);
    if (before_wrap != count) [[unlikely]]
      copy_addresses(descriptors + before_wrap, count - before_wrap, addresses_.data());
    tail_ += count;
  }

  /// Whether the oldest but `skip` are these; then `frames` are theirs, of 2 ^ `shift` bytes each.
  [[nodiscard]] bool begins_with(const std::uint64_t* addresses, std::uint32_t skip,
                                 std::uint32_t count, unsigned shift,
                                 frame_index* frames) const noexcept {
    const std::uint32_t at = (head_ + skip) & mask_;
    const std::uint32_t before_wrap = std::min(count, mask_ + 1 - at);
    return frames_as_expected(addresses, addresses_.data() + at, before_wrap, shift, frames) &&
           (before_wrap == count ||
            frames_as_expected(addresses + before_wrap, addresses_.data(), count - before_wrap,
                               shift, frames + before_wrap));
  }
  /// Forgets the oldest.
  void drop(std::uint32_t count) noexcept { head_ += count; }

  /// Takes all out, the oldest first: `each(address)`.
  template <class Each>
  void clear(Each&& each) noexcept {
    for (; head_ != tail_; ++head_) each(addresses_[head_ & mask_]);
  }

 private:
  std::vector<std::uint64_t> addresses_;
  std::uint32_t mask_;
  std::uint32_t head_ = 0, tail_ = 0;
};

}  // namespace cowire::detail

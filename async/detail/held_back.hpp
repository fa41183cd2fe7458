// SPDX-License-Identifier: Apache-2.0
/// Datagrams of senders that shed, which wait here instead of in the rings.
///
/// What a ring holds only its core can take out, so a producer with a sender that sheds keeps half
/// of its frames to itself: datagrams of such senders go to the rings while fewer than half are on
/// the way, and are held back here otherwise, where the oldest can give way to a new one. They are
/// handed over by the producer's next call, or by the kernel path's thread when frames come back;
/// both do it under a lock, as all that pushes to the rings of such a producer.
#pragma once

#include <cowire/async/detail/core_links.hpp>
#include <cowire/base/spsc_ring.hpp>
#include <cowire/xdp/tx_counters.hpp>
#include <cowire/xdp/tx_request.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

namespace cowire::detail {

class held_back {
 public:
  /// Of a producer with so many frames, which counts what it submits: before it comes here.
  held_back(core_links& links, std::uint32_t frames, const single_writer_counter& submitted)
      : links_(links), frames_(frames), submitted_(submitted) {}

  /// Before the first sender that sheds. Allocates. Any thread.
  void allow();
  /// The next owner's senders do not shed, unless something is left.
  void forbid_if_empty();

  // The producer's thread.
  /// Whether requests must come through here, those of other senders with pass().
  [[nodiscard]] bool allowed() const noexcept { return allowed_.load(std::memory_order_relaxed); }
  void pass(std::uint32_t core, const tx_request& request) noexcept;
  void hold(std::uint32_t core, const tx_request& request) noexcept;
  /// The oldest one gives way; false if there is none. After allow().
  [[nodiscard]] bool shed_oldest(frame_index& frame) noexcept;

  // Any thread.
  /// Hands over what may go. Sets `waiting` in the channels where something stays.
  void feed() noexcept;
  /// Whether anything may go.
  [[nodiscard]] bool may_feed() noexcept;
  [[nodiscard]] std::uint64_t shed() const noexcept { return shed_.get(); }

 private:
  struct held_request {
    std::uint32_t core;
    tx_request request;
  };

  // With `guard_` locked.
  void push(std::uint32_t core, const tx_request& request) noexcept;
  void hand_over() noexcept;
  [[nodiscard]] bool may_hand_over() noexcept;

  core_links& links_;
  const std::uint32_t frames_;
  const single_writer_counter& submitted_;
  single_writer_counter shed_;
  std::atomic<bool> allowed_{false};
  std::mutex guard_;  ///< If `allowed_`, of all that pushes requests.
  /// Oldest first, as many as there are frames; guarded.
  std::unique_ptr<spsc_ring<held_request>> requests_;
};

}  // namespace cowire::detail

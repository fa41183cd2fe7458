// SPDX-License-Identifier: Apache-2.0
/// The core's side of one egress socket: its rings, what waits for room in them, and when to kick.
///
/// Everything here belongs to the core thread, but `removed`, by which the core tells the control
/// thread that it has let go of the queue.
#pragma once

#include <cowire/base/assert.hpp>
#include <cowire/xdp/tx_counters.hpp>
#include <cowire/xdp/tx_queue.hpp>
#include <cowire/xdp/umem.hpp>

#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <vector>

namespace cowire::detail {

/// Which device each frame is in: the slot's number, or 0.
class frame_ledger {
 public:
  explicit frame_ledger(const frame_memory& memory)
      : memory_(memory), slot_of_frame_(memory.frame_count, 0) {}

  void enter(frame_index frame, egress_slot slot) noexcept {
    COWIRE_DEBUG_ASSERT(slot_of_frame_[frame] == 0);
    slot_of_frame_[frame] = static_cast<std::uint8_t>(slot);
  }
  /// False: that frame is not in that device.
  [[nodiscard]] bool leave(frame_index frame, egress_slot slot) noexcept {
    if (frame >= slot_of_frame_.size() || slot_of_frame_[frame] != slot) return false;
    slot_of_frame_[frame] = 0;
    return true;
  }
  [[nodiscard]] const frame_memory& memory() const noexcept { return memory_; }
  [[nodiscard]] std::uint32_t size() const noexcept { return memory_.frame_count; }

 private:
  static_assert(max_egress_slots <= 256);
  frame_memory memory_;
  std::vector<std::uint8_t> slot_of_frame_;
};

class tx_port {
 public:
  using clock = std::chrono::steady_clock;

  tx_port(egress_slot slot, const tx_queue& queue, frame_ledger& ledger,
          tx_counters::slot& counters);
  tx_port(const tx_port&) = delete;
  tx_port& operator=(const tx_port&) = delete;

  [[nodiscard]] egress_slot slot() const noexcept { return slot_; }
  [[nodiscard]] std::uint32_t outstanding() const noexcept { return outstanding_; }
  [[nodiscard]] std::uint32_t waiting() const noexcept { return tail_ - head_; }
  [[nodiscard]] bool wants_kick() const noexcept { return wants_kick_; }

  /// Puts a descriptor in the device's ring behind all earlier ones, or has it wait where there is
  /// no room.
  void submit(const tx_request& request, const tx_descriptor& descriptor) noexcept {
    if (waiting() == 0 && has_room()) {
      put(request.frame, descriptor);
    } else {
      COWIRE_DEBUG_ASSERT(waiting() <= mask_);
      queued_[tail_++ & mask_] = {request, descriptor};
    }
  }

  /// Moves what waits into the ring, as far as there is room.
  void advance_waiting() noexcept;

  /// Takes the longest waiting request out again; there is one.
  [[nodiscard]] const tx_request& take_waiting() noexcept {
    return queued_[head_++ & mask_].request;
  }

  /// Makes all descriptors since the last commit visible to the device.
  void commit(clock::time_point now) noexcept;

  /// Calls `completed(frame)` for each frame the device is done with; returns how many entries it
  /// read.
  template <class Completed>
  std::uint32_t collect(clock::time_point now, Completed&& completed) noexcept;

  /// Calls the device where it asks for it.
  /// @returns false if it answered "later" because its completions should be collected first.
  [[nodiscard]] bool kick() noexcept;

  /// Kicks for completions that do not come by themselves. Returns whether the device has completed
  /// nothing for longer than `stall_deadline` while it held frames.
  [[nodiscard]] bool watch(clock::time_point now, clock::duration stall_deadline) noexcept;

  /// Takes every frame back that is still in the device: `lost(frame)` for each.
  template <class Lost>
  void abandon(Lost&& lost) noexcept;

  void update_gauges() noexcept {
    counters_.outstanding.set(outstanding_);
    counters_.waiting.set(waiting());
  }

  std::atomic<bool> removed{
      false};  ///< Release by the core when it has let go; acquire by port_removed().
  clock::time_point removal_deadline =
      clock::time_point::max();  ///< Set when the core learns of the removal.

 private:
  struct waiting_request {
    tx_request request;
    tx_descriptor descriptor;
  };

  [[nodiscard]] bool has_room() noexcept {
    if (producer_ - cached_consumer_ < queue_.size) return true;
    // Pairs with the kernel's release of the consumer index: the slots below it have been read.
    cached_consumer_ = std::atomic_ref(*queue_.consumer).load(std::memory_order_acquire);
    return producer_ - cached_consumer_ < queue_.size;
  }
  void put(frame_index frame, const tx_descriptor& descriptor) noexcept {
    queue_.descriptors[producer_++ & (queue_.size - 1)] = descriptor;
    ledger_.enter(frame, slot_);
    ++outstanding_;
  }

  const egress_slot slot_;
  const tx_queue queue_;
  frame_ledger& ledger_;
  tx_counters::slot& counters_;

  std::uint32_t producer_;   ///< Ours; published by commit().
  std::uint32_t committed_;  ///< What is published.
  std::uint32_t cached_consumer_;
  std::uint32_t completion_consumer_;
  std::uint32_t outstanding_ = 0;
  bool wants_kick_ = false;
  bool obey_flag_ =
      false;  ///< False: kick whatever the flag says; drivers without the flag need one to start.
  bool stalled_ = false;
  clock::time_point last_progress_{};
  clock::time_point next_watchdog_{};

  // A ring that holds every frame there is, so that it cannot be full.
  std::vector<waiting_request> queued_;
  std::uint32_t mask_;
  std::uint32_t head_ = 0, tail_ = 0;
};

template <class Completed>
std::uint32_t tx_port::collect(clock::time_point now, Completed&& completed) noexcept {
  // Pairs with the kernel's release of the completion producer: the addresses below it are written.
  const std::uint32_t ready =
      std::atomic_ref(*queue_.completion_producer).load(std::memory_order_acquire);
  const std::uint32_t count = ready - completion_consumer_;
  if (count == 0) return 0;
  std::uint32_t home = 0;
  for (; completion_consumer_ != ready; ++completion_consumer_) {
    const std::uint64_t address =
        queue_.completions[completion_consumer_ & (queue_.completion_size - 1)];
    const frame_index frame = ledger_.memory().frame_at(address);
    if (!ledger_.leave(frame, slot_)) {
      counters_.unknown_completions.add(1);
      continue;
    }
    ++home;
    completed(frame);
  }
  outstanding_ -= home;
  counters_.completed.add(home);
  // Pairs with the kernel's acquire: the entries may be written again.
  std::atomic_ref(*queue_.completion_consumer)
      .store(completion_consumer_, std::memory_order_release);
  last_progress_ = now;
  next_watchdog_ = {};
  stalled_ = false;
  return count;
}

template <class Lost>
void tx_port::abandon(Lost&& lost) noexcept {
  for (frame_index frame = 0; outstanding_ != 0 && frame < ledger_.size(); ++frame) {
    if (!ledger_.leave(frame, slot_)) continue;
    --outstanding_;
    counters_.lost_in_device.add(1);
    lost(frame);
  }
  COWIRE_DEBUG_ASSERT(outstanding_ == 0);
}

}  // namespace cowire::detail

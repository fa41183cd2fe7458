// SPDX-License-Identifier: Apache-2.0
/// The core's side of one egress socket: its rings, what waits for room in them, and when to kick.
///
/// Everything here belongs to the core thread, but `removed`, by which the core tells the control
/// thread that it has let go of the queue.
#pragma once

#include <cowire/base/assert.hpp>
#include <cowire/xdp/detail/submission_order.hpp>
#include <cowire/xdp/tx_core.hpp>
#include <cowire/xdp/tx_counters.hpp>
#include <cowire/xdp/tx_queue.hpp>
#include <cowire/xdp/umem.hpp>

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

namespace cowire::detail {

/// Which device each frame is in: the slot's number, or 0. Of devices that complete in order it
/// knows nothing: submission_order does. A view, so that loops which write into frames can keep it
/// in registers.
class frame_places {
 public:
  frame_places(const frame_memory& memory, std::uint8_t* slot_of_frame) noexcept
      : slot_of_frame_(slot_of_frame),
        count_(memory.frame_count),
        shift_(static_cast<unsigned>(std::countr_zero(memory.frame_size))) {}

  void enter(frame_index frame, std::uint8_t slot) const noexcept {
    COWIRE_DEBUG_ASSERT(slot_of_frame_[frame] == 0);
    slot_of_frame_[frame] = slot;
  }
  /// False: that frame is not in that device.
  [[nodiscard]] bool leave(std::uint64_t frame, std::uint8_t slot) const noexcept {
    if (frame >= count_ || slot_of_frame_[frame] != slot) return false;
    slot_of_frame_[frame] = 0;
    return true;
  }
  /// The frame that an address lies in; there may be no such frame.
  [[nodiscard]] std::uint64_t frame_at(std::uint64_t address) const noexcept {
    return address >> shift_;
  }
  [[nodiscard]] std::uint32_t count() const noexcept { return count_; }
  [[nodiscard]] unsigned shift() const noexcept { return shift_; }

 private:
  static_assert(max_egress_slots <= 256);
  std::uint8_t* slot_of_frame_;
  std::uint32_t count_;
  unsigned shift_;
};

class tx_port {
 public:
  using clock = std::chrono::steady_clock;

  tx_port(egress_slot slot, const tx_queue& queue, const frame_places& places,
          tx_counters::slot& counters);
  tx_port(const tx_port&) = delete;
  tx_port& operator=(const tx_port&) = delete;

  [[nodiscard]] egress_slot slot() const noexcept { return slot_; }
  [[nodiscard]] std::uint32_t outstanding() const noexcept { return outstanding_; }
  [[nodiscard]] std::uint32_t waiting() const noexcept { return tail_ - head_; }
  [[nodiscard]] bool wants_kick() const noexcept { return wants_kick_; }
  /// Whether the device has read all that there is for it.
  [[nodiscard]] bool handed_over() const noexcept;

  /// Puts a descriptor in the device's ring behind all earlier ones, or has it wait where there is
  /// no room.
  void submit(const tx_request& request, const tx_descriptor& descriptor) noexcept {
    if (producer_ != room_end_) [[likely]] {
      put(request.frame, descriptor);
    } else {
      submit_or_wait(request, descriptor);
    }
  }
  /// Where the next `count` descriptors may be written, in one piece; null where there is no such
  /// room. What is written there is for submit_placed(); submit() may be used instead for each of
  /// them in turn, as it writes no place before that was read.
  [[nodiscard]] tx_descriptor* place_for(std::uint32_t count) noexcept;
  /// Submits the descriptors written there, one for each request.
  void submit_placed(std::span<const tx_request> requests) noexcept;

  /// Moves what waits into the ring, as far as there is room.
  void advance_waiting() noexcept;

  /// Takes the longest waiting request out again; there is one.
  [[nodiscard]] const tx_request& take_waiting() noexcept {
    return queued_[head_++ & mask_].request;
  }

  /// Makes all descriptors since the last commit visible to the device.
  void commit(clock::time_point now) noexcept;

  /// What collect() read: `count` entries, of which `home` were frames that the device had.
  struct collected {
    std::uint32_t count;
    std::uint32_t home;
  };
  /// Takes up to tx_batch completions: puts the frames that the device is done with in `frames`.
  [[nodiscard]] collected collect(clock::time_point now,
                                  std::array<frame_index, tx_batch>& frames) noexcept;

  /// Calls the device where it asks for it.
  /// @returns false if it answered "later" because its completions should be collected first.
  [[nodiscard]] bool kick() noexcept;

  /// Kicks for completions that do not come by themselves, and a device that refuses. Returns
  /// whether what waits is to go elsewhere: the device refuses, or has completed nothing for longer
  /// than `stall_deadline` while it held frames.
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

  /// Asks the device how far it has read; whether there is room then. None while it refuses.
  [[nodiscard]] bool find_room() noexcept;
  /// A kick was answered by this errno. As kick().
  [[nodiscard]] bool take_error(int answer) noexcept;
  void submit_or_wait(const tx_request& request, const tx_descriptor& descriptor) noexcept;
  /// How many of `home` completed frames were dropped and not sent.
  [[nodiscard]] std::uint32_t take_dropped(std::uint32_t home) noexcept;
  void put(frame_index frame, const tx_descriptor& descriptor) noexcept {
    queue_.descriptors[producer_++ & descriptor_mask_] = descriptor;
    if (in_order_) {
      order_.append(descriptor.address);
    } else {
      places_.enter(frame, slot_);
    }
  }
  /// Whether the next `count` completions are of what was submitted first, in `frames` then.
  [[nodiscard]] bool collect_in_order(std::uint32_t count, frame_index* frames) noexcept;
  /// How many of the next `count` completions are of frames that the device has, in `frames`.
  [[nodiscard]] std::uint32_t collect_any(std::uint32_t count, frame_index* frames) noexcept;
  /// From now on each frame's place is known, until the device holds nothing.
  void leave_order() noexcept;

  const std::uint8_t slot_;
  const tx_queue queue_;
  const frame_places places_;
  const std::uint32_t descriptor_mask_;
  tx_counters::slot& counters_;

  std::uint32_t producer_;   ///< Ours; published by commit().
  std::uint32_t committed_;  ///< What is published.
  /// Where the room known of ends. Equal to producer_ while requests wait, so that none overtakes
  /// them, and while the device refuses.
  std::uint32_t room_end_;
  std::uint32_t completion_consumer_;
  std::uint32_t outstanding_ = 0;  ///< Committed and not completed.
  std::uint32_t dropped_ = 0;      ///< Of those, dropped by the device, as it said.
  bool wants_kick_ = false;
  bool obey_flag_ =
      false;  ///< False: kick whatever the flag says; drivers without the flag need one to start.
  bool stalled_ = false;
  /// The device takes nothing, by its answer to the last kick: there is no room for anybody until
  /// a kick is answered otherwise.
  bool refuses_ = false;
  clock::time_point last_progress_{};
  clock::time_point next_watchdog_{};

  submission_order order_;
  bool in_order_ = true;  ///< What the device holds is in order_; otherwise in places_.

  // A ring that holds every frame there is, so that it cannot be full.
  std::vector<waiting_request> queued_;
  std::uint32_t mask_;
  std::uint32_t head_ = 0, tail_ = 0;
};

template <class Lost>
void tx_port::abandon(Lost&& lost) noexcept {
  if (in_order_) leave_order();
  for (frame_index frame = 0; outstanding_ != 0 && frame < places_.count(); ++frame) {
    if (!places_.leave(frame, slot_)) continue;
    --outstanding_;
    counters_.lost_in_device.add(1);
    lost(frame);
  }
  dropped_ = 0;
  COWIRE_DEBUG_ASSERT(outstanding_ == 0);
}

}  // namespace cowire::detail

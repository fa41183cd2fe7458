// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/detail/tx_port.hpp>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace cowire::detail {
namespace {

constexpr std::uint32_t need_wakeup_flag = 1;  // XDP_RING_NEED_WAKEUP

/// Longer than any device takes to complete what it works on (about 30 us at 10 Gbit/s and a ring
/// quarter), short against what a user notices. Doubles with each kick that does not help, up to
/// the second: so long a device that works again may wait to be asked, and so often (a system call)
/// one that does not is.
constexpr auto watchdog_first = std::chrono::microseconds(200);
constexpr auto watchdog_last = std::chrono::milliseconds(10);

[[nodiscard]] bool means_later(int error) noexcept {
  return error == EAGAIN || error == EBUSY || error == ENOBUFS;
}

/// Whether the ring is not read until somebody changes something (the table in tx_queue.hpp).
[[nodiscard]] bool means_refusal(int error, bool copies) noexcept {
  return error == ENETDOWN || error == ENXIO || (error == EINVAL && !copies);
}

}  // namespace

tx_port::tx_port(egress_slot slot, const tx_queue& queue, const frame_places& places,
                 tx_counters::slot& counters)
    : slot_(static_cast<std::uint8_t>(slot)),
      queue_(queue),
      places_(places),
      descriptor_mask_(queue.size - 1),
      counters_(counters),
      producer_(*queue.producer),
      committed_(*queue.producer),
      room_end_(*queue.producer),
      completion_consumer_(*queue.completion_consumer),
      order_(places.count()),
      queued_(std::bit_ceil(places.count())),
      mask_(static_cast<std::uint32_t>(queued_.size() - 1)) {
  COWIRE_ASSERT(std::has_single_bit(queue.size) && std::has_single_bit(queue.completion_size));
}

bool tx_port::find_room() noexcept {
  if (refuses_) return false;
  // Pairs with the kernel's release of the consumer index: the slots below it have been read.
  room_end_ = std::atomic_ref(*queue_.consumer).load(std::memory_order_acquire) + queue_.size;
  return producer_ != room_end_;
}

tx_descriptor* tx_port::place_for(std::uint32_t count) noexcept {
  if (room_end_ - producer_ < count &&
      (waiting() != 0 || !find_room() || room_end_ - producer_ < count))
    return nullptr;
  const std::uint32_t at = producer_ & descriptor_mask_;
  return at + count <= queue_.size ? queue_.descriptors + at : nullptr;
}

void tx_port::submit_placed(std::span<const tx_request> requests) noexcept {
  const auto count = static_cast<std::uint32_t>(requests.size());
  const tx_descriptor* const placed = queue_.descriptors + (producer_ & descriptor_mask_);
  producer_ += count;
  if (in_order_) [[likely]]
    return order_.append(placed, count);
  const frame_places places = places_;  // A copy, which stores into it cannot change.
  const std::uint8_t slot = slot_;
  for (const tx_request& request : requests) places.enter(request.frame, slot);
}

bool tx_port::handed_over() const noexcept {
  return waiting() == 0 && !wants_kick_ && (outstanding_ == 0 || !queue_.busy_polled) &&
         std::atomic_ref(*queue_.consumer).load(std::memory_order_relaxed) == committed_;
}

void tx_port::submit_or_wait(const tx_request& request, const tx_descriptor& descriptor) noexcept {
  if (waiting() == 0 && find_room()) return put(request.frame, descriptor);
  COWIRE_DEBUG_ASSERT(waiting() <= mask_);
  queued_[tail_++ & mask_] = {request, descriptor};
}

void tx_port::advance_waiting() noexcept {
  if (waiting() == 0 || !find_room()) return;
  while (waiting() != 0 && producer_ != room_end_) {
    const waiting_request& next = queued_[head_++ & mask_];
    put(next.request.frame, next.descriptor);
  }
}

void tx_port::commit(clock::time_point now) noexcept {
  const std::uint32_t count = producer_ - committed_;
  if (waiting() != 0 && !refuses_) counters_.ring_full.add(1);
  if (queue_.busy_polled && outstanding_ != 0 && !refuses_) wants_kick_ = true;
  if (count == 0) return;
  if (outstanding_ == 0) last_progress_ = now;  // It was idle: its time begins now.
  outstanding_ += count;
  // Pairs with the kernel's acquire of the producer index: the descriptors below it are written.
  std::atomic_ref(*queue_.producer).store(producer_, std::memory_order_release);
  committed_ = producer_;
  counters_.submitted.add(count);
  wants_kick_ = true;
}

tx_port::collected tx_port::collect(clock::time_point now,
                                    std::array<frame_index, tx_batch>& frames) noexcept {
  // Pairs with the kernel's release of the completion producer: the addresses below it are written.
  const std::uint32_t ready =
      std::atomic_ref(*queue_.completion_producer).load(std::memory_order_acquire);
  const std::uint32_t count = std::min<std::uint32_t>(ready - completion_consumer_, tx_batch);
  if (count == 0) return {0, 0};
  const std::uint32_t end = completion_consumer_ + count;
  std::uint32_t home = count;
  if (!in_order_ || !collect_in_order(count, frames.data())) [[unlikely]] {
    if (in_order_) leave_order();
    home = collect_any(count, frames.data());
  }
  completion_consumer_ = end;
  if (home != count) counters_.unknown_completions.add(count - home);
  outstanding_ -= home;
  counters_.completed.add(dropped_ == 0 ? home : home - take_dropped(home));
  // Pairs with the kernel's acquire: the entries may be written again.
  std::atomic_ref(*queue_.completion_consumer).store(end, std::memory_order_release);
  last_progress_ = now;
  next_watchdog_ = {};
  stalled_ = false;
  if (!in_order_ && outstanding_ == 0 && producer_ == committed_) in_order_ = true;
  return {count, home};
}

bool tx_port::collect_in_order(std::uint32_t count, frame_index* frames) noexcept {
  if (count > outstanding_) return false;  // Of what is not committed nothing can be complete.
  const std::uint32_t at = completion_consumer_ & (queue_.completion_size - 1);
  const std::uint32_t before_wrap = std::min(count, queue_.completion_size - at);
  const unsigned shift = places_.shift();
  if (!order_.begins_with(queue_.completions + at, 0, before_wrap, shift, frames)) return false;
  if (before_wrap != count && !order_.begins_with(queue_.completions, before_wrap,
                                                  count - before_wrap, shift, frames + before_wrap))
    return false;
  order_.drop(count);
  return true;
}

std::uint32_t tx_port::collect_any(std::uint32_t count, frame_index* frames) noexcept {
  const frame_places places = places_;  // Copies, which stores into it cannot change.
  const std::uint64_t* const completions = queue_.completions;
  const std::uint32_t mask = queue_.completion_size - 1;
  const std::uint32_t end = completion_consumer_ + count;
  const std::uint8_t slot = slot_;
  std::uint32_t home = 0;
  for (std::uint32_t at = completion_consumer_; at != end; ++at) {
    const std::uint64_t frame = places.frame_at(completions[at & mask]);
    if (places.leave(frame, slot)) [[likely]]
      frames[home++] = static_cast<frame_index>(frame);
  }
  return home;
}

void tx_port::leave_order() noexcept {
  order_.clear([this](std::uint64_t address) {
    places_.enter(static_cast<frame_index>(places_.frame_at(address)), slot_);
  });
  in_order_ = false;
}

std::uint32_t tx_port::take_dropped(std::uint32_t home) noexcept {
  const std::uint32_t count = std::min(home, dropped_);
  dropped_ -= count;
  counters_.lost_in_device.add(count);
  return count;
}

bool tx_port::kick() noexcept {
  // The descriptors must be visible before the flag is read, or a device that goes to sleep between
  // the two is not woken. Pairs with the kernel's barrier between setting the flag and its last
  // look at the ring.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const std::uint32_t flags = std::atomic_ref(*queue_.flags).load(std::memory_order_relaxed);
  if (obey_flag_ && !queue_.busy_polled && (flags & need_wakeup_flag) == 0) {
    wants_kick_ = false;
    return true;
  }
  counters_.kicks.add(1);
  const int answer = queue_.kick(queue_.kick_context);
  refuses_ = false;
  if (answer != 0) [[unlikely]]
    return take_error(answer);
  obey_flag_ = true;
  wants_kick_ = false;
  return true;
}

bool tx_port::take_error(int answer) noexcept {
  if (answer == EBUSY && queue_.copies) {
    // Its completion is in the ring already: whoever frees an skb completes it.
    ++dropped_;
    counters_.kicks_dropped.add(1);
    return false;
  }
  if (means_later(answer)) {
    counters_.kicks_later.add(1);
    return false;
  }
  counters_.kick_errors.add(1);
  counters_.last_kick_error.set(static_cast<std::uint64_t>(answer));
  refuses_ = means_refusal(answer, queue_.copies);
  if (refuses_) room_end_ = producer_;
  obey_flag_ = true;
  wants_kick_ = false;
  return true;
}

bool tx_port::watch(clock::time_point now, clock::duration stall_deadline) noexcept {
  if (outstanding_ == 0 && !refuses_) return false;
  const clock::duration quiet = now - last_progress_;
  if (next_watchdog_ == clock::time_point{}) next_watchdog_ = last_progress_ + watchdog_first;
  if (now >= next_watchdog_) {
    next_watchdog_ = now + std::clamp<clock::duration>(quiet, watchdog_first, watchdog_last);
    counters_.watchdog_kicks.add(1);
    obey_flag_ = false;
    wants_kick_ = true;
  }
  if (quiet < stall_deadline) return refuses_;
  if (outstanding_ != 0 && !std::exchange(stalled_, true)) counters_.stalls.add(1);
  return true;
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/detail/tx_port.hpp>

#include <cerrno>

namespace cowire::detail {
namespace {

constexpr std::uint32_t need_wakeup_flag = 1;  // XDP_RING_NEED_WAKEUP

/// Longer than any device takes to complete what it works on (about 30 us at 10 Gbit/s and a ring
/// quarter), short against what a user notices. Doubles with each kick that does not help.
constexpr auto watchdog_first = std::chrono::microseconds(200);

[[nodiscard]] bool means_later(int error) noexcept {
  return error == EAGAIN || error == EBUSY || error == ENOBUFS;
}

}  // namespace

tx_port::tx_port(egress_slot slot, const tx_queue& queue, frame_ledger& ledger,
                 tx_counters::slot& counters)
    : slot_(slot),
      queue_(queue),
      ledger_(ledger),
      counters_(counters),
      producer_(*queue.producer),
      committed_(*queue.producer),
      cached_consumer_(std::atomic_ref(*queue.consumer).load(std::memory_order_acquire)),
      completion_consumer_(*queue.completion_consumer),
      queued_(std::bit_ceil(ledger.size())),
      mask_(static_cast<std::uint32_t>(queued_.size() - 1)) {
  COWIRE_ASSERT(std::has_single_bit(queue.size) && std::has_single_bit(queue.completion_size));
}

void tx_port::advance_waiting() noexcept {
  while (waiting() != 0 && has_room()) {
    const waiting_request& next = queued_[head_++ & mask_];
    put(next.request.frame, next.descriptor);
  }
}

void tx_port::commit(clock::time_point now) noexcept {
  const std::uint32_t count = producer_ - committed_;
  if (waiting() != 0) counters_.ring_full.add(1);
  if (count == 0) return;
  if (outstanding_ == count) last_progress_ = now;  // It was idle: its time begins now.
  // Pairs with the kernel's acquire of the producer index: the descriptors below it are written.
  std::atomic_ref(*queue_.producer).store(producer_, std::memory_order_release);
  committed_ = producer_;
  counters_.submitted.add(count);
  wants_kick_ = true;
}

bool tx_port::kick() noexcept {
  // The descriptors must be visible before the flag is read, or a device that goes to sleep between
  // the two is not woken. Pairs with the kernel's barrier between setting the flag and its last
  // look at the ring.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const std::uint32_t flags = std::atomic_ref(*queue_.flags).load(std::memory_order_relaxed);
  if (obey_flag_ && (flags & need_wakeup_flag) == 0) {
    wants_kick_ = false;
    return true;
  }
  counters_.kicks.add(1);
  const int answer = queue_.kick(queue_.kick_context);
  if (means_later(answer)) {
    counters_.kicks_later.add(1);
    return false;
  }
  if (answer != 0) {
    counters_.kick_errors.add(1);
    counters_.last_kick_error.set(static_cast<std::uint64_t>(answer));
  }
  obey_flag_ = true;
  wants_kick_ = false;
  return true;
}

bool tx_port::watch(clock::time_point now, clock::duration stall_deadline) noexcept {
  if (outstanding_ == 0) return false;
  const clock::duration quiet = now - last_progress_;
  if (next_watchdog_ == clock::time_point{}) next_watchdog_ = last_progress_ + watchdog_first;
  if (now >= next_watchdog_) {
    next_watchdog_ = now + std::max<clock::duration>(quiet, watchdog_first);
    counters_.watchdog_kicks.add(1);
    obey_flag_ = false;
    wants_kick_ = true;
  }
  if (quiet < stall_deadline) return false;
  if (!stalled_) counters_.stalls.add(1);
  stalled_ = true;
  return true;
}

}  // namespace cowire::detail

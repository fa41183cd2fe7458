// SPDX-License-Identifier: Apache-2.0
/// What a TX core counts. Written by the core alone, read by anyone at any time.
///
/// Each number is a relaxed atomic that only the core stores to, so counting costs a plain add. A
/// snapshot is not a consistent cut while the core runs, but every number is right once the core is
/// quiet, and then
///
///     taken == completed (all slots) + diverted (all reasons) + lost_in_device (all slots) + held
#pragma once

#include <cowire/base/reason.hpp>
#include <cowire/route/forwarding_table.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace cowire {

/// Slots 1 to max_egress_slots - 1 are sockets; slot 0 is the kernel path.
inline constexpr std::size_t max_egress_slots = 64;

/// A number with one writer.
class single_writer_counter {
 public:
  void add(std::uint64_t n) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void set(std::uint64_t n) noexcept { value_.store(n, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t get() const noexcept {
    return value_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// X(identifier, text): one list for counters, snapshot, metrics and documents.
#define COWIRE_TX_CORE_COUNTERS(X)                                                   \
  X(taken, "requests taken from producers")                                          \
  X(held, "requests in the core now: in a device or waiting for room in its ring")   \
  X(batches, "batches with at least one request")                                    \
  X(idle_sleeps, "times the core slept for want of work")                            \
  X(flow_hits, "requests of flows whose hop the core remembered")                    \
  X(flow_misses, "requests of flows that it looked for in vain, and then looked up") \
  X(flow_pauses, "times it looked up without remembering, as nearly all was new")

#define COWIRE_TX_SLOT_COUNTERS(X)                                                     \
  X(submitted, "descriptors put in the device's ring")                                 \
  X(completed, "frames that the device reported as transmitted")                       \
  X(unknown_completions, "completions of frames that were not in the device: ignored") \
  X(lost_in_device, "frames that the device dropped, as it said, or never completed")  \
  X(outstanding, "frames in the device now")                                           \
  X(waiting, "requests waiting for room in the device's ring now")                     \
  X(ring_full, "batches that found too little room in the device's ring")              \
  X(kicks, "system calls that woke the device")                                        \
  X(kicks_later, "kicks answered EAGAIN, EBUSY or ENOBUFS: repeated")                  \
  X(kicks_dropped, "kicks answered that a frame was dropped (EBUSY in copy mode)")     \
  X(kick_errors, "kicks answered by any other error")                                  \
  X(last_kick_error, "errno of the last of those")                                     \
  X(watchdog_kicks, "kicks for completions that did not come by themselves")           \
  X(stalls, "times the device completed nothing for longer than its deadline")

/// A copy of all numbers, for reading.
struct tx_snapshot {
  struct slot {
    std::uint32_t interface_index = 0;  ///< 0 = never used.
#define COWIRE_X(identifier, text) std::uint64_t identifier = 0;
    COWIRE_TX_SLOT_COUNTERS(COWIRE_X)
#undef COWIRE_X
  };
#define COWIRE_X(identifier, text) std::uint64_t identifier = 0;
  COWIRE_TX_CORE_COUNTERS(COWIRE_X)
#undef COWIRE_X
  std::array<std::uint64_t, divert_reason_count> diverted{};  ///< Indexed by divert_reason.
  std::array<slot, max_egress_slots> slots{};

  [[nodiscard]] std::uint64_t completed_total() const noexcept;
  [[nodiscard]] std::uint64_t diverted_total() const noexcept;
  [[nodiscard]] std::uint64_t lost_total() const noexcept;
};

/// The live numbers.
struct tx_counters {
  struct alignas(128) slot {
    std::atomic<std::uint32_t> interface_index{
        0};  ///< Written by the control thread in add_port().
#define COWIRE_X(identifier, text) single_writer_counter identifier;
    COWIRE_TX_SLOT_COUNTERS(COWIRE_X)
#undef COWIRE_X
  };
#define COWIRE_X(identifier, text) single_writer_counter identifier;
  COWIRE_TX_CORE_COUNTERS(COWIRE_X)
#undef COWIRE_X
  std::array<single_writer_counter, divert_reason_count> diverted;
  std::array<slot, max_egress_slots> slots;

  /// Any thread.
  [[nodiscard]] tx_snapshot snapshot() const noexcept {
    tx_snapshot s;
#define COWIRE_X(identifier, text) s.identifier = identifier.get();
    COWIRE_TX_CORE_COUNTERS(COWIRE_X)
#undef COWIRE_X
    for (std::size_t i = 0; i < divert_reason_count; ++i) s.diverted[i] = diverted[i].get();
    for (std::size_t i = 0; i < max_egress_slots; ++i) {
      s.slots[i].interface_index = slots[i].interface_index.load(std::memory_order_relaxed);
#define COWIRE_X(identifier, text) s.slots[i].identifier = slots[i].identifier.get();
      COWIRE_TX_SLOT_COUNTERS(COWIRE_X)
#undef COWIRE_X
    }
    return s;
  }
};

inline std::uint64_t tx_snapshot::completed_total() const noexcept {
  std::uint64_t sum = 0;
  for (const slot& s : slots) sum += s.completed;
  return sum;
}
inline std::uint64_t tx_snapshot::diverted_total() const noexcept {
  std::uint64_t sum = 0;
  for (const std::uint64_t n : diverted) sum += n;
  return sum;
}
inline std::uint64_t tx_snapshot::lost_total() const noexcept {
  std::uint64_t sum = 0;
  for (const slot& s : slots) sum += s.lost_in_device;
  return sum;
}

}  // namespace cowire

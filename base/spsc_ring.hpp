// SPDX-License-Identifier: Apache-2.0
/// A bounded ring between exactly one producer thread and one consumer thread, in batches.
///
/// Who may call what:
/// | call                                  | producer | consumer | anyone |
/// |---------------------------------------|----------|----------|--------|
/// | try_push, push_some, writable         | yes      |          |        |
/// | try_pop, pop_some, readable           |          | yes      |        |
/// | size_approximate, capacity            |          |          | yes    |
///
/// "Thread" means serialised use: a strand may be the producer. Elements are trivially copyable. No
/// call allocates, blocks or spins. Not for several producers: give each one its own ring.
///
/// Memory order. Each side owns one index and keeps a private copy of the other's:
/// - the producer writes elements, then stores `tail_` with release; the consumer's acquire load of
/// `tail_` makes
///   those elements visible (release in publish_tail, acquire in refresh_tail);
/// - the consumer reads elements, then stores `head_` with release; the producer's acquire load of
/// `head_` makes
///   sure that it overwrites a slot only after it was read (release in publish_head, acquire in
///   refresh_head).
/// Own indices are loaded relaxed: nobody else writes them. The cached copies (Rigtorp's and
/// Lamport's refinement) keep the other side's cache line untouched until the cached room is used
/// up.
#pragma once

#include <cowire/base/assert.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>

namespace cowire {

template <class T>
class spsc_ring {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  /// Holds at least `capacity` elements (rounded up to a power of two). Allocates here and nowhere
  /// else.
  explicit spsc_ring(std::size_t capacity)
      : mask_(std::bit_ceil(std::max<std::size_t>(capacity, 2)) - 1), slots_(new T[mask_ + 1]) {}
  spsc_ring(const spsc_ring&) = delete;
  spsc_ring& operator=(const spsc_ring&) = delete;

  [[nodiscard]] std::size_t capacity() const noexcept { return mask_ + 1; }

  /// Producer: appends one element; false when full.
  [[nodiscard]] bool try_push(const T& value) noexcept { return push_some({&value, 1}) == 1; }

  /// Producer: appends as many of `values` as fit, in order, with one publication; returns how
  /// many.
  [[nodiscard]] std::size_t push_some(std::span<const T> values) noexcept {
    const std::size_t tail = producer_.tail.load(std::memory_order_relaxed);
    std::size_t room = capacity() - (tail - producer_.cached_head);
    if (room < values.size()) {
      producer_.cached_head =
          consumer_.head.load(std::memory_order_acquire);  // Pairs with pop_some's release.
      room = capacity() - (tail - producer_.cached_head);
    }
    const std::size_t count = std::min(room, values.size());
    for (std::size_t i = 0; i < count; ++i) slots_[(tail + i) & mask_] = values[i];
    if (count != 0)
      producer_.tail.store(tail + count,
                           std::memory_order_release);  // Pairs with pop_some's acquire.
    return count;
  }

  /// Producer: how many elements fit now at least.
  [[nodiscard]] std::size_t writable() noexcept {
    producer_.cached_head = consumer_.head.load(std::memory_order_acquire);
    return capacity() - (producer_.tail.load(std::memory_order_relaxed) - producer_.cached_head);
  }

  /// Consumer: takes one element; false when empty.
  [[nodiscard]] bool try_pop(T& value) noexcept { return pop_some({&value, 1}) == 1; }

  /// Consumer: takes up to `out.size()` elements in order; returns how many.
  [[nodiscard]] std::size_t pop_some(std::span<T> out) noexcept {
    const std::size_t head = consumer_.head.load(std::memory_order_relaxed);
    std::size_t ready = consumer_.cached_tail - head;
    if (ready < out.size()) {
      consumer_.cached_tail =
          producer_.tail.load(std::memory_order_acquire);  // Pairs with push_some's release.
      ready = consumer_.cached_tail - head;
    }
    const std::size_t count = std::min(ready, out.size());
    for (std::size_t i = 0; i < count; ++i) out[i] = slots_[(head + i) & mask_];
    if (count != 0)
      consumer_.head.store(head + count,
                           std::memory_order_release);  // Pairs with push_some's acquire.
    return count;
  }

  /// Consumer: how many elements are ready now at least.
  [[nodiscard]] std::size_t readable() noexcept {
    consumer_.cached_tail = producer_.tail.load(std::memory_order_acquire);
    return consumer_.cached_tail - consumer_.head.load(std::memory_order_relaxed);
  }

  /// Anyone: a number that was right at some moment during the call if both sides are quiet. For
  /// statistics.
  [[nodiscard]] std::size_t size_approximate() const noexcept {
    const std::size_t head = consumer_.head.load(std::memory_order_relaxed);
    return producer_.tail.load(std::memory_order_relaxed) - head;
  }

 private:
  // Two cache lines apart: the adjacent-line prefetcher fetches pairs.
  struct alignas(128) producer_side {
    std::atomic<std::size_t> tail{0};
    std::size_t cached_head = 0;
  };
  struct alignas(128) consumer_side {
    std::atomic<std::size_t> head{0};
    std::size_t cached_tail = 0;
  };

  const std::size_t mask_;
  const std::unique_ptr<T[]> slots_;
  producer_side producer_;
  consumer_side consumer_;
};

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// A bounded ring between exactly one producer thread and one consumer thread, in batches.
///
/// Who may call what:
/// | call                                        | producer | consumer | anyone |
/// |---------------------------------------------|----------|----------|--------|
/// | try_push, try_emplace, push_some, writable  | yes      |          |        |
/// | try_pop, pop_some, peek, drop, readable     |          | yes      |        |
/// | size_approximate, pushed, capacity          |          |          | yes    |
///
/// "Thread" means serialised use: a strand may be the producer. Elements are trivially copyable. No
/// call allocates, blocks or spins. Not for several producers: give each one its own ring.
///
/// Memory order. Each side owns one index, which only it writes, and keeps a private copy of the
/// other's:
/// - The producer writes elements, then stores `tail` with release. The consumer's acquire load of
///   `tail` makes those elements visible to it.
/// - The consumer reads elements, then stores `head` with release. The producer's acquire load of
///   `head` orders those reads before it overwrites the slots.
/// - A side loads its own index relaxed.
/// The private copies keep the other side's cache line untouched until the known room, or the known
/// elements, do not suffice.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <type_traits>

namespace cowire {

template <class T>
class spsc_ring {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  /// Holds at least `capacity` elements (rounded up to a power of two). Allocates here and nowhere
  /// else, and touches all memory so that no page fault comes later.
  explicit spsc_ring(std::size_t capacity)
      : mask_(std::bit_ceil(std::max<std::size_t>(capacity, 2)) - 1),
        slots_(new (std::align_val_t{line}) T[mask_ + 1]()) {}
  spsc_ring(const spsc_ring&) = delete;
  spsc_ring& operator=(const spsc_ring&) = delete;

  [[nodiscard]] std::size_t capacity() const noexcept { return mask_ + 1; }

  /// Producer: appends one element; false when full.
  [[nodiscard]] bool try_push(const T& value) noexcept {
    return try_emplace([&value] { return value; });
  }

  /// Producer: appends what `make()` returns, which is made in its slot: an element that was just
  /// put together member by member elsewhere is slow to copy. False when full, and nothing is made.
  template <class Make>
  [[nodiscard]] bool try_emplace(Make&& make) noexcept {
    const std::size_t tail = producer_.tail.load(std::memory_order_relaxed);
    if (room(tail, 1) == 0) return false;
    ::new (static_cast<void*>(&slots_[tail & mask_])) T(make());
    producer_.tail.store(tail + 1, std::memory_order_release);  // Pairs with ready()'s acquire.
    return true;
  }

  /// Producer: appends as many of `values` as fit, in order, with one publication; returns how
  /// many.
  [[nodiscard]] std::size_t push_some(std::span<const T> values) noexcept {
    const std::size_t tail = producer_.tail.load(std::memory_order_relaxed);
    const std::size_t count = std::min(room(tail, values.size()), values.size());
    if (count == 0) return 0;  // A producer that finds it full leaves its line clean.
    const std::size_t before_wrap = std::min(count, capacity() - (tail & mask_));
    std::copy_n(values.data(), before_wrap, &slots_[tail & mask_]);
    std::copy_n(values.data() + before_wrap, count - before_wrap, &slots_[0]);
    producer_.tail.store(tail + count, std::memory_order_release);  // Pairs with ready()'s acquire.
    return count;
  }

  /// Producer: how many elements fit now at least.
  [[nodiscard]] std::size_t writable() noexcept {
    return room(producer_.tail.load(std::memory_order_relaxed), capacity());
  }

  /// Consumer: takes one element; false when empty.
  [[nodiscard]] bool try_pop(T& value) noexcept {
    const std::size_t head = consumer_.head.load(std::memory_order_relaxed);
    if (ready(head, 1) == 0) return false;
    value = slots_[head & mask_];
    consumer_.head.store(head + 1, std::memory_order_release);  // Pairs with room()'s acquire.
    return true;
  }

  /// Consumer: takes up to `out.size()` elements in order; returns how many.
  [[nodiscard]] std::size_t pop_some(std::span<T> out) noexcept {
    const std::size_t head = consumer_.head.load(std::memory_order_relaxed);
    const std::size_t count = std::min(ready(head, out.size()), out.size());
    if (count == 0) return 0;  // As above: polling an empty ring writes nothing.
    const std::size_t before_wrap = std::min(count, capacity() - (head & mask_));
    std::copy_n(&slots_[head & mask_], before_wrap, out.data());
    std::copy_n(&slots_[0], count - before_wrap, out.data() + before_wrap);
    consumer_.head.store(head + count, std::memory_order_release);  // Pairs with room()'s acquire.
    return count;
  }

  /// Consumer: up to `limit` elements where they lie, behind the first `skip`; in one piece, so
  /// fewer where the memory ends. They stay, and are the consumer's to read, until drop().
  [[nodiscard]] std::span<const T> peek(std::size_t skip, std::size_t limit) noexcept {
    const std::size_t head = consumer_.head.load(std::memory_order_relaxed);
    const std::size_t first = (head + skip) & mask_;
    const std::size_t behind = ready(head, skip + limit) - skip;
    return {&slots_[first], std::min({behind, limit, capacity() - first})};
  }
  /// Consumer: takes the first `count` elements, which peek() has shown.
  void drop(std::size_t count) noexcept {
    const std::size_t head = consumer_.head.load(std::memory_order_relaxed);
    consumer_.head.store(head + count, std::memory_order_release);  // Pairs with room()'s acquire.
  }

  /// Consumer: how many elements are ready now at least.
  [[nodiscard]] std::size_t readable() noexcept {
    return ready(consumer_.head.load(std::memory_order_relaxed), capacity());
  }

  /// Anyone: how many elements were ever pushed. What the producer did before is visible.
  [[nodiscard]] std::size_t pushed() const noexcept {
    return producer_.tail.load(std::memory_order_acquire);
  }

  /// Anyone: the number of elements at some moment if both sides are quiet, else a number between 0
  /// and capacity(). For statistics.
  [[nodiscard]] std::size_t size_approximate() const noexcept {
    // Acquire: a head from which the consumer has moved on comes with the tail that it has seen, so
    // that the difference is not negative.
    const std::size_t head = consumer_.head.load(std::memory_order_acquire);
    return std::min(producer_.tail.load(std::memory_order_relaxed) - head, capacity());
  }

 private:
  static constexpr std::size_t line = 64;

  /// Elements that fit; asks the consumer's index if fewer than `wanted` are known to.
  [[nodiscard]] std::size_t room(std::size_t tail, std::size_t wanted) noexcept {
    std::size_t known = capacity() - (tail - producer_.cached_head);
    if (known < wanted) {
      producer_.cached_head = consumer_.head.load(std::memory_order_acquire);
      known = capacity() - (tail - producer_.cached_head);
    }
    return known;
  }

  /// Elements to take; asks the producer's index if fewer than `wanted` are known.
  [[nodiscard]] std::size_t ready(std::size_t head, std::size_t wanted) noexcept {
    std::size_t known = consumer_.cached_tail - head;
    if (known < wanted) {
      consumer_.cached_tail = producer_.tail.load(std::memory_order_acquire);
      known = consumer_.cached_tail - head;
    }
    return known;
  }

  struct free_slots {
    void operator()(T* slots) const noexcept { ::operator delete[](slots, std::align_val_t{line}); }
  };
  // Two cache lines apart: the adjacent-line prefetcher fetches pairs.
  struct alignas(2 * line) producer_side {
    std::atomic<std::size_t> tail{0};
    std::size_t cached_head = 0;
  };
  struct alignas(2 * line) consumer_side {
    std::atomic<std::size_t> head{0};
    std::size_t cached_tail = 0;
  };

  const std::size_t mask_;
  const std::unique_ptr<T[], free_slots> slots_;  ///< Aligned: a 64-byte element is one line.
  producer_side producer_;
  consumer_side consumer_;
};

}  // namespace cowire

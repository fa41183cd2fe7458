// SPDX-License-Identifier: Apache-2.0
/// Two threads, a sequence that must arrive whole and in order, batches of random size.
#include <cowire/base/spsc_ring.hpp>

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <random>
#include <string>
#include <thread>

namespace cowire {
namespace {

/// As large as a queued datagram's description; every word must come from the same push.
struct element {
  std::array<std::uint64_t, 8> words;
};

constexpr std::uint64_t total = 200'000;
constexpr std::size_t largest_batch = 70;

void produce(spsc_ring<element>& ring, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::array<element, largest_batch> batch;
  for (std::uint64_t next = 0; next < total;) {
    const std::size_t wanted = std::min<std::uint64_t>(1 + random() % largest_batch, total - next);
    for (std::size_t i = 0; i < wanted; ++i) batch[i].words.fill(next + i);
    const std::size_t pushed =
        wanted == 1 ? (ring.try_push(batch[0]) ? 1u : 0u) : ring.push_some({batch.data(), wanted});
    if (pushed == 0) std::this_thread::yield();
    next += pushed;
  }
}

/// The number of the first element that is wrong; `total` if none is.
std::uint64_t consume(spsc_ring<element>& ring, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::array<element, largest_batch> batch;
  for (std::uint64_t next = 0; next < total;) {
    const std::size_t wanted = 1 + random() % largest_batch;
    const std::size_t popped =
        wanted == 1 ? (ring.try_pop(batch[0]) ? 1u : 0u) : ring.pop_some({batch.data(), wanted});
    if (popped == 0) std::this_thread::yield();
    for (std::size_t i = 0; i < popped; ++i, ++next) {
      for (const std::uint64_t word : batch[i].words) {
        if (word != next) return next;
      }
    }
  }
  return total;
}

void run(std::size_t capacity) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed) + ", capacity " + std::to_string(capacity));
  spsc_ring<element> ring(capacity);
  std::atomic<bool> stop{false};
  std::size_t largest_seen = 0;
  std::thread observer([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      largest_seen = std::max(largest_seen, ring.size_approximate());
      std::this_thread::yield();
    }
  });
  std::thread producer([&] { produce(ring, seed); });
  EXPECT_EQ(consume(ring, seed + 1), total);
  producer.join();
  stop.store(true);
  observer.join();
  EXPECT_EQ(ring.readable(), 0u);
  EXPECT_LE(largest_seen, ring.capacity());
}

TEST(spsc_ring_stress, a_tiny_ring_loses_and_reorders_nothing) { run(2); }
TEST(spsc_ring_stress, a_ring_smaller_than_a_batch_loses_and_reorders_nothing) { run(32); }
TEST(spsc_ring_stress, a_large_ring_loses_and_reorders_nothing) { run(1024); }

}  // namespace
}  // namespace cowire

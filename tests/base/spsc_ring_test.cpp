// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/spsc_ring.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <deque>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace cowire {
namespace {

TEST(spsc_ring, capacity_is_rounded_up_to_a_power_of_two) {
  EXPECT_EQ(spsc_ring<int>(0).capacity(), 2u);
  EXPECT_EQ(spsc_ring<int>(1).capacity(), 2u);
  EXPECT_EQ(spsc_ring<int>(64).capacity(), 64u);
  EXPECT_EQ(spsc_ring<int>(65).capacity(), 128u);
}

TEST(spsc_ring, keeps_order_through_many_wraps) {
  spsc_ring<int> ring(4);
  int value = 0;
  EXPECT_FALSE(ring.try_pop(value));
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(ring.try_push(2 * i));
    EXPECT_TRUE(ring.try_push(2 * i + 1));
    EXPECT_TRUE(ring.try_pop(value));
    EXPECT_EQ(value, 2 * i);
    EXPECT_TRUE(ring.try_pop(value));
    EXPECT_EQ(value, 2 * i + 1);
    EXPECT_FALSE(ring.try_pop(value));
  }
}

TEST(spsc_ring, fills_to_its_capacity_and_not_beyond_twice) {
  spsc_ring<int> ring(8);
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 8; ++i) EXPECT_TRUE(ring.try_push(i));
    EXPECT_FALSE(ring.try_push(8));
    EXPECT_EQ(ring.writable(), 0u);
    EXPECT_EQ(ring.readable(), 8u);
    EXPECT_EQ(ring.size_approximate(), 8u);
    int value = -1;
    for (int i = 0; i < 8; ++i) {
      EXPECT_TRUE(ring.try_pop(value));
      EXPECT_EQ(value, i);
    }
    EXPECT_FALSE(ring.try_pop(value));
    EXPECT_EQ(ring.writable(), 8u);
    EXPECT_EQ(ring.readable(), 0u);
    EXPECT_EQ(ring.size_approximate(), 0u);
  }
}

TEST(spsc_ring, a_batch_that_does_not_fit_is_taken_in_part) {
  spsc_ring<int> ring(8);
  std::array<int, 11> in;
  std::iota(in.begin(), in.end(), 0);
  EXPECT_EQ(ring.push_some({}), 0u);
  EXPECT_EQ(ring.push_some(in), 8u);
  EXPECT_EQ(ring.push_some(in), 0u);
  std::array<int, 5> out{};
  EXPECT_EQ(ring.pop_some({}), 0u);
  EXPECT_EQ(ring.pop_some(out), 5u);
  EXPECT_EQ(out, (std::array{0, 1, 2, 3, 4}));
  EXPECT_EQ(ring.push_some(std::span(in).subspan(8)), 3u);  // Over the wrap.
  EXPECT_EQ(ring.pop_some(out), 5u);
  EXPECT_EQ(out, (std::array{5, 6, 7, 8, 9}));
  EXPECT_EQ(ring.pop_some(out), 1u);
  EXPECT_EQ(out[0], 10);
  EXPECT_EQ(ring.pop_some(out), 0u);
}

TEST(spsc_ring, agrees_with_a_deque_over_random_calls) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  spsc_ring<std::uint64_t> ring(32);
  std::deque<std::uint64_t> model;
  std::uint64_t next = 0;
  for (int step = 0; step < 20'000; ++step) {
    const std::size_t count = random() % 40;
    const std::uint64_t what = random() % 4;
    if (what < 2) {
      std::vector<std::uint64_t> values(count);
      std::iota(values.begin(), values.end(), next);
      const std::size_t pushed = ring.push_some(values);
      ASSERT_EQ(pushed, std::min(count, ring.capacity() - model.size()));
      model.insert(model.end(), values.begin(), values.begin() + static_cast<long>(pushed));
      next += pushed;
    } else if (what == 2) {
      // Elements that are looked at lie where the first `skip` and the wrap leave them.
      const std::size_t skip = random() % (model.size() + 1);
      const std::size_t to_wrap = ring.capacity() - (next - model.size() + skip) % ring.capacity();
      const auto shown = ring.peek(skip, count);
      ASSERT_EQ(shown.size(), std::min({count, model.size() - skip, to_wrap}));
      for (std::size_t i = 0; i < shown.size(); ++i) ASSERT_EQ(shown[i], model[skip + i]);
      ASSERT_EQ(ring.size_approximate(), model.size()) << "they stay until they are dropped";
      const std::size_t dropped = random() % (skip + shown.size() + 1);
      ring.drop(dropped);
      model.erase(model.begin(), model.begin() + static_cast<long>(dropped));
    } else {
      std::vector<std::uint64_t> values(count);
      const std::size_t popped = ring.pop_some(values);
      ASSERT_EQ(popped, std::min(count, model.size()));
      for (std::size_t i = 0; i < popped; ++i) {
        ASSERT_EQ(values[i], model.front());
        model.pop_front();
      }
    }
    ASSERT_EQ(ring.size_approximate(), model.size());
    // Not always: each brings what its side knows of the other up to date.
    if (random() % 2 == 0) {
      ASSERT_EQ(ring.readable(), model.size());
    }
    if (random() % 2 == 0) {
      ASSERT_EQ(ring.writable(), ring.capacity() - model.size());
    }
  }
}

}  // namespace
}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/frame_pool.hpp>

#include <gtest/gtest.h>

#include <set>

namespace cowire {
namespace {

TEST(frame_pool, hands_out_every_frame_of_its_slice_once) {
  const frame_memory memory{nullptr, 2048, 256};
  frame_pool pool(memory, {64, 128});
  for (int round = 0; round < 2; ++round) {
    std::set<frame_index> seen;
    frame_index frame;
    while (pool.try_acquire(frame)) {
      EXPECT_GE(frame, 64u);
      EXPECT_LT(frame, 192u);
      EXPECT_TRUE(seen.insert(frame).second);
    }
    EXPECT_EQ(seen.size(), 128u);
    EXPECT_EQ(pool.free_count(), 0u);
    for (const frame_index f : seen) pool.release(f);
    EXPECT_EQ(pool.free_count(), 128u);
  }
}

TEST(frame_pool, reuses_the_frame_released_last) {
  frame_pool pool({nullptr, 2048, 64}, {0, 64});
  frame_index first = 0, second = 0, again = 0;
  ASSERT_TRUE(pool.try_acquire(first) && pool.try_acquire(second));
  pool.release(first);
  ASSERT_TRUE(pool.try_acquire(again));
  EXPECT_EQ(again, first);
}

#if defined(COWIRE_DEBUG_CHECKS)
TEST(frame_pool_death, a_frame_released_twice_is_an_assertion) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  frame_pool pool({nullptr, 2048, 64}, {0, 64});
  frame_index frame = 0;
  ASSERT_TRUE(pool.try_acquire(frame));
  pool.release(frame);
  EXPECT_DEATH(pool.release(frame), "is_free_");
}
#endif

}  // namespace
}  // namespace cowire

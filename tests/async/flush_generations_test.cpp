// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/flush_generations.hpp>

#include <gtest/gtest.h>

#include <string>

namespace cowire::detail {
namespace {

constexpr frame_slice slice{.first = 100, .count = 8};

TEST(flush_generations, one_with_nothing_on_the_way_is_over_at_once) {
  flush_generations flushes(slice);
  EXPECT_TRUE(flushes.is_over(flushes.close()));
  EXPECT_TRUE(flushes.is_over(flushes.close()));
}

TEST(flush_generations, one_is_over_when_all_before_it_came_back_whatever_is_submitted_later) {
  flush_generations flushes(slice);
  flushes.note_submitted(100);
  const auto first = flushes.close();
  flushes.note_submitted(107);
  const auto second = flushes.close();
  flushes.note_submitted(103);
  flushes.note_returned(107);  // The second one's only frame, before the first one's.
  flushes.settle();
  EXPECT_FALSE(flushes.is_over(first));
  EXPECT_FALSE(flushes.is_over(second));
  flushes.note_returned(100);
  flushes.settle();
  EXPECT_TRUE(flushes.is_over(first));
  EXPECT_TRUE(flushes.is_over(second));
  EXPECT_FALSE(flushes.is_over(flushes.close()));  // Frame 103.
}

TEST(flush_generations, closing_again_without_a_new_frame_is_the_same_one) {
  flush_generations flushes(slice);
  flushes.note_submitted(101);
  const auto first = flushes.close();
  EXPECT_EQ(first, flushes.close());
  flushes.note_submitted(102);
  EXPECT_EQ(first + 1, flushes.close());
}

TEST(flush_generations, promises_are_kept_in_order_and_once) {
  flush_generations flushes(slice);
  std::string kept;
  flushes.when_over([&] { kept += "0"; });
  EXPECT_EQ("0", kept);
  flushes.note_submitted(100);
  flushes.when_over([&] { kept += "1"; });
  flushes.note_submitted(101);
  flushes.when_over([&] { kept += "2"; });
  flushes.note_returned(101);
  flushes.settle();
  EXPECT_EQ("0", kept);
  flushes.note_returned(100);
  flushes.settle();
  flushes.settle();
  EXPECT_EQ("012", kept);
}

}  // namespace
}  // namespace cowire::detail

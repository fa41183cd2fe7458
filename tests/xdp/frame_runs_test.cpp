// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/detail/frame_runs.hpp>
#include <cowire/xdp/detail/submission_order.hpp>

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace cowire::detail {
namespace {

constexpr unsigned shift = 11;

std::vector<std::uint64_t> addresses(std::uint32_t count, std::uint64_t first_frame = 5) {
  std::vector<std::uint64_t> made;
  for (std::uint32_t i = 0; i < count; ++i) made.push_back(((first_frame + 3 * i) << shift) + 86);
  return made;
}

TEST(frame_runs, compare_every_address_to_the_last_bit) {
  for (std::uint32_t count = 0; count <= 64; ++count) {
    const auto expected = addresses(count);
    std::vector<frame_index> frames(count + 1, 77);
    EXPECT_TRUE(frames_as_expected(expected.data(), expected.data(), count, shift, frames.data()));
    for (std::uint32_t i = 0; i < count; ++i) EXPECT_EQ(frames[i], 5 + 3 * i);
    EXPECT_EQ(frames[count], 77u) << "one too many was written";
    for (std::uint32_t wrong = 0; wrong < count; ++wrong) {
      for (const unsigned bit : {0u, 11u, 31u, 32u, 63u}) {
        auto others = expected;
        others[wrong] ^= std::uint64_t{1} << bit;
        EXPECT_FALSE(
            frames_as_expected(others.data(), expected.data(), count, shift, frames.data()))
            << count << ' ' << wrong << ' ' << bit;
      }
    }
  }
}

TEST(frame_runs, copy_the_addresses_of_descriptors) {
  for (std::uint32_t count = 0; count <= 64; ++count) {
    const auto expected = addresses(count, (std::uint64_t{1} << 40));
    std::vector<tx_descriptor> descriptors;
    for (const std::uint64_t a : expected) descriptors.push_back({a, 0xffffffff, 0xffffffff});
    std::vector<std::uint64_t> copied(count + 1, 77);
    copy_addresses(descriptors.data(), count, copied.data());
    EXPECT_EQ(copied.back(), 77u);
    copied.pop_back();
    EXPECT_EQ(copied, expected);
  }
}

TEST(frame_runs, find_the_one_that_is_outside) {
  for (std::uint32_t count = 1; count <= 64; ++count) {
    std::vector<frame_index> frames(count);
    std::iota(frames.begin(), frames.end(), 128u);
    EXPECT_TRUE(all_within(frames, 128, 191));
    EXPECT_TRUE(all_within(frames, 128, 128 + count - 1));
    for (std::uint32_t wrong = 0; wrong < count; ++wrong) {
      for (const frame_index outside : {0u, 127u, 192u, 0x7fffffffu}) {
        auto others = frames;
        others[wrong] = outside;
        EXPECT_FALSE(all_within(others, 128, 191)) << count << ' ' << wrong << ' ' << outside;
      }
    }
  }
}

TEST(submission_order, is_kept_over_the_end_of_its_memory) {
  submission_order order(64);
  std::uint32_t next_in = 0, next_out = 0;
  const auto address = [](std::uint32_t i) { return (std::uint64_t{i % 64} << shift) + i; };
  for (std::uint32_t round = 0; round < 500; ++round) {
    const std::uint32_t count = std::min(1 + round * 7 % 40, 64 - (next_in - next_out));
    std::vector<tx_descriptor> descriptors;
    for (std::uint32_t i = 0; i < count; ++i) descriptors.push_back({address(next_in++), 1, 0});
    if (round % 3 == 0) {
      for (const tx_descriptor& d : descriptors) order.append(d.address);
    } else {
      order.append(descriptors.data(), count);
    }
    std::vector<std::uint64_t> completed;
    const std::uint32_t done = std::min(1 + round * 11 % 50, next_in - next_out);
    for (std::uint32_t i = 0; i < done; ++i) completed.push_back(address(next_out++));
    std::vector<frame_index> frames(done);
    // In two parts, as where the completion ring ends.
    const std::uint32_t part = done / 3;
    ASSERT_TRUE(order.begins_with(completed.data(), 0, part, shift, frames.data()));
    ASSERT_TRUE(
        order.begins_with(completed.data() + part, part, done - part, shift, frames.data() + part));
    for (std::uint32_t i = 0; i < done; ++i) EXPECT_EQ(frames[i], completed[i] >> shift);
    completed.back() ^= 1;
    ASSERT_FALSE(order.begins_with(completed.data(), 0, done, shift, frames.data()));
    order.drop(done);
  }
  std::vector<std::uint64_t> rest;
  order.clear([&](std::uint64_t a) { rest.push_back(a); });
  EXPECT_EQ(rest.size(), next_in - next_out);
  for (const std::uint64_t a : rest) EXPECT_EQ(a, address(next_out++));
}

}  // namespace
}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/pacer.hpp>

#include <gtest/gtest.h>

namespace cowire::cli {
namespace {

using namespace std::chrono_literals;

const pacer::clock::time_point start{1h};

// Sends all that is due whenever the pacer wants to be asked; returns how many by `end`.
std::uint64_t run_until(pacer& pace, pacer::clock::time_point now, pacer::clock::time_point end) {
  std::uint64_t total = 0;
  while (now < end) {
    const auto due = pace.due(now);
    pace.sent(due);
    total += due;
    now = due == 0 ? pace.next(now) : now;
  }
  return total;
}

TEST(pacer, sends_the_first_datagram_at_once) {
  pacer pace(10, start);
  EXPECT_EQ(pace.due(start), 1u);
}

TEST(pacer, is_exact_over_time_at_low_and_high_rates) {
  for (const double rate : {0.5, 3.0, 1000.0, 44'100.0, 1e6}) {
    pacer pace(rate, start);
    const auto total = static_cast<double>(run_until(pace, start, start + 20s));
    EXPECT_NEAR(total, rate * 20, rate / 1000 + 1) << rate;
  }
}

TEST(pacer, gives_each_datagram_its_own_moment_at_low_rates) {
  pacer pace(100, start);
  pace.sent(pace.due(start));
  EXPECT_EQ(pace.due(start + 5ms), 0u);
  EXPECT_EQ(pace.next(start + 5ms), start + 10ms);
  EXPECT_EQ(pace.due(start + 10ms), 1u);
}

TEST(pacer, wakes_at_most_once_a_millisecond_at_high_rates) {
  pacer pace(1e6, start);
  pace.sent(pace.due(start));
  EXPECT_EQ(pace.next(start), start + 1ms);
  EXPECT_EQ(pace.due(start + 1ms), 1000u);
}

TEST(pacer, does_not_flood_after_a_pause) {
  pacer pace(1000, start);
  pace.sent(pace.due(start));
  const auto burst = pace.due(start + 10s);
  EXPECT_LE(burst, 101u);
  pace.sent(burst);
  EXPECT_LE(pace.due(start + 10s), 1u);
  EXPECT_NEAR(static_cast<double>(run_until(pace, start + 10s, start + 11s)), 1000, 2);
}

TEST(pacer, keeps_the_lowest_and_the_highest_rate) {
  pacer slow(pacer::rate_pps_min, start);
  slow.sent(slow.due(start));
  EXPECT_EQ(slow.due(start + 24h), 0u);
  EXPECT_EQ(slow.next(start), start + 1'000'000s);
  pacer fast(pacer::rate_pps_max, start);
  EXPECT_EQ(fast.due(start), 1u);
  EXPECT_EQ(fast.due(start + 1ms), 1'000'001u);
  EXPECT_EQ(fast.due(start + 24h), 100'000'000u);
}

TEST(pacer, a_fan_out_counts_each_of_its_datagrams) {
  pacer pace(100, start);
  EXPECT_EQ(pace.due(start), 1u);
  pace.sent(50);
  EXPECT_EQ(pace.due(start + 490ms), 0u);
  EXPECT_EQ(pace.due(start + 500ms), 1u);
}

}  // namespace
}  // namespace cowire::cli

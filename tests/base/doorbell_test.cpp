// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/doorbell.hpp>

#include <gtest/gtest.h>
#include <poll.h>

namespace cowire {
namespace {

bool readable(const doorbell& bell) {
  pollfd p{bell.fd(), POLLIN, 0};
  return ::poll(&p, 1, 0) == 1;
}

TEST(doorbell, rings_only_while_armed_twice) {
  doorbell bell;
  for (int round = 0; round < 2; ++round) {
    bell.ring();
    EXPECT_FALSE(readable(bell));
    bell.arm();
    EXPECT_FALSE(readable(bell));
    bell.ring();
    EXPECT_TRUE(readable(bell));
    bell.disarm();
    EXPECT_FALSE(readable(bell));
  }
}

TEST(doorbell, is_silent_again_when_disarmed_without_a_ring) {
  doorbell bell;
  bell.arm();
  bell.disarm();
  bell.ring();
  EXPECT_FALSE(readable(bell));
}

TEST(doorbell, many_rings_are_one_wake_up) {
  doorbell bell;
  bell.arm();
  for (int i = 0; i < 10; ++i) bell.ring();
  EXPECT_TRUE(readable(bell));
  bell.disarm();
  EXPECT_FALSE(readable(bell));
}

}  // namespace
}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// A consumer that sleeps whenever its queue is empty, producers that ring: a lost wake-up would
/// leave the consumer asleep with work in the queue.
#include <cowire/base/doorbell.hpp>
#include <cowire/base/spsc_ring.hpp>

#include <gtest/gtest.h>
#include <poll.h>

#include <array>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace cowire {
namespace {

constexpr int sleep_limit_ms = 20'000;  // Far above any scheduling delay.

TEST(doorbell_stress, no_wake_up_is_lost) {
  constexpr std::uint64_t per_producer = 30'000;
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  doorbell bell;
  std::array<spsc_ring<std::uint64_t>, 2> rings{spsc_ring<std::uint64_t>(16),
                                                spsc_ring<std::uint64_t>(16)};
  std::vector<std::thread> producers;
  for (auto& ring : rings) {
    producers.emplace_back([&bell, &ring, random = std::mt19937_64(seed)]() mutable {
      for (std::uint64_t next = 0; next < per_producer;) {
        if (ring.try_push(next)) {
          bell.ring();
          ++next;
        }
        if (random() % 4 == 0) std::this_thread::yield();  // So that the consumer runs dry.
      }
    });
  }

  std::array<std::uint64_t, 2> received{};
  std::uint64_t sleeps = 0;
  const auto drain = [&] {
    bool any = false;
    for (std::size_t i = 0; i < rings.size(); ++i) {
      for (std::uint64_t value; rings[i].try_pop(value); any = true) {
        EXPECT_EQ(value, received[i]++);
      }
    }
    return any;
  };
  while (received[0] + received[1] < 2 * per_producer) {
    if (drain()) continue;
    bell.arm();
    if (drain()) {
      bell.disarm();
      continue;
    }
    pollfd p{bell.fd(), POLLIN, 0};
    const int woken = ::poll(&p, 1, sleep_limit_ms);
    bell.disarm();
    ++sleeps;
    if (woken != 1) {
      ADD_FAILURE() << "asleep with " << rings[0].readable() + rings[1].readable() << " queued";
      break;
    }
  }
  // After a failure too: the producers end only when there is room.
  while (received[0] + received[1] < 2 * per_producer) drain();
  for (auto& producer : producers) producer.join();
  EXPECT_GT(sleeps, 0u);
}

}  // namespace
}  // namespace cowire

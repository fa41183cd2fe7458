// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/work_bell.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace cowire {
namespace {

using namespace std::chrono_literals;

/// Work that is counted without atomics: whoever is the core is alone.
struct counted_work {
  std::atomic<std::uint64_t> requests{0};
  std::atomic<bool> stopping{false};
  std::uint64_t served = 0;
  std::uint64_t stand_ins = 0;
  work_bell bell{[](void* self) noexcept { return static_cast<counted_work*>(self)->stand_in(); },
                 this};

  bool serve() noexcept {
    const auto some = requests.exchange(0);
    served += some;
    return some != 0;
  }
  /// Every third one finds that the core had better wake up.
  bool stand_in() noexcept {
    serve();
    return ++stand_ins % 3 != 0 && !stopping;
  }
};

TEST(work_bell, a_ringer_does_the_work_of_a_core_that_sleeps) {
  counted_work work;
  std::thread core([&] {
    work.bell.arm();
    while (!work.stopping) work.bell.wait({.tv_sec = 0, .tv_nsec = 1'000'000});
    work.bell.disarm();
  });
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  // Now and then the core is just between two sleeps.
  for (bool at_once = false; !at_once; at_once = work.requests == 0) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    work.requests = 1;
    work.bell.ring();
  }
  work.stopping = true;
  core.join();
  EXPECT_GT(work.stand_ins, 0u);
}

TEST(work_bell, one_at_a_time_is_the_core_and_no_request_is_slept_over) {
  constexpr std::uint64_t rings = 20'000;
  constexpr unsigned ringer_count = 3;
  counted_work work;
  bool slept_over = false;
  std::thread core([&] {
    while (!work.stopping) {
      if (work.serve()) continue;
      work.bell.arm();
      if (work.requests == 0 && !work.stopping)
        slept_over |= !work.bell.wait({.tv_sec = 20, .tv_nsec = 0});
      work.bell.disarm();
    }
    work.serve();
  });
  std::vector<std::thread> ringers;
  for (unsigned i = 0; i < ringer_count; ++i)
    ringers.emplace_back([&] {
      for (std::uint64_t n = 0; n < rings; ++n) {
        ++work.requests;
        work.bell.ring();
        if (n % 64 == 0) std::this_thread::sleep_for(50us);
      }
    });
  for (auto& one : ringers) one.join();
  work.stopping = true;
  work.bell.ring();
  core.join();
  EXPECT_EQ(work.served, rings * ringer_count);
  EXPECT_FALSE(slept_over);
}

}  // namespace
}  // namespace cowire

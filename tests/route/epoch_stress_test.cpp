// SPDX-License-Identifier: Apache-2.0
/// Readers that come, go and idle while objects are replaced under them. An object that is freed
/// too early is poisoned, which shows without a sanitizer; with one it shows anyhow.
#include <cowire/route/epoch.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace cowire {
namespace {

using namespace std::chrono_literals;

class object {
 public:
  explicit object(std::uint64_t number) : number_(number), copy_(number) {}
  object(const object&) = delete;
  object& operator=(const object&) = delete;
  ~object() {
    number_ = ~std::uint64_t{0};
    copy_ = 0;
  }
  [[nodiscard]] bool whole() const { return number_ == copy_; }
  [[nodiscard]] std::uint64_t number() const { return number_; }

 private:
  volatile std::uint64_t number_;  // Volatile: the poison must be written, the check must be read.
  volatile std::uint64_t copy_;
};

struct shared_state {
  epoch_domain domain;
  std::atomic<object*> published{new object(0)};
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> broken{0}, batches{0};

  ~shared_state() { delete published.load(); }
};

/// Looks at an object for a while. Memory that was freed and used again shows another number.
void check(shared_state& shared, const object& seen, std::uint64_t number, std::uint64_t times) {
  for (; times > 0; --times) {
    if (!seen.whole() || seen.number() != number) shared.broken.fetch_add(1);
  }
}

/// Reads in batches; leaves, re-registers and pauses at random.
void read(shared_state& shared, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  epoch_domain::reader own = shared.domain.register_reader();
  std::uint64_t newest = 0;
  while (!shared.stop.load(std::memory_order_relaxed)) {
    own.enter();
    const object* seen = shared.published.load(std::memory_order_acquire);
    const std::uint64_t number = seen->number();
    if (number < newest) shared.broken.fetch_add(1);
    newest = number;
    if (random() % 64 == 0) std::this_thread::yield();  // Online: the writer has to wait.
    check(shared, *seen, number, random() % 32);
    shared.batches.fetch_add(1, std::memory_order_relaxed);
    const std::uint64_t next = random() % 64;
    if (next < 8) own.leave();
    if (next == 0) own = shared.domain.register_reader();
    if (next == 1) std::this_thread::yield();
  }
}

TEST(epoch_stress, no_reader_ever_sees_a_freed_object) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  shared_state shared;
  std::vector<std::thread> readers;
  for (std::uint64_t i = 0; i < 3; ++i)
    readers.emplace_back([&shared, seed, i] { read(shared, seed + i); });
  std::mt19937_64 random(seed ^ 1);
  const auto end = std::chrono::steady_clock::now() + 2s;
  std::uint64_t number = 0;
  while (std::chrono::steady_clock::now() < end) {
    auto fresh = std::make_unique<object>(++number);
    std::unique_ptr<object> old(shared.published.exchange(fresh.release()));
    shared.domain.retire(std::move(old));
    switch (random() % 8) {
      case 0:
        EXPECT_TRUE(shared.domain.synchronize(std::chrono::steady_clock::now() + 30s));
        EXPECT_EQ(shared.domain.statistics().waiting, 0u);
        break;
      case 1:
        break;  // Let some gather.
      default:
        shared.domain.reclaim();
    }
  }
  shared.stop.store(true);
  for (auto& reader : readers) reader.join();
  EXPECT_EQ(shared.broken.load(), 0u);
  EXPECT_GT(shared.batches.load(), 0u);
  EXPECT_TRUE(shared.domain.synchronize(std::chrono::steady_clock::now() + 30s));
  EXPECT_EQ(shared.domain.statistics().freed, number);
}

/// The one transition that needs a fence, over and over: offline to online against one retirement.
TEST(epoch_stress, coming_online_races_with_reclamation) {
  shared_state shared;
  std::thread reading([&shared] {
    auto own = shared.domain.register_reader();
    while (!shared.stop.load(std::memory_order_relaxed)) {
      own.enter();
      const object* seen = shared.published.load(std::memory_order_acquire);
      check(shared, *seen, seen->number(), 50);
      own.leave();
      shared.batches.fetch_add(1, std::memory_order_relaxed);
    }
  });
  const auto end = std::chrono::steady_clock::now() + 1s;
  for (std::uint64_t number = 1; std::chrono::steady_clock::now() < end; ++number) {
    std::unique_ptr<object> old(shared.published.exchange(new object(number)));
    shared.domain.retire(std::move(old));
    shared.domain.reclaim();
  }
  shared.stop.store(true);
  reading.join();
  EXPECT_EQ(shared.broken.load(), 0u);
  EXPECT_GT(shared.batches.load(), 0u);
}

}  // namespace
}  // namespace cowire

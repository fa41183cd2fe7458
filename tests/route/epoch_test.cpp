// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/epoch.hpp>

#include <gtest/gtest.h>

#include <array>
#include <thread>
#include <vector>

namespace cowire {
namespace {

using namespace std::chrono_literals;

/// Counts its destructions.
struct tracked {
  explicit tracked(int& freed) : freed_(freed) {}
  tracked(const tracked&) = delete;
  tracked& operator=(const tracked&) = delete;
  ~tracked() { ++freed_; }

 private:
  int& freed_;
};

auto soon() { return std::chrono::steady_clock::now() + 5s; }

TEST(epoch, without_readers_everything_is_freed_at_once_twice) {
  int freed = 0;
  epoch_domain domain;
  EXPECT_EQ(domain.reclaim(), 0u);
  for (int round = 1; round <= 2; ++round) {
    domain.retire(std::make_unique<tracked>(freed));
    EXPECT_EQ(domain.statistics().waiting, 1u);
    EXPECT_EQ(domain.statistics().bytes_waiting, sizeof(tracked));
    EXPECT_EQ(domain.reclaim(), 1u);
    EXPECT_EQ(freed, round);
    EXPECT_EQ(domain.statistics().waiting, 0u);
    EXPECT_EQ(domain.statistics().bytes_waiting, 0u);
  }
}

TEST(epoch, an_online_reader_holds_back_until_it_announces_again) {
  int freed = 0;
  epoch_domain domain;
  auto reader = domain.register_reader();
  for (int round = 1; round <= 2; ++round) {
    reader.enter();
    domain.retire(std::make_unique<tracked>(freed));
    EXPECT_EQ(domain.reclaim(), 0u);
    EXPECT_EQ(domain.reclaim(), 0u);
    EXPECT_EQ(freed, round - 1);
    reader.enter();
    EXPECT_EQ(domain.reclaim(), 1u);
    EXPECT_EQ(freed, round);
  }
}

TEST(epoch, what_is_retired_after_an_announcement_needs_another_one) {
  int freed = 0;
  epoch_domain domain;
  auto reader = domain.register_reader();
  reader.enter();
  domain.retire(std::make_unique<tracked>(freed));
  domain.reclaim();
  reader.enter();
  domain.retire(std::make_unique<tracked>(freed));
  EXPECT_EQ(domain.reclaim(), 1u);
  EXPECT_EQ(freed, 1);
  reader.enter();
  EXPECT_EQ(domain.reclaim(), 1u);
  EXPECT_EQ(freed, 2);
}

TEST(epoch, an_offline_reader_holds_back_nothing) {
  int freed = 0;
  epoch_domain domain;
  auto registered_only = domain.register_reader();
  auto idle = domain.register_reader();
  idle.enter();
  idle.leave();
  domain.retire(std::make_unique<tracked>(freed));
  EXPECT_EQ(domain.reclaim(), 1u);
  idle.enter();  // Comes back in the newest epoch.
  domain.retire(std::make_unique<tracked>(freed));
  EXPECT_EQ(domain.reclaim(), 0u);
  idle.leave();
  EXPECT_EQ(domain.reclaim(), 1u);
}

TEST(epoch, the_slowest_reader_counts) {
  int freed = 0;
  epoch_domain domain;
  std::vector<epoch_domain::reader> readers;
  for (int i = 0; i < 3; ++i) {
    readers.push_back(domain.register_reader());
    readers.back().enter();
  }
  domain.retire(std::make_unique<tracked>(freed));
  for (auto& reader : readers) {
    EXPECT_EQ(domain.reclaim(), 0u);
    reader.enter();
  }
  EXPECT_EQ(domain.reclaim(), 1u);
}

TEST(epoch, destroying_a_reader_releases_it_and_its_slot_is_used_again) {
  int freed = 0;
  epoch_domain domain;
  for (int round = 0; round < 3; ++round) {
    auto reader = domain.register_reader();
    reader.enter();
    domain.retire(std::make_unique<tracked>(freed));
    EXPECT_EQ(domain.reclaim(), 0u);
    epoch_domain::reader moved = std::move(reader);
    EXPECT_FALSE(reader);
    EXPECT_TRUE(moved);
    EXPECT_EQ(domain.reclaim(), 0u);
    moved = {};
    EXPECT_EQ(domain.reclaim(), 1u);
  }
}

TEST(epoch, synchronize_gives_up_at_its_deadline_and_succeeds_later) {
  int freed = 0;
  epoch_domain domain;
  auto reader = domain.register_reader();
  reader.enter();
  domain.retire(std::make_unique<tracked>(freed));
  EXPECT_FALSE(domain.synchronize(std::chrono::steady_clock::now() + 2ms));
  EXPECT_EQ(freed, 0);
  reader.leave();
  EXPECT_TRUE(domain.synchronize(soon()));
  EXPECT_EQ(freed, 1);
  EXPECT_TRUE(domain.synchronize(soon()));  // Nothing to wait for.
}

TEST(epoch, a_destroyed_object_may_retire_others) {
  struct chain {
    epoch_domain& domain;
    int left;
    int& freed;
    ~chain() {
      ++freed;
      if (left > 0) domain.retire(std::make_unique<chain>(domain, left - 1, freed));
    }
    chain(epoch_domain& d, int l, int& f) : domain(d), left(l), freed(f) {}
  };
  int freed = 0;
  epoch_domain domain;
  auto reader = domain.register_reader();
  domain.retire(std::make_unique<chain>(domain, 2, freed));
  EXPECT_EQ(domain.reclaim(), 1u);
  reader.enter();
  EXPECT_EQ(domain.reclaim(), 0u);  // Retired a moment ago: the reader may hold it.
  reader.leave();
  EXPECT_EQ(domain.reclaim(), 1u);
  EXPECT_EQ(domain.reclaim(), 1u);
  EXPECT_EQ(freed, 3);
}

TEST(epoch, the_domain_frees_what_still_waits_when_it_goes) {
  int freed = 0;
  {
    epoch_domain domain;
    domain.retire(std::make_unique<tracked>(freed));
    domain.retire(std::unique_ptr<const tracked>(new tracked(freed)), 100);
    EXPECT_EQ(domain.statistics().bytes_waiting, sizeof(tracked) + 100);
  }
  EXPECT_EQ(freed, 2);
}

TEST(epoch, one_epoch_covers_everything_retired_between_two_calls) {
  int freed = 0;
  epoch_domain domain;
  for (int i = 0; i < 10; ++i) domain.retire(std::make_unique<tracked>(freed));
  EXPECT_EQ(domain.reclaim(), 10u);
  EXPECT_EQ(domain.statistics().epochs, 1u);
  EXPECT_EQ(domain.statistics().freed, 10u);
  domain.reclaim();
  EXPECT_EQ(domain.statistics().epochs, 1u);
}

}  // namespace
}  // namespace cowire

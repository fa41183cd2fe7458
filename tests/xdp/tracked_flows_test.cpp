// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/tracked_flows.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <random>
#include <thread>
#include <vector>

namespace cowire {
namespace {

tracked_key key(std::uint32_t number) {
  tracked_key out;
  out.words = {0, std::uint64_t{number} << 32, 0, 0x0100007f00000000, 0x0000'2823'411f};
  return out;
}

/// The table of the control thread and a reader that never leaves the epoch for long.
class tracked_flows_table : public ::testing::Test {
 protected:
  /// What was removed may be used again.
  void settle() {
    flows_.retire_removed(epochs_);
    epochs_.reclaim();
    epochs_.reclaim();
  }
  std::optional<divert_reason> use(std::uint32_t number, tracked_flows::time_ms now) {
    const auto hash = flows_.hash_of(key(number));
    return flows_.use(flows_.find_line(key(number), hash), now);
  }

  epoch_domain epochs_;
  tracked_flows flows_{100};
};

TEST_F(tracked_flows_table, says_send_only_while_a_flow_is_good) {
  EXPECT_EQ(use(1, 50), divert_reason::conntrack_new);
  const auto at = flows_.insert(key(1));
  ASSERT_NE(at, tracked_flows::none);
  EXPECT_EQ(use(1, 50), divert_reason::conntrack_new);
  flows_[at].good_until.store(60, std::memory_order_relaxed);
  EXPECT_EQ(use(1, 59), std::nullopt);
  EXPECT_EQ(flows_[at].last_sent.load(), 59);
  EXPECT_EQ(use(1, 60), divert_reason::conntrack_new);
  EXPECT_EQ(flows_[at].last_sent.load(), 59);
  EXPECT_EQ(use(2, 59), divert_reason::conntrack_new);
  flows_[at].reason.store(divert_reason::nat, std::memory_order_relaxed);
  EXPECT_EQ(use(1, 60), divert_reason::nat);
  flows_.remove(at);
  EXPECT_EQ(use(1, 59), divert_reason::conntrack_new);
}

TEST_F(tracked_flows_table, is_full_until_one_goes_and_its_line_has_rested) {
  std::vector<tracked_flows::index> all;
  for (std::uint32_t i = 0; i < flows_.capacity(); ++i) all.push_back(flows_.insert(key(i)));
  EXPECT_EQ(flows_.insert(key(1000)), tracked_flows::none);
  EXPECT_EQ(use(1000, 1), divert_reason::conntrack_full);
  EXPECT_EQ(use(7, 1), divert_reason::conntrack_new);
  auto reader = epochs_.register_reader();
  reader.enter();
  flows_.remove(all[7]);
  settle();
  // A reader may still look at it.
  EXPECT_EQ(flows_.insert(key(1000)), tracked_flows::none);
  reader.enter();
  settle();
  EXPECT_NE(flows_.insert(key(1000)), tracked_flows::none);
  EXPECT_EQ(flows_.size(), flows_.capacity());
  EXPECT_EQ(use(2000, 1), divert_reason::conntrack_new);
}

TEST_F(tracked_flows_table, holds_what_a_map_holds) {
  std::mt19937_64 random(5);
  std::map<std::uint32_t, tracked_flows::index> model;
  for (int step = 0; step < 50'000; ++step) {
    const auto number = static_cast<std::uint32_t>(random() % 150);
    const auto known = model.find(number);
    if (known == model.end()) {
      ASSERT_EQ(flows_.find(key(number)), tracked_flows::none) << step;
      const auto at = flows_.insert(key(number));
      ASSERT_EQ(at == tracked_flows::none, model.size() == flows_.capacity()) << step;
      if (at != tracked_flows::none) model[number] = at;
    } else {
      ASSERT_EQ(flows_.find(key(number)), known->second) << step;
      if (random() % 2 == 0) continue;
      flows_.remove(known->second);
      settle();
      model.erase(known);
    }
    ASSERT_EQ(flows_.size(), model.size());
  }
}

TEST_F(tracked_flows_table, keys_tell_apart_all_that_connection_tracking_does) {
  const auto request = [](const char* to, std::uint16_t from_port, std::uint16_t to_port) {
    return make_request({}, 0, 0, be16::from_host(from_port),
                        request_destination::from({*ip_address::parse(to), to_port}), 0);
  };
  const source_bytes one{1}, two{2};
  const tracked_key base = tracked_key::of(request("10.0.0.2", 5, 6), {one});
  EXPECT_EQ(base, tracked_key::of(request("10.0.0.2", 5, 6), {one}));
  EXPECT_NE(base, tracked_key::of(request("10.0.0.3", 5, 6), {one}));
  EXPECT_NE(base, tracked_key::of(request("10.0.0.2", 6, 6), {one}));
  EXPECT_NE(base, tracked_key::of(request("10.0.0.2", 5, 5), {one}));
  EXPECT_NE(base, tracked_key::of(request("10.0.0.2", 5, 6), {two}));
  EXPECT_NE(base, tracked_key::of(request("10.0.0.2", 5, 6), {one, 1}));
  EXPECT_NE(base, tracked_key::of(request("::a00:2", 5, 6), {one}));  // The same bytes.
  source_bytes v6{};
  v6[0] = 0xfd;
  v6[15] = 9;
  const tracked_key named = tracked_key::of(request("fd00::2", 5070, 9000), {v6});
  EXPECT_EQ(named.source(), *ip_address::parse("fd00::9"));
  EXPECT_EQ(named.destination(), *ip_address::parse("fd00::2"));
  EXPECT_EQ(named.source_port().host(), 5070);
  EXPECT_EQ(named.destination_port().host(), 9000);
}

/// Readers beside a writer that adds and removes: what is there all the time is missed at most
/// while others move, what a reader finds is what it asked for, and no line changes its owner
/// under a reader.
TEST(tracked_flows_stress, readers_find_their_own_or_nothing) {
  epoch_domain epochs;
  tracked_flows flows(512);
  constexpr std::uint32_t lasting = 100, all = 700;
  for (std::uint32_t i = 0; i < lasting; ++i)
    flows[flows.insert(key(i))].good_until.store(1 << 30, std::memory_order_relaxed);
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> found{0}, wrong{0};
  std::vector<std::thread> readers;
  for (unsigned r = 0; r < 2; ++r)
    readers.emplace_back([&, r] {
      auto reader = epochs.register_reader();
      std::mt19937_64 random(r);
      while (!done.load(std::memory_order_relaxed)) {
        reader.enter();
        for (int i = 0; i < 64; ++i) {
          const auto wanted = key(static_cast<std::uint32_t>(random() % all));
          auto* const line = flows.find_line(wanted, flows.hash_of(wanted));
          if (line == nullptr) continue;
          if (line->key != wanted) wrong.fetch_add(1);
          if (!flows.use(line, static_cast<tracked_flows::time_ms>(random() % 1000)))
            found.fetch_add(1, std::memory_order_relaxed);
          if (line->key != wanted) wrong.fetch_add(1);
        }
      }
      reader.leave();
    });
  std::mt19937_64 random(9);
  for (int step = 0; step < 20'000 || found.load() < 1000; ++step) {
    const auto number = lasting + static_cast<std::uint32_t>(random() % (all - lasting));
    if (const auto at = flows.find(key(number)); at != tracked_flows::none) {
      flows.remove(at);
      flows.retire_removed(epochs);
    } else if (const auto made = flows.insert(key(number)); made != tracked_flows::none) {
      flows[made].good_until.store(1 << 30, std::memory_order_relaxed);
    }
    epochs.reclaim();
  }
  done = true;
  for (auto& one : readers) one.join();
  EXPECT_EQ(wrong.load(), 0u);
  for (std::uint32_t i = 0; i < lasting; ++i) EXPECT_NE(flows.find(key(i)), tracked_flows::none);
}

}  // namespace
}  // namespace cowire

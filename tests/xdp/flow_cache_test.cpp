// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/detail/flow_cache.hpp>

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "testbed/hand_made_table.hpp"

namespace cowire::detail {
namespace {

constexpr std::size_t set_bytes = flow_cache::ways * sizeof(flow_cache::entry);

tx_request request_to(std::uint32_t address, std::uint16_t port = 9, flow_class_id cls = 0) {
  return make_request({3, 3 * 2048 + payload_offset}, 20, 0, be16::from_host(8001),
                      request_destination::from({ip_address::v4(address), port}), cls);
}

std::uint32_t key4(const tx_request& request) {
  std::uint32_t raw;
  std::memcpy(&raw, request.destination.data() + 12, sizeof raw);
  return __builtin_bswap32(raw);
}

forwarding_table publication(std::uint64_t number) {
  forwarding_table table;
  table.publication = number;
  return table;
}

class flows : public ::testing::Test {
 protected:
  /// Null: nowhere.
  const hop* find(const flow_cache& cache, const tx_request& request) {
    const hop* found = nullptr;
    unknown_requests unknown;
    cache.find({&request, 1}, hops_.data(), &found, unknown);
    EXPECT_EQ(unknown.count, found == nullptr ? 1u : 0u);
    return found;
  }
  void remember(flow_cache& cache, const tx_request& request, std::size_t i) {
    cache.remember(request, &hops_[i], hops_.data());
  }

  std::vector<hop> hops_ = std::vector<hop>(16);
};

TEST_F(flows, are_known_by_all_that_a_decision_depends_on) {
  flow_cache cache(1 << 16);
  ASSERT_TRUE(cache.asks(publication(1)));
  const tx_request known = request_to(0x0a000001);
  EXPECT_EQ(find(cache, known), nullptr);
  remember(cache, known, 7);
  EXPECT_EQ(find(cache, known), &hops_[7]);
  const std::function<void(tx_request&)> others[] = {
      [](tx_request& r) { r.flow_class = 1; },
      [](tx_request& r) { r.flow_class = 0x100; },
      [](tx_request& r) { r.family = ip_family::v6; },
      [](tx_request& r) { r.destination[0] ^= 1; },
      [](tx_request& r) { r.destination[7] ^= 0x80; },
      [](tx_request& r) { r.destination[15] ^= 1; },
      [](tx_request& r) { r.source_port.raw ^= 1; },
      [](tx_request& r) { r.destination_port.raw ^= 0x8000; }};
  for (const auto& change : others) {
    tx_request other = known;  // With the same hashes.
    change(other);
    EXPECT_EQ(find(cache, other), nullptr);
    remember(cache, other, 3);
    EXPECT_EQ(find(cache, other), &hops_[3]);
    remember(cache, known, 7);
  }
  // These say nothing of where a datagram goes.
  tx_request same = known;
  same.frame = 1, same.sender = 5, same.length = 1000, same.udp_sum = 99, same.destination_sum = 7;
  EXPECT_EQ(find(cache, same), &hops_[7]);
}

TEST_F(flows, are_known_under_the_table_that_they_were_looked_up_in) {
  flow_cache cache(1 << 16, 0xffff'fffc);
  std::vector<tx_request> known;
  for (std::uint32_t i = 0; i < 200; ++i) known.push_back(request_to(0x0a000000 + i));
  // Past the last generation number, too.
  for (std::uint64_t number = 1; number < 10; ++number) {
    static_cast<void>(cache.asks(publication(number)));
    for (const tx_request& r : known) EXPECT_EQ(find(cache, r), nullptr) << number;
    for (const tx_request& r : known) remember(cache, r, number);
    for (const tx_request& r : known) EXPECT_EQ(find(cache, r), &hops_[number]);
    static_cast<void>(cache.asks(publication(number)));
    for (const tx_request& r : known) EXPECT_EQ(find(cache, r), &hops_[number]);
  }
}

TEST_F(flows, give_way_to_others_where_there_is_no_room) {
  flow_cache cache(set_bytes);
  static_cast<void>(cache.asks(publication(1)));
  for (std::uint32_t i = 0; i < 1000; ++i) {
    remember(cache, request_to(i), i % 16);
    EXPECT_EQ(find(cache, request_to(i)), &hops_[i % 16]);
  }
  std::size_t found = 0;
  for (std::uint32_t i = 0; i < 1000; ++i) found += find(cache, request_to(i)) != nullptr;
  EXPECT_EQ(found, flow_cache::ways);
}

TEST_F(flows, are_found_in_runs_with_unknown_ones_between) {
  std::mt19937 random(1);
  flow_cache cache(1 << 16);
  static_cast<void>(cache.asks(publication(1)));
  for (std::uint32_t i = 0; i < 100; i += 2) remember(cache, request_to(i), i % 16);
  for (std::uint32_t size = 0; size <= tx_batch; ++size) {
    std::vector<tx_request> run;
    std::vector<std::uint8_t> unknown_ones;
    std::array<const hop*, tx_batch> hops{};
    for (std::uint32_t i = 0; i < size; ++i) {
      const auto address = static_cast<std::uint32_t>(random() % 100);
      run.push_back(request_to(address));
      if (address % 2 != 0) unknown_ones.push_back(static_cast<std::uint8_t>(i));
    }
    unknown_requests unknown;
    cache.find(run, hops_.data(), hops.data(), unknown);
    EXPECT_EQ(std::vector<std::uint8_t>(unknown.at.begin(), unknown.at.begin() + unknown.count),
              unknown_ones);
    for (std::uint32_t i = 0; i < size; ++i) {
      const std::uint32_t address = key4(run[i]);
      EXPECT_EQ(hops[i], address % 2 != 0 ? nullptr : &hops_[address % 16]);
    }
  }
}

TEST_F(flows, are_forgotten_where_their_hop_lies_too_far_away) {
  flow_cache cache(set_bytes);
  static_cast<void>(cache.asks(publication(1)));
  const auto far = reinterpret_cast<std::uintptr_t>(hops_.data()) + (std::uint64_t{1} << 32);
  cache.remember(request_to(1), reinterpret_cast<const hop*>(far), hops_.data());
  EXPECT_EQ(find(cache, request_to(1)), nullptr);
}

TEST_F(flows, are_not_remembered_without_memory) {
  flow_cache cache(set_bytes - 1);
  for (std::uint64_t number = 1; number < 4; ++number)
    EXPECT_FALSE(cache.asks(publication(number)));
}

TEST_F(flows, spread_over_all_sets) {
  flow_cache cache(64 * set_bytes);
  static_cast<void>(cache.asks(publication(1)));
  // As a sender has them: neighbouring addresses, one port.
  for (std::uint32_t i = 0; i < 256; ++i) remember(cache, request_to(0x0a000000 + i), 0);
  std::size_t found = 0;
  for (std::uint32_t i = 0; i < 256; ++i)
    found += find(cache, request_to(0x0a000000 + i)) != nullptr;
  EXPECT_GT(found, 240u);  // In 64 sets of 8, half full: one in a hundred finds its set full.
}

TEST_F(flows, are_not_asked_for_while_nearly_all_are_new) {
  constexpr std::uint32_t credit = 64 * flow_cache::ways;
  flow_cache cache(64 * set_bytes);
  const auto table = publication(1);
  for (std::uint32_t spent = 64; spent < credit; spent += 64) {
    ASSERT_TRUE(cache.asks(table));
    EXPECT_FALSE(cache.settle(0, 64));
  }
  ASSERT_TRUE(cache.asks(table));
  EXPECT_TRUE(cache.settle(0, 64));
  for (int round = 0; round < 3; ++round) {
    // A new table changes nothing of that.
    for (int i = 0; i < 15; ++i) EXPECT_FALSE(cache.asks(i < 8 ? table : publication(2)));
    EXPECT_TRUE(cache.asks(table));
    EXPECT_TRUE(cache.settle(20, 44));
  }
  for (int i = 0; i < 15; ++i) EXPECT_FALSE(cache.asks(table));
  // Then they repeat themselves.
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(cache.asks(table));
    EXPECT_FALSE(cache.settle(64, 0));
  }
  // The credit is bounded.
  std::uint32_t batches = 1;
  for (; !cache.settle(0, 64); ++batches) ASSERT_TRUE(cache.asks(table));
  EXPECT_EQ(batches, credit / 64);
}

TEST(flow_cache_size, follows_the_processor_within_bounds) {
  const long second_level = ::sysconf(_SC_LEVEL2_CACHE_SIZE);
  SCOPED_TRACE("second level " + std::to_string(second_level));
  const std::size_t half = second_level > 0 ? static_cast<std::size_t>(second_level) / 2 : 0;
  EXPECT_EQ(flow_cache::default_bytes(),
            std::clamp(half, std::size_t{1} << 19, std::size_t{1} << 21));
}

}  // namespace
}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/fair_queue.hpp>

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace cowire::test {
namespace {

using queue = detail::fair_queue<std::string, std::string>;

std::string drain(queue& q) {
  std::string out;
  while (!q.empty()) out += q.pop() + " ";
  return out;
}

TEST(fair_queue, one_client_is_served_in_order) {
  queue q;
  for (int round = 0; round < 2; ++round) {
    for (const char* item : {"1", "2", "3"}) q.push(0, "a", item);
    EXPECT_EQ("1 2 3 ", drain(q));
  }
}

TEST(fair_queue, a_flood_is_served_in_turn_with_others) {
  queue q;
  for (int i = 0; i < 5; ++i) q.push(1, "flood", "f" + std::to_string(i));
  EXPECT_EQ("f0", q.pop());
  q.push(1, "other", "o0");
  q.push(1, "other", "o1");
  EXPECT_EQ("f1 o0 f2 o1 f3 f4 ", drain(q));
}

TEST(fair_queue, a_user_gains_nothing_by_being_many_clients) {
  queue q;
  for (const char* name : {"a", "b", "c"})
    for (int i = 0; i < 2; ++i) q.push(1, name, name + std::to_string(i));
  for (int i = 0; i < 3; ++i) q.push(2, "a", "v" + std::to_string(i));
  EXPECT_EQ("a0 v0 b0 v1 c0 v2 a1 b1 c1 ", drain(q));
}

TEST(fair_queue, nothing_is_lost_and_each_clients_order_is_kept) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  detail::fair_queue<std::unique_ptr<std::pair<int, int>>, int> q;
  std::map<int, int> pushed, popped;
  const auto pop = [&] {
    const auto item = q.pop();
    ASSERT_EQ(popped[item->first]++, item->second);
  };
  for (int i = 0; i < 20'000; ++i) {
    const int client = static_cast<int>(random() % 12);
    if (random() % 2 == 0)
      q.push(static_cast<std::uint32_t>(client % 3), client,
             std::make_unique<std::pair<int, int>>(client, pushed[client]++));
    else if (!q.empty())
      pop();
  }
  while (!q.empty()) pop();
  EXPECT_EQ(pushed, popped);
}

}  // namespace
}  // namespace cowire::test

// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/frames_by_client.hpp>

#include <gtest/gtest.h>

#include <cerrno>
#include <map>

namespace cowire::detail {
namespace {

struct frames_of_clients : ::testing::Test {
  void submit(const std::string& client, frame_index frame) {
    frames.take_turn(client);
    frames.note_submitted(frame);
  }
  /// A flush whose token says whose it is and which one.
  bool ask(const std::string& client, std::uint64_t token) {
    return frames.ask(client, {token, {.messages = token}});
  }
  std::vector<std::string> answered;
  std::map<std::string, std::uint64_t> refused_of;  ///< By client, and by answer.
  frames_by_client frames{{{.first = 8, .count = 4}, {.first = 100, .count = 4}},
                          [this](const std::string& client, const frames_by_client::flush& asked) {
                            EXPECT_EQ(asked.token, asked.totals.messages);
                            answered.push_back(client + std::to_string(asked.token));
                            refused_of[answered.back()] = asked.totals.kernel_refused;
                          },
                          [this](const std::string& client) { ++refused_of[client]; }};
  using answers = std::vector<std::string>;
};

TEST_F(frames_of_clients, a_flush_waits_for_its_clients_own) {
  for (int round = 0; round < 2; ++round) {
    answered.clear();
    submit("a", 8);
    submit("b", 9);
    submit("b", 103);
    EXPECT_TRUE(ask("b", 1));
    EXPECT_TRUE(ask("c", 1));
    EXPECT_EQ(answers{"c1"}, answered) << "it has nothing on the way";
    frames.note_returned(9, 0);
    EXPECT_EQ(answers{"c1"}, answered);
    EXPECT_TRUE(frames.anyone_waits());
    frames.note_returned(103, 0);
    EXPECT_EQ((answers{"c1", "b1"}), answered);
    EXPECT_FALSE(frames.anyone_waits());
    frames.note_returned(8, 0);
  }
}

TEST_F(frames_of_clients, a_flush_does_not_wait_for_what_is_submitted_after_it) {
  submit("a", 8);
  EXPECT_TRUE(ask("a", 1));
  submit("a", 9);
  EXPECT_TRUE(ask("a", 2));
  EXPECT_TRUE(ask("a", 3));
  submit("a", 10);
  frames.note_returned(9, 0);
  frames.note_returned(10, 0);
  EXPECT_TRUE(answered.empty()) << "the first comes first";
  submit("a", 10);
  frames.note_returned(8, 0);
  EXPECT_EQ((answers{"a1", "a2", "a3"}), answered);
  EXPECT_TRUE(ask("a", 4));
  EXPECT_EQ(3u, answered.size());
  frames.note_returned(10, 0);
  EXPECT_EQ(answers{"a4"}, answers(answered.begin() + 3, answered.end()));
}

TEST_F(frames_of_clients, frames_of_an_earlier_owner_of_the_producer_are_nobodys) {
  frames.note_returned(8, 0);
  submit("a", 8);
  EXPECT_TRUE(ask("a", 1));
  frames.note_returned(9, 0);
  EXPECT_TRUE(answered.empty());
  frames.note_returned(8, 0);
  EXPECT_EQ(answers{"a1"}, answered);
}

TEST_F(frames_of_clients, what_is_refused_is_in_the_answers_that_waited_for_it) {
  submit("a", 8);
  submit("a", 9);
  submit("b", 100);
  EXPECT_TRUE(ask("a", 1));
  submit("a", 10);
  EXPECT_TRUE(ask("a", 2));
  EXPECT_TRUE(ask("b", 1));
  submit("a", 11);
  for (const frame_index frame : {11u, 10u, 8u, 9u})
    frames.note_returned(frame, frame == 9 ? 0 : ENETUNREACH);
  frames.note_returned(100, 0);
  EXPECT_EQ((answers{"a1", "a2", "b1"}), answered);
  const std::map<std::string, std::uint64_t> expected{{"a", 3}, {"a1", 1}, {"a2", 2}, {"b1", 0}};
  EXPECT_EQ(expected, refused_of);
}

TEST_F(frames_of_clients, so_many_flushes_may_wait) {
  submit("a", 8);
  for (std::size_t i = 0; i < frames_by_client::flushes_max; ++i) ASSERT_TRUE(ask("a", i));
  EXPECT_FALSE(ask("a", 0));
  EXPECT_TRUE(ask("b", 0));
  frames.note_returned(8, 0);
  EXPECT_EQ(frames_by_client::flushes_max + 1, answered.size());
  EXPECT_FALSE(frames.anyone_waits());
}

}  // namespace
}  // namespace cowire::detail

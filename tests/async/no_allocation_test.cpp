// SPDX-License-Identifier: Apache-2.0
// Payloads whose memory is the application's are copied once, within the call, and nothing is
// allocated for them: counted by an operator new of this program's own.
#include <tests/support/two_hosts.hpp>

#include <asio/io_context.hpp>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "testbed/counted_allocations.hpp"

namespace cowire::test {
namespace {

class no_allocation : public two_hosts {
 protected:
  void SetUp() override {
    two_hosts::SetUp();
    if (!IsSkipped()) resolve("10.77.1.2");
  }
  /// How many allocations this thread makes meanwhile.
  template <class Work>
  static std::uint64_t counted(const Work& work) {
    const auto before = allocations;
    work();
    return allocations - before;
  }
  static void flush(const transmitter& tx) { ASSERT_TRUE(drained(tx)); }
  const endpoint there = to("10.77.1.2:9000");
  const std::vector<endpoint> several{there, there, there};
};

TEST_F(no_allocation, is_counted_by_this_program) {
  EXPECT_EQ(1u, counted([] { std::make_unique<int>(1).reset(); }));
}

TEST_F(no_allocation, is_made_for_bytes_that_are_the_applications) {
  udp_sink sink(*b, there);
  transmitter tx(small());
  auto s = tx.make_sender();
  const auto shared = tx.make_shared_sender();
  const auto bytes = std::make_shared<std::vector<std::byte>>(1000, std::byte{'a'});
  std::array<char, 4096> arena{};
  std::ranges::fill(arena, 'b');
  const std::string_view piece(arena.data() + 100, 200);
  const std::vector<message> messages{{*bytes, there}, {piece, there}};
  std::error_code ec;
  const auto once = [&] {
    EXPECT_TRUE(s.try_send(*bytes, there));
    EXPECT_TRUE(s.try_send(piece, there, {.ecn = ecn_codepoint::ect_0}));
    EXPECT_EQ(2u, s.try_send_batch(messages, ec));
    EXPECT_EQ(5u, s.try_send_segments(*bytes, 200, there, ec));
    EXPECT_TRUE(shared.try_send(*bytes, there));
    EXPECT_EQ(3u, shared.try_send(*bytes, several, ec));
    EXPECT_EQ(2u, shared.try_send_batch(messages, ec));
  };
  once();
  flush(tx);
  constexpr int rounds = 50;
  for (int i = 0; i < rounds; ++i) {
    EXPECT_EQ(0u, counted(once));
    flush(tx);  // A producer's frames are fewer than all rounds together need.
  }
  EXPECT_EQ(15u * (rounds + 1), sink.drain());
}

/// What is sent is what the bytes were when the call was made: they are anybody's at once.
TEST_F(no_allocation, lets_go_of_the_bytes_with_the_call) {
  udp_sink sink(*b, there);
  transmitter tx(small());
  auto s = tx.make_sender();
  for (int i = 0; i < 100; ++i) {
    auto bytes = std::make_shared<std::vector<std::byte>>(8, static_cast<std::byte>('A' + i % 26));
    EXPECT_TRUE(s.try_send(*bytes, there));
    EXPECT_EQ(1, bytes.use_count());
    std::ranges::fill(*bytes, std::byte{'!'});
    bytes.reset();
    const auto got = sink.next();
    ASSERT_TRUE(got);
    EXPECT_EQ(std::string(8, static_cast<char>('A' + i % 26)), got->bytes);
  }
}

TEST_F(no_allocation, is_made_by_coroutines_that_find_frames) {
  transmitter tx(small());
  auto s = tx.make_sender();
  const auto shared = tx.make_shared_sender();
  asio::io_context app{1};
  const auto bytes = std::make_shared<std::vector<std::byte>>(300);
  std::uint64_t made = 0;
  std::size_t sent = 0;
  co_spawn(
      app,
      [&]() -> awaitable<void> {
        for (int i = 0; i < 200; ++i) {
          const auto before = allocations;
          for (int j = 0; j < 10; ++j) {
            sent += co_await s.async_send(*bytes, there, use_awaitable);
            sent += co_await shared.async_send(*bytes, there, use_awaitable);
            sent += co_await s.async_send(*bytes, there, await_frames);
            sent += co_await shared.async_send(*bytes, there, await_frames);
          }
          if (i >= 10) made += allocations - before;  // Asio has got what it re-uses.
          if (!drained(tx)) co_return;
        }
      },
      rethrow);
  app.run();
  EXPECT_EQ(8000u, sent);
  EXPECT_EQ(0u, made);
}

}  // namespace
}  // namespace cowire::test

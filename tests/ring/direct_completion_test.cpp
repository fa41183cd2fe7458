// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/direct_completion.hpp>

#include <asio/any_io_executor.hpp>
#include <asio/bind_executor.hpp>
#include <asio/io_context.hpp>

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace cowire {
namespace {

using completion = direct_completion<std::error_code, std::string>;

/// One that waits for `io`, and notes what it is called with.
completion waiting_on(asio::io_context& io, ring_context& fallback, std::string& got) {
  completion made(asio::bind_executor(io, [&](std::error_code, std::string text) { got = text; }),
                  fallback.get_executor());
  made.begin_wait({}, 1);
  return made;
}

TEST(direct_completion, what_was_for_a_handler_that_went_with_its_context_is_still_there) {
  ring_context fallback;
  auto io = std::make_unique<asio::io_context>();
  std::string got, value = "a value longer than what a string holds in itself";
  completion waiting = waiting_on(*io, fallback, got);
  ASSERT_TRUE(waiting.armed());
  io.reset();
  EXPECT_FALSE(waiting.armed());
  std::error_code none;
  EXPECT_FALSE(waiting.try_complete(none, value));
  EXPECT_EQ(value, "a value longer than what a string holds in itself");
  EXPECT_EQ(got, "");
}

TEST(direct_completion, a_handler_gets_the_value_once_its_context_runs) {
  ring_context fallback;
  asio::io_context io;
  std::string got, value = "a value longer than what a string holds in itself";
  completion waiting = waiting_on(io, fallback, got);
  std::error_code none;
  EXPECT_TRUE(waiting.try_complete(none, value));
  EXPECT_EQ(got, "") << "inside the call";
  io.run();
  EXPECT_EQ(got, "a value longer than what a string holds in itself");
}

TEST(direct_completion, knows_what_kind_of_executor_any_io_executor_holds) {
  ring_context ring;
  asio::io_context io;
  const asio::any_io_executor of_ring = ring.get_executor(), of_io = io.get_executor();
  EXPECT_NE(detail::inside<ring_context::executor_type>(of_ring), nullptr);
  EXPECT_EQ(detail::inside<ring_context::executor_type>(of_io), nullptr);
  EXPECT_EQ(detail::inside<asio::io_context::executor_type>(of_ring), nullptr);
  EXPECT_EQ(detail::inside<ring_context::executor_type>(asio::any_io_executor()), nullptr);
}

}  // namespace
}  // namespace cowire

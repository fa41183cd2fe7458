// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/dump_reader.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/request.hpp>

#include "tests/ring/on_both_backends.hpp"

#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/use_awaitable.hpp>

#include <linux/netlink.h>
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <system_error>

namespace cowire::detail {
namespace {

class dump_reader_test : public test::on_both_backends {
 protected:
  void SetUp() override {
    test::on_both_backends::SetUp();
    if (!IsSkipped()) reader_.emplace(ring(), socket_.get());
  }
  void TearDown() override {
    reader_.reset();
    test::on_both_backends::TearDown();
  }

  /// One dump of the rules, to its end; how many times the reader said that something was lost.
  asio::awaitable<unsigned> dump(std::uint32_t sequence) {
    const auto request = netlink::dump_request(netlink::object_kind::rule, {}, sequence);
    EXPECT_EQ(static_cast<ssize_t>(request.size()),
              ::send(socket_.get(), request.data(), request.size(), 0));
    for (unsigned losses = 0;;) {
      const dump_reader::part part = co_await reader_->async_next(asio::use_awaitable);
      reader_->release();
      losses += part.empty();
      std::span<const std::byte> rest = part;
      std::error_code ec;
      while (const auto answer = netlink::next_envelope(rest, ec))
        if (answer->type == NLMSG_DONE && answer->sequence == sequence) co_return losses;
      if (ec) throw std::system_error(ec);
    }
  }

  unique_fd socket_{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE)};
  std::optional<dump_reader> reader_;
};

// The reader meets the end of a dump while the call that asks for it is still under way.
TEST_P(dump_reader_test, short_dumps_one_after_the_other_lose_nothing) {
  constexpr unsigned dumps = 8'000;
  unsigned ended = 0, losses = 0;
  asio::co_spawn(
      ring(),
      [&]() -> asio::awaitable<void> {
        for (; ended < dumps; ++ended) losses += co_await dump(ended + 1);
      },
      asio::detached);
  run();
  EXPECT_EQ(dumps, ended);
  EXPECT_EQ(0u, losses);
}

TEST_P(dump_reader_test, stop_tells_who_waits) {
  std::optional<std::error_code> told;
  reader_->async_next([&](std::error_code ec, const dump_reader::part&) { told = ec; });
  reader_->stop();
  run();
  EXPECT_EQ(make_error_code(error::closed), told);
}

COWIRE_ON_BOTH_BACKENDS(dump_reader_test);

}  // namespace
}  // namespace cowire::detail

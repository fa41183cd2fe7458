// SPDX-License-Identifier: Apache-2.0
/// The output path of a namespace, followed, for tests that wait for what becomes of it.
#pragma once

#include <cowire/follow/detail/output_service.hpp>
#include <cowire/ring/ring_timer.hpp>

#include <tests/support/netns.hpp>

#include <chrono>
#include <optional>
#include <system_error>

namespace cowire::test {

class followed_output {
 public:
  /// Returns when it has been read for the first time: what comes then is a change.
  explicit followed_output(const netns& of) {
    const netns::scope inside(of);
    service_.emplace(ring_);
    static_cast<void>(first());
  }
  ~followed_output() { service_->stop(); }
  followed_output(const followed_output&) = delete;
  followed_output& operator=(const followed_output&) = delete;

  [[nodiscard]] const output_snapshot& first() const { return *service_->first(); }

  /// Waits for snapshots until one is as `wanted`: bool(const output_snapshot&).
  template <class Wanted>
  void await(const Wanted& wanted) {
    bool seen = false;
    ring_timer deadline(ring_);
    deadline.expires_after(std::chrono::seconds(30));
    deadline.async_wait([&](std::error_code ec) {
      if (!ec) service_->stop();
    });
    const auto look = [&]() -> awaitable<void> {
      while (!seen) {
        const auto [ec, next] = co_await service_->async_next(as_tuple(use_awaitable));
        if (ec) co_return;
        seen = wanted(*next.state);
      }
      deadline.cancel();
    };
    co_spawn(ring_.get_executor(), look(), asio::detached);
    ring_.restart();
    ring_.run();
    EXPECT_TRUE(seen);
  }

 private:
  ring_context ring_;
  std::optional<detail::output_service> service_;
};

}  // namespace cowire::test

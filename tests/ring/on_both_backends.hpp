// SPDX-License-Identifier: Apache-2.0
/// Fixture of the tests of ring_context and the objects on it: each runs on io_uring and on epoll.
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/ring/ring_context.hpp>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>

namespace cowire::test {

using namespace std::chrono_literals;

class on_both_backends : public ::testing::TestWithParam<ring_backend> {
 protected:
  void SetUp() override {
    ::alarm(60);  // A lost wake-up shall be a failure, not a hang.
    try {
      ring_ = make_ring();
    } catch (const std::system_error& e) {
      GTEST_SKIP() << "backend not available here: " << e.what();
    }
  }
  void TearDown() override {
    ring_.reset();
    ::alarm(0);
  }

  [[nodiscard]] static std::unique_ptr<ring_context> make_ring(unsigned queue_depth = 256) {
    using choice = ring_context::backend_choice;
    return std::make_unique<ring_context>(ring_context::options{
        .queue_depth = queue_depth,
        .backend = GetParam() == ring_backend::epoll ? choice::epoll : choice::io_uring});
  }

  [[nodiscard]] ring_context& ring() { return *ring_; }
  /// Until nothing is left to do, any number of times.
  void run() {
    ring_->restart();
    ring_->run();
  }

  std::unique_ptr<ring_context> ring_;
};

inline std::string backend_name(const ::testing::TestParamInfo<ring_backend>& info) {
  return info.param == ring_backend::epoll ? "epoll" : "io_uring";
}

#define COWIRE_ON_BOTH_BACKENDS(suite)                                                     \
  INSTANTIATE_TEST_SUITE_P(backends, suite,                                                \
                           ::testing::Values(ring_backend::io_uring, ring_backend::epoll), \
                           cowire::test::backend_name)

/// Two connected Unix datagram sockets.
struct socket_pair {
  explicit socket_pair(int type = SOCK_DGRAM) {
    int pair[2] = {-1, -1};
    EXPECT_EQ(0, ::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair));
    near = unique_fd(pair[0]);
    far = unique_fd(pair[1]);
  }
  void send(std::string_view text) const {
    ASSERT_EQ(static_cast<ssize_t>(text.size()),
              ::send(far.get(), text.data(), text.size(), MSG_DONTWAIT));
  }
  unique_fd near, far;
};

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace cowire::test

// SPDX-License-Identifier: Apache-2.0
// A netlink socket's overrun and an empty buffer group both say ENOBUFS; they are told apart.
#include <cowire/ring/datagram_source.hpp>

#include <cowire/base/error.hpp>
#include <cowire/ring/ring_timer.hpp>

#include "on_both_backends.hpp"
#include "testbed/private_namespace.hpp"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <vector>

namespace cowire {
namespace {

using test::on_both_backends;
using namespace std::chrono_literals;

class datagram_source_netlink_test : public on_both_backends {
 protected:
  void SetUp() override {
    on_both_backends::SetUp();
    if (IsSkipped()) return;
    // In a namespace of its own, where `lo` is nobody else's.
    if (!namespace_.entered()) GTEST_SKIP() << "needs root: unshare(CLONE_NEWNET) was refused";
    control_ = unique_fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  }
  /// A socket that hears of links. `size` as SO_RCVBUF, which the kernel doubles.
  static unique_fd subscribe(int size) {
    unique_fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = RTMGRP_LINK;
    EXPECT_EQ(0, ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address));
    EXPECT_EQ(0, ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size));
    return fd;
  }
  /// One notification at least: `lo` up, or down.
  void toggle() {
    up_ = !up_;
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = static_cast<short>(up_ ? IFF_UP | IFF_LOOPBACK : IFF_LOOPBACK);
    ASSERT_EQ(0, ::ioctl(control_.get(), SIOCSIFFLAGS, &request));
  }
  /// Completes everything that is there; errors stand for themselves.
  std::vector<std::error_code> receive_until_silent(datagram_source& source,
                                                    std::vector<datagram>* held = nullptr) {
    std::vector<std::error_code> results;
    bool silent = false;
    while (!silent) {
      ring_timer timer(ring(), 30ms);
      source.async_receive([&](std::error_code ec, datagram d) {
        timer.cancel();
        if (ec == operation_aborted()) return;
        results.push_back(ec);
        if (!d) return;
        EXPECT_GE(d.payload().size(), sizeof(nlmsghdr));
        if (held) held->push_back(std::move(d));
      });
      timer.async_wait([&](std::error_code ec) {
        silent = !ec;
        source.cancel();
      });
      run();
    }
    return results;
  }

  test::private_namespace namespace_;
  unique_fd control_;
  bool up_ = false;
};

TEST_P(datagram_source_netlink_test, overrun_is_reported_in_band_and_receiving_goes_on) {
  const unique_fd socket = subscribe(4096);
  datagram_source source(ring(), socket.get(), {.payload_capacity = 8192});
  for (int round = 0; round < 3; ++round) {
    toggle();
    EXPECT_EQ(std::vector{std::error_code()}, receive_until_silent(source)) << round;
    for (int i = 0; i < 200; ++i) toggle();  // Far more than fits.
    const auto results = receive_until_silent(source);
    EXPECT_EQ(1, std::count(results.begin(), results.end(), make_error_code(error::overrun)));
    EXPECT_GT(results.size(), 1u);
    EXPECT_EQ(static_cast<unsigned>(round + 1), source.count().overruns);
  }
}

TEST_P(datagram_source_netlink_test, an_empty_buffer_group_is_not_an_overrun) {
  const unique_fd socket = subscribe(1 << 20);
  datagram_source source(ring(), socket.get(), {.buffer_count = 4, .payload_capacity = 8192});
  constexpr std::size_t count = 50;
  for (std::size_t i = 0; i < count; ++i) toggle();
  std::size_t seen = 0;
  for (int round = 0; round < 100 && seen < count; ++round) {
    std::vector<datagram> held;  // Starves the source, then lets go.
    for (const auto& ec : receive_until_silent(source, &held)) {
      EXPECT_EQ(std::error_code(), ec);
      ++seen;
    }
  }
  EXPECT_EQ(count, seen);
  EXPECT_EQ(0u, source.count().overruns);
  EXPECT_GT(source.count().starved, 5u);
}

TEST_P(datagram_source_netlink_test, an_overrun_while_starved_is_not_missed) {
  const unique_fd socket = subscribe(4096);
  datagram_source source(ring(), socket.get(), {.buffer_count = 2, .payload_capacity = 8192});
  toggle();
  toggle();
  std::vector<datagram> held;
  receive_until_silent(source, &held);
  ASSERT_EQ(2u, held.size());
  for (int i = 0; i < 200; ++i) toggle();
  held.clear();
  const auto results = receive_until_silent(source);
  EXPECT_GE(std::count(results.begin(), results.end(), make_error_code(error::overrun)), 1);
}

COWIRE_ON_BOTH_BACKENDS(datagram_source_netlink_test);

}  // namespace
}  // namespace cowire

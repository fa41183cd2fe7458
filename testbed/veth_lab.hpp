// SPDX-License-Identifier: Apache-2.0
/// Two hosts, A and B, joined by veth pairs a0-b0 and a1-b1 (testbed/netns.hpp: 10.77.1.1 and .2,
/// 10.77.2.1 and .2), for who works on both from one thread, in turn.
///
/// Ask unavailable() first.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/assert.hpp>
#include <cowire/base/unique_fd.hpp>
#include <cowire/xdp/device.hpp>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <string>
#include <type_traits>
#include <utility>

#include "testbed/netns.hpp"

namespace cowire::test {

class veth_lab {
 public:
  /// "" or why not.
  [[nodiscard]] static std::string unavailable() { return netns_unavailable(); }

  veth_lab() {
    connect(a_, "a0", b_, "b0", 1);
    connect(a_, "a1", b_, "b1", 2);
  }

  template <class F>
  std::invoke_result_t<F> in_a(F&& f) {
    const netns::scope inside(a_);
    return f();
  }
  template <class F>
  std::invoke_result_t<F> in_b(F&& f) {
    const netns::scope inside(b_);
    return f();
  }

  void run_in_a(const std::string& command) { run_in(a_, command); }
  void run_in_b(const std::string& command) { run_in(b_, command); }

  [[nodiscard]] device_facts device_a(const std::string& name) {
    return in_a([&] { return read_device(name); });
  }
  [[nodiscard]] device_facts device_b(const std::string& name) {
    return in_b([&] { return read_device(name); });
  }

  /// An ordinary UDP socket in B on any address; receives time out after half a second.
  [[nodiscard]] unique_fd udp_receiver(std::uint16_t port) {
    return in_b([&] {
      unique_fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      const int room = 64 << 20;
      static_cast<void>(::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room));
      const timeval timeout{.tv_sec = 0, .tv_usec = 500'000};
      COWIRE_ASSERT(::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0);
      sockaddr_in at{};
      at.sin_family = AF_INET;
      at.sin_port = htons(port);
      COWIRE_ASSERT(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0);
      return fd;
    });
  }

 private:
  /// Several commands are one here.
  static void run_in(const netns& space, const std::string& command) {
    const netns::scope inside(space);
    test::run(command);
  }

  netns a_, b_;
};

}  // namespace cowire::test

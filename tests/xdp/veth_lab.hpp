// SPDX-License-Identifier: Apache-2.0
/// Two private network namespaces, A and B, joined by veth pairs a0-b0 (10.1.0.1/24, .2) and a1-b1
/// (10.2.0.1/24, .2).
///
/// The namespaces have no names and vanish with the process. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN:
/// ask available() first. One thread: the namespace is a property of the calling thread.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/assert.hpp>
#include <cowire/base/unique_fd.hpp>
#include <cowire/xdp/device.hpp>

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <type_traits>
#include <utility>

namespace cowire::test {

class veth_lab {
 public:
  /// "" or why not.
  [[nodiscard]] static std::string unavailable() {
    if (::geteuid() != 0) return "needs root to make network namespaces";
    const unique_fd home = current_namespace();
    if (::unshare(CLONE_NEWNET) != 0) return "cannot make a network namespace";
    COWIRE_ASSERT(::setns(home.get(), CLONE_NEWNET) == 0);
    return {};
  }

  veth_lab() : home_(current_namespace()), a_(make_namespace()), b_(make_namespace()) {
    for (const char* const number : {"0", "1"}) {
      const std::string n = number;
      const std::string net = n == "0" ? "10.1.0." : "10.2.0.";
      const std::string b_path =
          "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(b_.get());
      run_in_a("ip link add a" + n + " type veth peer name b" + n + " netns " + b_path);
      run_in_a("ip addr add " + net + "1/24 dev a" + n + " && ip link set a" + n + " up");
      run_in_b("ip addr add " + net + "2/24 dev b" + n + " && ip link set b" + n + " up");
    }
    run_in_a("ip link set lo up");
  }

  template <class F>
  std::invoke_result_t<F> in_a(F&& f) {
    return inside(a_, std::forward<F>(f));
  }
  template <class F>
  std::invoke_result_t<F> in_b(F&& f) {
    return inside(b_, std::forward<F>(f));
  }

  void run_in_a(const std::string& command) {
    in_a([&] {
      COWIRE_ASSERT(std::system(command.c_str()) == 0);
      return 0;
    });
  }
  void run_in_b(const std::string& command) {
    in_b([&] {
      COWIRE_ASSERT(std::system(command.c_str()) == 0);
      return 0;
    });
  }

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
  [[nodiscard]] static unique_fd current_namespace() {
    unique_fd fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    COWIRE_ASSERT(fd);
    return fd;
  }
  [[nodiscard]] unique_fd make_namespace() {
    COWIRE_ASSERT(::unshare(CLONE_NEWNET) == 0);
    unique_fd made = current_namespace();
    COWIRE_ASSERT(::setns(home_.get(), CLONE_NEWNET) == 0);
    return made;
  }
  template <class F>
  std::invoke_result_t<F> inside(const unique_fd& space, F&& f) {
    COWIRE_ASSERT(::setns(space.get(), CLONE_NEWNET) == 0);
    std::invoke_result_t<F> result = f();
    COWIRE_ASSERT(::setns(home_.get(), CLONE_NEWNET) == 0);
    return result;
  }

  unique_fd home_, a_, b_;
};

}  // namespace cowire::test

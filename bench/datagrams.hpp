// SPDX-License-Identifier: Apache-2.0
/// Datagrams as the benchmarks send and receive them through the kernel, and the clock of its time
/// stamps.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/assert.hpp>
#include <cowire/base/unique_fd.hpp>

#include <arpa/inet.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <optional>
#include <span>

namespace cowire::bench {

[[nodiscard]] inline std::int64_t in_ns(const timespec& time) {
  return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

[[nodiscard]] inline std::int64_t now_ns(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return in_ns(now);
}

/// Receives into `bytes` from a socket with SO_TIMESTAMPNS. Returns when the kernel had it, by
/// CLOCK_REALTIME; empty = recvmsg() failed.
[[nodiscard]] inline std::optional<std::int64_t> receive_stamped(int fd,
                                                                 std::span<std::byte> bytes) {
  alignas(cmsghdr) char control[64];
  iovec part{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (::recvmsg(fd, &message, 0) < 0) return std::nullopt;
  const cmsghdr* const stamp = CMSG_FIRSTHDR(&message);
  COWIRE_ASSERT(stamp != nullptr && stamp->cmsg_type == SCM_TIMESTAMPNS);
  timespec at{};
  std::memcpy(&at, CMSG_DATA(stamp), sizeof at);
  return in_ns(at);
}

/// An IPv4 destination's datagrams by sendto().
class kernel_sender {
 public:
  explicit kernel_sender(const endpoint& to)
      : fd_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    to_.sin_family = AF_INET;
    to_.sin_port = htons(to.port);
    to_.sin_addr.s_addr = htonl(to.address.v4_host());
  }
  /// Whether the kernel took it.
  [[nodiscard]] bool send(std::span<const std::byte> bytes) const {
    return ::sendto(fd_.get(), bytes.data(), bytes.size(), 0,
                    reinterpret_cast<const sockaddr*>(&to_), sizeof to_) > 0;
  }

 private:
  unique_fd fd_;
  sockaddr_in to_{};
};

}  // namespace cowire::bench

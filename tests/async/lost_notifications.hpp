// SPDX-License-Identifier: Apache-2.0
/// Makes this process miss what the kernel announces, as a bug or a kernel newer than the code
/// would: the notifications of one type never reach any of its rtnetlink event sockets, and the
/// kernel reports no overrun.
#pragma once

#include <linux/filter.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace cowire::test {

/// The sockets of this process that receive rtnetlink events.
inline std::vector<int> event_sockets() {
  std::vector<int> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::atoi(entry.path().filename().c_str());
    sockaddr_nl name{};
    socklen_t size = sizeof name;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) == 0 &&
        name.nl_family == AF_NETLINK && name.nl_groups != 0)
      found.push_back(fd);
  }
  return found;
}

/// As long as it lives, messages of `type` (RTM_*) are lost.
class lost_notifications {
 public:
  explicit lost_notifications(std::uint16_t type) : sockets_(event_sockets()) {
    // A filter reads the type as a number in network order.
    const auto wanted = static_cast<std::uint32_t>(type >> 8 | (type & 0xff) << 8);
    sock_filter code[] = {BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(nlmsghdr, nlmsg_type)),
                          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, wanted, 0, 1),
                          BPF_STMT(BPF_RET | BPF_K, 0), BPF_STMT(BPF_RET | BPF_K, 0xffffffff)};
    const sock_fprog program{4, code};
    for (const int fd : sockets_)
      attached_ += ::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
  }
  ~lost_notifications() {
    const int unused = 0;
    for (const int fd : sockets_)
      ::setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused);
  }
  lost_notifications(const lost_notifications&) = delete;
  lost_notifications& operator=(const lost_notifications&) = delete;

  /// How many descriptors of such sockets there are.
  [[nodiscard]] int attached() const { return attached_; }

 private:
  std::vector<int> sockets_;
  int attached_ = 0;
};

}  // namespace cowire::test

// SPDX-License-Identifier: Apache-2.0
/// The control groups of sockets by which datagrams leave.
///
/// A socket stays in the group in which its process made it, whose programs look at what it sends,
/// wherever the process goes (cgroup_sk_alloc() in kernel/cgroup/cgroup.c).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace cowire::detail {

/// The id of a UDP socket's control group, which is the inode of its folder. Unset: the kernel does
/// not tell (before 5.9, or without udp_diag), or the socket is not bound, or of another network
/// namespace than the calling thread. Blocking, though the kernel answers at once. Any thread.
[[nodiscard]] std::optional<std::uint64_t> control_group_of(int fd);

/// Which ones there are. Any thread.
class socket_groups {
 public:
  /// As long as somebody holds it, the group is one of these.
  using membership = std::shared_ptr<const std::uint64_t>;

  struct joined {
    membership held;
    bool is_new = false;  ///< It was none of these until now.
  };
  [[nodiscard]] joined join(std::uint64_t id);
  [[nodiscard]] std::vector<std::uint64_t> ids();

 private:
  std::mutex mutex_;
  std::map<std::uint64_t, std::weak_ptr<const std::uint64_t>> known_;
};

}  // namespace cowire::detail

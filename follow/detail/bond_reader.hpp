// SPDX-License-Identifier: Apache-2.0
/// Reads what messages do not tell of bonds that hash frames.
///
/// The order of slaves is that of enslaving; rtnetlink has it nowhere, an ioctl does (bond_main.c:
/// bond_slave_info_query). A bond's active aggregator, and that of a port which falls back to its
/// own, change without a message (bond_3ad.c). Both are at least as new as the mirror: what changes
/// later is announced later, and makes the bond unsettled again.
///
/// Blocks as long as the kernel's RTNL lock is held, microseconds as a rule: changes of routes have
/// waited for the same lock. One thread at a time. Network namespace: the creating thread's.
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/netlink/request_socket.hpp>
#include <cowire/route/mirror.hpp>

#include <cstdint>
#include <optional>
#include <string>

namespace cowire::detail {

class bond_reader {
 public:
  /// Throws std::system_error.
  bond_reader();

  /// Reads all unsettled bonds of a mirror. What cannot be read stays unsettled.
  void settle(mirror& state, mirror_changes& changes);

 private:
  [[nodiscard]] std::optional<bond_reading> read(const mirrored_device& bond);
  [[nodiscard]] std::optional<std::vector<std::uint32_t>> read_order(const std::string& name) const;

  netlink::request_socket links_;
  const unique_fd ioctl_socket_;
};

}  // namespace cowire::detail

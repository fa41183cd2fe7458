// SPDX-License-Identifier: Apache-2.0
/// Who made a tunnel, so that those of a process that was killed are told from those of one that
/// lives, and from anybody else's, for certain.
///
/// The mark is the device's alias (`ip link` shows it): the number that the kernel gave the network
/// namespace, and a token. Its maker holds an abstract Unix socket of that name, which lives in the
/// same namespace and goes with the process, however it ends. So a marked tunnel whose name is free
/// is a dead process's; the socket that found that out holds the name from then on. A device that
/// was moved to another namespace, or whose alias was changed, is nobody's; a child that was forked
/// keeps the name as long as it lives.
///
/// One thread at a time.
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/netlink/message.hpp>

#include <map>
#include <string>

namespace cowire::detail {

class tunnel_owner {
 public:
  tunnel_owner();

  /// The alias of what this process makes; "" = nothing can be marked here (before Linux 5.14).
  [[nodiscard]] const std::string& mark() const noexcept { return mark_; }
  /// Whether its maker is no more; then it is this process's. True again and again.
  [[nodiscard]] bool takes_over(const netlink::link& device);

 private:
  [[nodiscard]] bool hold(const std::string& mark);

  std::string prefix_;  ///< Of all marks in this namespace.
  std::string mark_;
  std::map<std::string, unique_fd> held_;  ///< By mark.
};

}  // namespace cowire::detail

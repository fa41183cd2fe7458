// SPDX-License-Identifier: Apache-2.0
/// A socket of any kind, for ioctls that ask for devices by name.
#pragma once

#include <cowire/base/error.hpp>
#include <cowire/base/unique_fd.hpp>

#include <sys/socket.h>

#include <cerrno>

namespace cowire::detail {

/// Throws std::system_error.
[[nodiscard]] inline unique_fd open_ioctl_socket() {
  unique_fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) throw_error(errno_code(errno), "a socket to ask for devices with");
  return fd;
}

}  // namespace cowire::detail

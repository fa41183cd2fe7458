// SPDX-License-Identifier: Apache-2.0
/// A descriptor of one's own for the same file: an object that keeps a request armed needs one,
/// since the caller's number may be closed and given to another file at any time.
#pragma once

#include <cowire/base/error.hpp>
#include <cowire/base/unique_fd.hpp>

#include <fcntl.h>

#include <cerrno>
#include <string>

namespace cowire::detail {

/// Throws std::system_error.
[[nodiscard]] inline unique_fd duplicate(int fd) {
  unique_fd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) throw_error(errno_code(errno), "duplicating descriptor " + std::to_string(fd));
  return copy;
}

}  // namespace cowire::detail

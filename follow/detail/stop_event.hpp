// SPDX-License-Identifier: Apache-2.0
/// Tells a thread that waits in poll() to end.
#pragma once

#include <cowire/base/assert.hpp>
#include <cowire/base/error.hpp>
#include <cowire/base/unique_fd.hpp>

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace cowire::detail {

class stop_event {
 public:
  /// Throws std::system_error when no eventfd can be made.
  stop_event() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (!fd_) throw_error(errno_code(errno), "eventfd");
  }
  /// Any thread.
  void set() noexcept {
    const std::uint64_t one = 1;
    const auto written = ::write(fd_.get(), &one, sizeof one);
    COWIRE_ASSERT(written == sizeof one);  // An eventfd write of 1 is never short.
  }
  /// Readable once set.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  const unique_fd fd_;
};

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// A network namespace without a name, for one thread: it vanishes with its last user.
///
/// Needs CAP_SYS_ADMIN; where that is missing entered() says so and nothing has happened.
#pragma once

#include <cowire/base/unique_fd.hpp>

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace cowire::test {

/// Puts the calling thread into a new, empty network namespace, and back when destroyed.
class private_namespace {
 public:
  private_namespace() : home_(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
    entered_ = home_ && ::unshare(CLONE_NEWNET) == 0;
  }
  private_namespace(const private_namespace&) = delete;
  private_namespace& operator=(const private_namespace&) = delete;
  ~private_namespace() {
    if (entered_ && ::setns(home_.get(), CLONE_NEWNET) != 0) std::abort();
  }

  [[nodiscard]] bool entered() const noexcept { return entered_; }

 private:
  unique_fd home_;
  bool entered_ = false;
};

/// In the calling thread's namespace.
inline void bring_up_loopback() {
  const unique_fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP;
  if (::ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0) std::perror("lo");
}

}  // namespace cowire::test

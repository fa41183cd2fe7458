// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/doorbell.hpp>

#include <cowire/base/assert.hpp>
#include <cowire/base/error.hpp>

#include <sys/eventfd.h>

#include <cerrno>
#include <cstdint>

namespace cowire {

doorbell::doorbell() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!fd_) throw_error(errno_code(errno), "eventfd for a doorbell");
}

void doorbell::disarm() noexcept {
  std::uint64_t count = 0;
  const auto got = ::read(fd_.get(), &count, sizeof count);
  COWIRE_ASSERT(got == sizeof count || errno == EAGAIN);
  armed_.store(false, std::memory_order_relaxed);
}

void doorbell::write_once() noexcept {
  if (born_.inherited()) return;
  // The first ringer writes, the others find the bell disarmed.
  if (!armed_.exchange(false, std::memory_order_acq_rel)) return;
  const std::uint64_t one = 1;
  const auto written = ::write(fd_.get(), &one, sizeof one);
  COWIRE_ASSERT(written == sizeof one);  // An eventfd write of 1 is never short.
}

}  // namespace cowire

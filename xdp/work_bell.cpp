// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/work_bell.hpp>

#include <sched.h>

namespace cowire {

bool work_bell::wait(const timespec& limit) noexcept {
  vacant_.store(true, std::memory_order_release);
  pollfd rung{.fd = bell_.fd(), .events = POLLIN, .revents = 0};
  const bool needed = ::ppoll(&rung, 1, &limit, nullptr) > 0;
  core_returns_.store(true, std::memory_order_relaxed);
  while (!vacant_.exchange(false, std::memory_order_acquire)) ::sched_yield();  // A batch at most.
  core_returns_.store(false, std::memory_order_relaxed);
  return needed;
}

void work_bell::stand_in() noexcept {
  if (core_returns_.load(std::memory_order_relaxed) ||
      !vacant_.exchange(false, std::memory_order_acquire))
    return bell_.ring();
  const bool enough = act_(context_);
  vacant_.store(true, std::memory_order_release);
  if (!enough) bell_.ring();
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/work_bell.hpp>

#include <sched.h>

namespace cowire {

bool work_bell::wait(const timespec& limit) noexcept {
  leave();
  pollfd rung{.fd = bell_.fd(), .events = POLLIN, .revents = 0};
  const bool needed = ::ppoll(&rung, 1, &limit, nullptr) > 0;
  come_back();
  return needed;
}

void work_bell::yield() noexcept {
  leave();
  ::sched_yield();
  come_back();
}

void work_bell::leave() noexcept { vacant_.store(true, std::memory_order_release); }

void work_bell::come_back() noexcept {
  core_returns_.store(true, std::memory_order_relaxed);
  while (!vacant_.exchange(false, std::memory_order_acquire)) ::sched_yield();  // A batch at most.
  core_returns_.store(false, std::memory_order_relaxed);
}

void work_bell::stand_in() noexcept {
  if (born_.inherited()) return;  // The rings are shared with the parent.
  if (core_returns_.load(std::memory_order_relaxed) ||
      !vacant_.exchange(false, std::memory_order_acquire))
    return bell_.ring();
  const bool enough = act_(context_);
  vacant_.store(true, std::memory_order_release);
  if (!enough) bell_.ring();
}

}  // namespace cowire

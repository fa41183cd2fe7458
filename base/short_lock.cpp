// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/relax_cpu.hpp>
#include <cowire/base/short_lock.hpp>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace cowire {
namespace {

/// Some microseconds: several sections, and less than a sleep and a wake-up take.
constexpr int spins = 100;

void futex(std::atomic<std::uint32_t>& word, int what, std::uint32_t value) noexcept {
  static_assert(sizeof word == sizeof(std::uint32_t) &&
                std::atomic<std::uint32_t>::is_always_lock_free);
  // Interrupted, or changed meanwhile: whoever waits looks at the word again.
  static_cast<void>(::syscall(SYS_futex, &word, what, value, nullptr, nullptr, 0));
}

}  // namespace

void short_lock::lock_slowly() noexcept {
  for (int i = 0; i < spins; ++i) {
    relax_cpu();
    if (state_.load(std::memory_order_relaxed) == free && try_lock()) return;
  }
  // Who has slept does not know whether others still do, and takes it as one that is waited for.
  while (state_.exchange(contended, std::memory_order_acquire) != free) {
    futex(state_, FUTEX_WAIT_PRIVATE, contended);
    for (int i = 0; i < spins && state_.load(std::memory_order_relaxed) != free; ++i) relax_cpu();
  }
}

void short_lock::wake_one() noexcept { futex(state_, FUTEX_WAKE_PRIVATE, 1); }

}  // namespace cowire

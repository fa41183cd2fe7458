// SPDX-License-Identifier: Apache-2.0
/// For loops that wait for another thread.
#pragma once

namespace cowire {

/// Tells the processor that this is a waiting loop: it saves power, and a sibling thread gets on.
inline void relax_cpu() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // About as long as x86's pause, where `yield` is nothing.
#endif
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// Waiting for what must come, on machines that may have much else to do.
#pragma once

#include <chrono>
#include <functional>
#include <thread>

namespace cowire::test {

/// How long anything is waited for that must happen: so long that only a fault lets it pass. What
/// must not happen has a time of its own.
inline constexpr std::chrono::seconds patience{60};

/// Polls, because nothing announces what is waited for; whether it came about in time.
inline bool eventually(const std::function<bool()>& condition,
                       std::chrono::milliseconds timeout = patience) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace cowire::test

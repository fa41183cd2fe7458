// SPDX-License-Identifier: Apache-2.0
// Children of a process that has several threads.
#pragma once

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace cowire::test {

namespace detail {

/// False while another thread runs, or is ready to.
inline bool others_sleep() {
  const auto own = std::to_string(::gettid());
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    if (task.path().filename() == own) continue;
    std::ifstream file(task.path() / "stat");
    std::string words;
    std::getline(file, words);
    const auto name_end = words.rfind(") ");  // "pid (name) state ...", proc(5).
    if (name_end != std::string::npos && words[name_end + 2] != 'S') return false;
  }
  return true;
}

}  // namespace detail

/// fork() for a child that allocates. AddressSanitizer's allocator and its depot of stacks are not
/// locked around fork() (gcc 12's, 13's and 14's; LLVM 18's are): a child that is born while
/// another thread holds one of those locks waits for it for ever. So where it watches, the child is
/// made while all other threads sleep, which none does with such a lock. Waits at most 10 s.
inline pid_t fork_for_allocating() {
#if defined(__SANITIZE_ADDRESS__)
  using namespace std::chrono_literals;
  const auto end = std::chrono::steady_clock::now() + 10s;
  while (!detail::others_sleep() && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(1ms);
#endif
  return ::fork();
}

}  // namespace cowire::test

// SPDX-License-Identifier: Apache-2.0
// Child processes: of a process that has several threads, and commands under way.
#pragma once

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

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
#if defined(COWIRE_ADDRESS_SANITIZER)
  using namespace std::chrono_literals;
  const auto end = std::chrono::steady_clock::now() + 10s;
  while (!detail::others_sleep() && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(1ms);
#endif
  return ::fork();
}

/// A command under way where the calling thread is, and what it prints to either stream. It ends
/// with this object, or with this process.
class running_command {
 public:
  /// `command`: a program and its arguments.
  explicit running_command(const std::string& command)
      : pipe_(
            ::popen(("echo $$; exec setpriv --pdeathsig TERM " + command + " 2>&1").c_str(), "r")) {
    if (pipe_ == nullptr) throw std::runtime_error("popen: " + command);
    process_ = std::stoi(line());
  }
  running_command(const running_command&) = delete;
  running_command& operator=(const running_command&) = delete;
  ~running_command() {
    if (pipe_ == nullptr) return;
    signal(SIGTERM);
    static_cast<void>(wait());
  }

  void signal(int number) const { ::kill(process_, number); }
  /// The next line, with its end; empty where there are no more.
  [[nodiscard]] std::string line() {
    char text[512] = {};
    return std::fgets(text, sizeof text, pipe_) != nullptr ? text : "";
  }
  /// All lines until it ends.
  [[nodiscard]] std::string rest() {
    std::string all;
    for (std::string next = line(); !next.empty(); next = line()) all += next;
    return all;
  }
  /// Its exit status, as waitpid() has it.
  [[nodiscard]] int wait() { return ::pclose(std::exchange(pipe_, nullptr)); }

 private:
  FILE* pipe_;
  int process_ = 0;
};

}  // namespace cowire::test

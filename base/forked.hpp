// SPDX-License-Identifier: Apache-2.0
/// What becomes of our objects in a child of fork(): they stay the parent's.
///
/// A child gets a copy of the memory, but none of the threads, and what the kernel maps or refers
/// to by a descriptor (rings, sockets, epoll sets) it shares with the parent. So an object that was
/// made before a fork is inherited in the child: it refuses its calls with error::forked, and its
/// destructor leaves everything as it is. What a child makes itself works as anywhere.
///
///     fork_mark born_;                                    // a member
///     if (born_.inherited()) return error::forked;        // one load and one compare
///
/// Inherited objects must not even lock their mutexes: the thread that held one is not there.
///
/// The child of a fork notices by a handler of pthread_atfork(3). Processes made by vfork(),
/// posix_spawn() or the bare clone() system call run none: they may do nothing but exec.
#pragma once

#include <cowire/base/unique_fd.hpp>

#include <atomic>
#include <cstdint>
#include <memory>

namespace cowire::detail {

/// Forks between the first process of the program and this one. Changes only in a child, before
/// fork() returns there.
extern std::atomic<std::uint32_t> fork_generation;

/// The process that an object belongs to: the one that made it. Any thread.
class fork_mark {
 public:
  fork_mark() noexcept : generation_(fork_generation.load(std::memory_order_relaxed)) {}
  /// Whether this is a child's copy.
  [[nodiscard]] bool inherited() const noexcept {
    return generation_ != fork_generation.load(std::memory_order_relaxed);
  }

 private:
  std::uint32_t generation_;
};

/// Never destroys what an inherited handle owned, and keeps it reachable for leak checkers.
void leave_behind(std::shared_ptr<void> owned) noexcept;

/// While it lives, children of fork() get a placeholder instead of a descriptor, so that the parent
/// alone decides when the socket behind it is gone. Any thread.
class kept_from_children {
 public:
  kept_from_children() noexcept = default;
  /// -1 = none. The descriptor stays somebody else's, who closes it after this object is gone.
  explicit kept_from_children(int fd);
  kept_from_children(kept_from_children&& other) noexcept : entry_(std::move(other.entry_)) {}
  kept_from_children& operator=(kept_from_children&& other) noexcept;
  ~kept_from_children();

  /// One of the list of them.
  struct entry {
    int fd = -1;
    entry* previous = nullptr;
    entry* next = nullptr;
    fork_mark born{};
  };

 private:
  void forget() noexcept;
  std::unique_ptr<entry> entry_;
};

/// A unique_fd that children of fork() do not get.
class parents_fd {
 public:
  parents_fd() noexcept = default;
  parents_fd(unique_fd fd) : fd_(std::move(fd)), kept_(fd_.get()) {}
  parents_fd(parents_fd&&) noexcept = default;
  parents_fd& operator=(parents_fd&& other) noexcept {
    kept_ = std::move(other.kept_);
    fd_ = std::move(other.fd_);
    return *this;
  }
  ~parents_fd() = default;

  [[nodiscard]] int get() const noexcept { return fd_.get(); }
  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(fd_); }

 private:
  unique_fd fd_;
  kept_from_children kept_;  ///< Last: gone before the descriptor is closed.
};

}  // namespace cowire::detail

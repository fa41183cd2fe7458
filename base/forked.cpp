// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/forked.hpp>

#include <cowire/base/assert.hpp>

#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <mutex>

namespace cowire::detail {

std::atomic<std::uint32_t> fork_generation{0};

namespace {

/// Never destroyed: forks and objects of static storage come later than any destructor.
struct registry {
  std::mutex mutex;
  kept_from_children::entry* first = nullptr;
};
registry& kept() noexcept {
  static auto* const all = new registry;
  return *all;
}

struct left_behind {
  std::shared_ptr<void> owned;
  left_behind* next;
};
std::atomic<left_behind*> all_left_behind{nullptr};

void before_fork() noexcept { kept().mutex.lock(); }
void in_parent() noexcept { kept().mutex.unlock(); }
/// Only calls that are safe after the fork of a process with threads.
void in_child() noexcept {
  registry& all = kept();
  // Something must hold the numbers: objects that still name them may be asked for them.
  const int placeholder = all.first ? ::eventfd(0, EFD_CLOEXEC) : -1;
  for (auto* one = all.first; one; one = one->next)
    if (placeholder < 0 || ::dup3(placeholder, one->fd, O_CLOEXEC) < 0) ::close(one->fd);
  if (placeholder >= 0) ::close(placeholder);
  all.first = nullptr;
  fork_generation.fetch_add(1, std::memory_order_relaxed);
  all.mutex.unlock();
}

const int watching = [] {
  static_cast<void>(kept());
  return ::pthread_atfork(before_fork, in_parent, in_child);
}();

}  // namespace

void leave_behind(std::shared_ptr<void> owned) noexcept {
  auto* const one = new left_behind{std::move(owned), all_left_behind.load()};
  while (!all_left_behind.compare_exchange_weak(one->next, one)) {
  }
}

kept_from_children::kept_from_children(int fd) {
  COWIRE_ASSERT(watching == 0);
  if (fd < 0) return;
  entry_ = std::make_unique<entry>();
  entry_->fd = fd;
  registry& all = kept();
  const std::lock_guard lock(all.mutex);
  entry_->next = all.first;
  if (all.first) all.first->previous = entry_.get();
  all.first = entry_.get();
}

kept_from_children& kept_from_children::operator=(kept_from_children&& other) noexcept {
  if (this != &other) {
    forget();
    entry_ = std::move(other.entry_);
  }
  return *this;
}

kept_from_children::~kept_from_children() { forget(); }

void kept_from_children::forget() noexcept {
  if (!entry_) return;
  if (!entry_->born.inherited()) {
    registry& all = kept();
    const std::lock_guard lock(all.mutex);
    (entry_->previous ? entry_->previous->next : all.first) = entry_->next;
    if (entry_->next) entry_->next->previous = entry_->previous;
  }
  entry_.reset();
}

}  // namespace cowire::detail

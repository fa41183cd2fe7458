// SPDX-License-Identifier: Apache-2.0
/// A member that a child of fork() does not destroy: threads that are not there were using it, and
/// what it has in the kernel is the parent's.
#pragma once

#include <cowire/base/forked.hpp>

#include <memory>
#include <utility>

namespace cowire::detail {

template <class T>
class parents_own {
 public:
  template <class... Arguments>
  explicit parents_own(Arguments&&... arguments) : value_(std::forward<Arguments>(arguments)...) {}
  parents_own(const parents_own&) = delete;
  parents_own& operator=(const parents_own&) = delete;
  ~parents_own() {
    if (!born_.inherited()) std::destroy_at(&value_);
  }

  [[nodiscard]] T& operator*() noexcept { return value_; }
  [[nodiscard]] T* operator->() noexcept { return &value_; }
  [[nodiscard]] const T* operator->() const noexcept { return &value_; }

 private:
  union {
    T value_;
  };
  fork_mark born_;
};

}  // namespace cowire::detail

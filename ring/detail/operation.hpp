// SPDX-License-Identifier: Apache-2.0
/// What a ring thread's queue holds: an intrusive, type-erased piece of work that is run or
/// destroyed exactly once, and the memory it lives in.
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>

namespace cowire::detail {

/// Either run() or destroy() is called, once; both free the operation before user code runs.
class operation {
 public:
  operation(const operation&) = delete;
  operation& operator=(const operation&) = delete;
  void run() { function_(this, true); }
  void destroy() noexcept { function_(this, false); }

 protected:
  using function = void (*)(operation*, bool run);
  explicit operation(function f) noexcept : function_(f) {}
  ~operation() = default;

 private:
  friend class operation_queue;
  friend class event_loop;
  operation* next_ = nullptr;
  function function_;
};

/// Deleter of an operation that will not be run.
struct destroy_operation {
  void operator()(operation* op) const noexcept { op->destroy(); }
};

/// First in, first out; owns what it holds only in so far as somebody must pop it.
class operation_queue {
 public:
  [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
  void push(operation* op) noexcept {
    op->next_ = nullptr;
    (last_ ? last_->next_ : first_) = op;
    last_ = op;
  }
  /// nullptr when empty.
  [[nodiscard]] operation* pop() noexcept {
    operation* op = first_;
    if (op) {
      first_ = op->next_;
      if (!first_) last_ = nullptr;
    }
    return op;
  }
  /// Moves all of `other` behind what is here.
  void append(operation_queue& other) noexcept {
    if (other.empty()) return;
    (last_ ? last_->next_ : first_) = other.first_;
    last_ = other.last_;
    other.first_ = other.last_ = nullptr;
  }

 private:
  operation* first_ = nullptr;
  operation* last_ = nullptr;
};

/// A few freed blocks a thread, by size: operations are short-lived and alike, so that after
/// start-up an operation begun and ended on one thread costs no trip to the heap.
[[nodiscard]] void* allocate_recycled(std::size_t size);
void free_recycled(void* block, std::size_t size) noexcept;

/// The allocator used where a handler brings none of its own.
template <class T>
class recycling_allocator {
 public:
  using value_type = T;
  recycling_allocator() noexcept = default;
  template <class U>
  recycling_allocator(const recycling_allocator<U>&) noexcept {}
  [[nodiscard]] T* allocate(std::size_t count) {
    if constexpr (alignof(T) > __STDCPP_DEFAULT_NEW_ALIGNMENT__)
      return static_cast<T*>(::operator new (count * sizeof(T), std::align_val_t{alignof(T)}));
    else
      return static_cast<T*>(allocate_recycled(count * sizeof(T)));
  }
  void deallocate(T* block, std::size_t count) noexcept {
    if constexpr (alignof(T) > __STDCPP_DEFAULT_NEW_ALIGNMENT__)
      ::operator delete (block, std::align_val_t{alignof(T)});
    else
      free_recycled(block, count * sizeof(T));
  }
  template <class U>
  friend bool operator==(const recycling_allocator&, const recycling_allocator<U>&) noexcept {
    return true;
  }
};

template <>
class recycling_allocator<void> {
 public:
  using value_type = void;
  recycling_allocator() noexcept = default;
  template <class U>
  recycling_allocator(const recycling_allocator<U>&) noexcept {}
  friend bool operator==(const recycling_allocator&, const recycling_allocator&) noexcept {
    return true;
  }
};

/// A function object as an operation.
template <class Function>
class function_operation final : public operation {
 public:
  template <class F>
  [[nodiscard]] static operation* make(F&& f) {
    allocator memory;
    auto* block = memory.allocate(1);
    try {
      return ::new (block) function_operation(std::forward<F>(f));
    } catch (...) {
      memory.deallocate(block, 1);
      throw;
    }
  }

 private:
  using allocator = recycling_allocator<function_operation>;

  template <class F>
  requires(!std::same_as<std::remove_cvref_t<F>, function_operation>) explicit function_operation(
      F&& f)
      : operation(&complete), function_(std::forward<F>(f)) {}

  static void complete(operation* base, bool run) {
    auto* self = static_cast<function_operation*>(base);
    Function function(std::move(self->function_));
    self->~function_operation();
    allocator().deallocate(self, 1);
    if (run) std::move(function)();
  }

  Function function_;
};

/// A handler with its results on the way to the handler's executor. `Allocator` is the handler's
/// associated one, which the executor allocates with.
template <class Handler, class Allocator, class... Results>
struct delivery {
  using allocator_type = Allocator;
  [[nodiscard]] allocator_type get_allocator() const noexcept { return memory; }
  void operator()() {
    std::apply([this](auto&... r) { std::move(handler)(std::move(r)...); }, results);
  }
  Allocator memory;
  Handler handler;
  std::tuple<Results...> results;
};

}  // namespace cowire::detail

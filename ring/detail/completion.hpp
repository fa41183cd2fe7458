// SPDX-License-Identifier: Apache-2.0
/// From a completion token to something a compiled core can hold: initiate(), completion,
/// wait_list.
///
/// A completion is one handler waiting for its results, type-erased. Its life:
/// - created by initiate() in the initiating thread, with the handler's associated allocator; from
///   then on it counts as work of the ring and of the handler's own executor;
/// - handed to the object's state on the ring thread (always through the queue, so that all actions
///   on one object keep their order), where it waits in a wait_list or a request;
/// - complete() stores the results and queues it: the handler never runs inside an initiating call,
///   a cancel() or a destructor;
/// - run by the loop it frees its memory, then dispatches the handler to its associated executor.
///   Or it is destroyed, the handler uncalled, when the ring goes away first.
///
/// Cancellation: the slot gets a handler that posts "cancel id" to the state; ids are never used
/// again, so that a late signal finds nothing. Every cancellation type is honoured: no operation
/// here has a partial effect.
#pragma once

#include <cowire/ring/ring_context.hpp>

#include <cstdint>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

namespace cowire::detail {

template <class... Results>
class completion : public operation {
 public:
  /// Ring thread.
  void complete(Results... results) {
    results_ = std::tuple<Results...>(std::move(results)...);
    loop_.submit(this);
  }
  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }

 protected:
  completion(function f, event_loop& l, std::uint64_t id) noexcept
      : operation(f), loop_(l), id_(id) {}
  ~completion() = default;
  std::tuple<Results...> results_;  ///< Meaningless before complete(), as its operation is not run.

 private:
  detail::event_loop& loop_;
  std::uint64_t id_;  // 0: has no cancellation slot.
};

/// A completion on its way; destroys the handler if it gets lost with a queue that is torn down.
template <class... Results>
using completion_ptr = std::unique_ptr<completion<Results...>, destroy_operation>;

/// Completions that wait, first in, first out. Ring thread.
template <class... Results>
class wait_list {
 public:
  using element = completion<Results...>;
  wait_list() = default;
  wait_list(const wait_list&) = delete;
  wait_list& operator=(const wait_list&) = delete;
  ~wait_list() { destroy_all(); }

  [[nodiscard]] bool empty() const noexcept { return queue_.empty(); }
  void push(completion_ptr<Results...> c) noexcept { queue_.push(c.release()); }
  /// nullptr when empty. The caller completes it.
  [[nodiscard]] element* pop() noexcept { return static_cast<element*>(queue_.pop()); }
  /// Takes out the one with this id; nullptr when it is not (or no longer) here.
  [[nodiscard]] element* remove(std::uint64_t id) noexcept {
    operation_queue kept;
    element* found = nullptr;
    while (element* c = pop()) {
      if (c->id() == id)
        found = c;
      else
        kept.push(c);
    }
    queue_.append(kept);
    return found;
  }
  void destroy_all() noexcept {
    while (element* c = pop()) c->destroy();
  }

 private:
  operation_queue queue_;
};

template <class Handler, class... Results>
class handler_completion final : public completion<Results...> {
  using executor = asio::associated_executor_t<Handler, ring_context::executor_type>;
  using work = std::decay_t<decltype(asio::prefer(std::declval<const executor&>(),
                                                  asio::execution::outstanding_work.tracked))>;
  using plain_allocator = asio::associated_allocator_t<Handler, recycling_allocator<void>>;
  using allocator =
      typename std::allocator_traits<plain_allocator>::template rebind_alloc<handler_completion>;

 public:
  [[nodiscard]] static completion_ptr<Results...> make(Handler&& handler, ring_context& ring,
                                                       std::uint64_t id) {
    allocator memory(asio::get_associated_allocator(handler, recycling_allocator<void>()));
    auto* block = std::allocator_traits<allocator>::allocate(memory, 1);
    // Asio requires handlers and executors to move without throwing.
    return completion_ptr<Results...>(::new (static_cast<void*>(block))
                                          handler_completion(std::move(handler), ring, id));
  }

 private:
  handler_completion(Handler&& handler, ring_context& ring, std::uint64_t id) noexcept
      : completion<Results...>(&finish, loop_of(ring), id),
        work_(asio::prefer(asio::get_associated_executor(handler, ring.get_executor()),
                           asio::execution::outstanding_work.tracked)),
        handler_(std::move(handler)) {
    loop_of(ring).work_started();
  }

  static void finish(operation* base, bool run) {
    auto* self = static_cast<handler_completion*>(base);
    plain_allocator plain(
        asio::get_associated_allocator(self->handler_, recycling_allocator<void>()));
    work working(std::move(self->work_));
    Handler handler(std::move(self->handler_));
    auto results = std::move(self->results_);
    allocator memory(plain);
    std::allocator_traits<allocator>::destroy(memory, self);
    std::allocator_traits<allocator>::deallocate(memory, self, 1);
    if (!run) return;
    asio::dispatch(asio::prefer(working, asio::execution::outstanding_work.untracked),
                   delivery<Handler, plain_allocator, Results...>{plain, std::move(handler),
                                                                  std::move(results)});
  }

  work work_;
  Handler handler_;
};

/// What async_initiate() calls with the handler.
template <class Start, class... Results>
class initiation {
 public:
  using executor_type = ring_context::executor_type;
  initiation(ring_context& ring, std::shared_ptr<ring_object> object, Start start)
      : ring_(&ring), object_(std::move(object)), start_(std::move(start)) {}
  [[nodiscard]] executor_type get_executor() const noexcept { return ring_->get_executor(); }

  template <class Handler>
  void operator()(Handler&& handler) const {
    std::uint64_t id = 0;
    auto slot = asio::get_associated_cancellation_slot(handler);
    if (slot.is_connected()) {
      id = loop_of(*ring_).next_id();
      slot.assign([weak = std::weak_ptr(object_), id](asio::cancellation_type type) {
        if (type == asio::cancellation_type::none) return;
        if (auto target = weak.lock())
          target->loop().post_function([target, id] { target->on_cancel(id); });
      });
    }
    using operation_type = handler_completion<std::decay_t<Handler>, Results...>;
    std::decay_t<Handler> own(std::forward<Handler>(handler));
    loop_of(*ring_).post_function(
        [keep = object_, begin = start_,
         c = operation_type::make(std::move(own), *ring_, id)]() mutable { begin(std::move(c)); });
  }

 private:
  ring_context* ring_;
  std::shared_ptr<ring_object> object_;
  Start start_;
};

/// Starts an operation of `object` as Asio's model wants it: start(completion_ptr<Results...>) is
/// called on the ring thread, and `object`, which lives until then, hears of cancellations.
template <class... Results, class Token, class Start>
auto initiate(Token&& token, ring_context& ring, std::shared_ptr<ring_object> object, Start start) {
  return asio::async_initiate<Token, void(Results...)>(
      initiation<Start, Results...>(ring, std::move(object), std::move(start)), token);
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// A handler that waits for its results, type-erased, and goes straight to its own executor.
///
/// The counterpart of ring/detail/completion.hpp for objects that are not driven by the ring
/// thread: a sender completes on the application's thread, without a detour. Move-only owner;
/// dropped unarmed, or with the handler uncalled. complete() may be called inside the initiating
/// call: the handler is always posted. Memory comes from the handler's associated allocator; its
/// executor has outstanding work until the handler was posted.
///
/// Once it waits (begin_wait) the handler is destroyed with its execution context: the completion
/// is not armed any more then, and completing it does nothing (ring/detail/waiting_place.hpp).
///
/// Serialised use, but for the end of the context.
#pragma once

#include <cowire/base/error.hpp>
#include <cowire/ring/asio.hpp>
#include <cowire/ring/detail/operation.hpp>
#include <cowire/ring/detail/waiting_place.hpp>
#include <cowire/ring/ring_context.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

namespace cowire {

template <class... Results>
class direct_completion {
 public:
  direct_completion() noexcept = default;
  /// `fallback` is the executor of handlers that have none of their own.
  template <class Handler>
  direct_completion(Handler handler, const ring_context::executor_type& fallback)
      : held_(holder<Handler>::make(std::move(handler), fallback)) {}

  direct_completion(direct_completion&&) noexcept = default;
  direct_completion& operator=(direct_completion&& other) noexcept {
    if (this != &other) {
      drop();
      held_ = std::move(other.held_);
      place_ = std::move(other.place_);
    }
    return *this;
  }
  ~direct_completion() { drop(); }

  [[nodiscard]] bool armed() const noexcept { return held_ || (place_ && place_->holds()); }
  /// Posts the handler, if there still is one; not armed any more.
  void complete(Results... results) { static_cast<void>(try_complete(results...)); }
  /// The same, moving from `results`; false, and they are as they were, where the handler is gone.
  [[nodiscard]] bool try_complete(Results&... results) {
    if (held_) {
      held_.release()->complete(std::move(results)...);
      return true;
    }
    const auto place = std::exchange(place_, nullptr);
    return place && place->take([&](detail::droppable* held) {
      static_cast<base*>(held)->complete(std::move(results)...);
    });
  }
  /// As complete(), in a child of fork() where the fallback runs nothing: throws std::system_error
  /// (error::forked) if that is where the handler would run.
  void refuse_in_child(Results... results) {
    if (held_->runs_on_fallback()) {
      held_.reset();
      throw_error(make_error_code(error::forked), "a handler without an executor of its own");
    }
    complete(std::move(results)...);
  }
  /// Before it is kept. A cancellation signal, emitted where the handler's slot is used, and the
  /// end of the handler's context are passed on as `ticket`. Every type of cancellation is
  /// honoured: no operation here has a partial effect without saying so.
  void begin_wait(const std::weak_ptr<detail::cancellable>& target, std::uint64_t ticket) {
    place_ = held_->begin_wait(target, ticket);
    static_cast<void>(held_.release());  // The place's now.
  }
  /// The same without a place, where the handler runs on the fallback; false where it does not. For
  /// whoever drops the completion itself when the fallback's ring goes.
  [[nodiscard]] bool begin_wait_on_fallback(const std::weak_ptr<detail::cancellable>& target,
                                            std::uint64_t ticket) {
    if (!held_->runs_on_fallback()) return false;
    held_->listen_to_slot(target, ticket);
    return true;
  }
  /// Where whoever wants to act for the waiting handler posts to: to the handler's executor, or the
  /// fallback.
  [[nodiscard]] const std::shared_ptr<detail::waiting_place>& place() const noexcept {
    return place_;
  }

 private:
  class base : public detail::droppable, public detail::operation {
   public:
    virtual void complete(Results... results) = 0;  ///< Also frees.
    virtual void listen_to_slot(const std::weak_ptr<detail::cancellable>& target,
                                std::uint64_t ticket) = 0;
    [[nodiscard]] virtual bool runs_on_fallback() const noexcept = 0;
    [[nodiscard]] virtual std::shared_ptr<detail::waiting_place> begin_wait(
        const std::weak_ptr<detail::cancellable>& target, std::uint64_t ticket) = 0;

   protected:
    using detail::operation::operation;
    ~base() = default;
  };
  struct destroy {
    void operator()(base* held) const noexcept { static_cast<detail::droppable*>(held)->destroy(); }
  };

  template <class Handler>
  class holder final : public base {
    using executor_t = asio::associated_executor_t<Handler, ring_context::executor_type>;
    using work = std::decay_t<decltype(asio::prefer(std::declval<const executor_t&>(),
                                                    asio::execution::outstanding_work.tracked))>;
    using plain_allocator =
        asio::associated_allocator_t<Handler, detail::recycling_allocator<void>>;
    using allocator =
        typename std::allocator_traits<plain_allocator>::template rebind_alloc<holder>;

   public:
    holder(Handler&& handler, const ring_context::executor_type& fallback) noexcept
        : base(&run),
          work_(asio::prefer(asio::get_associated_executor(handler, fallback),
                             asio::execution::outstanding_work.tracked)),
          fallback_(fallback),
          handler_(std::move(handler)) {}

    [[nodiscard]] static holder* make(Handler&& handler,
                                      const ring_context::executor_type& fallback) {
      allocator memory(
          asio::get_associated_allocator(handler, detail::recycling_allocator<void>()));
      auto* block = std::allocator_traits<allocator>::allocate(memory, 1);
      // Asio requires handlers and executors to move without throwing.
      return ::new (static_cast<void*>(block)) holder(std::move(handler), fallback);
    }

    void complete(Results... results) override {
      if (runs_on_fallback()) {
        // Its own place in the ring's queue: nothing to allocate.
        results_.emplace(std::move(results)...);
        return loop_of(asio::query(fallback_, asio::execution::context)).post(this);
      }
      const auto plain = get_plain_allocator();
      work working(std::move(work_));
      detail::delivery<Handler, plain_allocator, Results...> out{
          plain, std::move(handler_), {std::move(results)...}};
      free(plain);
      detail::post_to(asio::prefer(working, asio::execution::outstanding_work.untracked),
                      std::move(out));
    }
    void destroy() noexcept override {
      const auto plain = get_plain_allocator();
      // Freed last: it may own what owns us.
      [[maybe_unused]] const Handler handler(std::move(handler_));
      free(plain);
    }
    [[nodiscard]] bool runs_on_fallback() const noexcept override {
      const auto executor = asio::get_associated_executor(handler_, fallback_);
      const ring_context::executor_type* own = nullptr;
      if constexpr (std::is_same_v<executor_t, ring_context::executor_type>)
        own = &executor;
      else
        own = detail::inside<ring_context::executor_type>(executor);
      return own && &asio::query(*own, asio::execution::context) ==
                        &asio::query(fallback_, asio::execution::context);
    }
    [[nodiscard]] std::shared_ptr<detail::waiting_place> begin_wait(
        const std::weak_ptr<detail::cancellable>& target, std::uint64_t ticket) override {
      // The executor of use_future is none that others could post to.
      constexpr bool its_own = std::is_convertible_v<executor_t, asio::any_io_executor> ||
                               !detail::is_postable<executor_t>;
      auto place = [&] {
        if constexpr (its_own)
          return detail::make_place(
              asio::prefer(work_, asio::execution::outstanding_work.untracked), *this, target,
              ticket);
        else
          return detail::make_place(fallback_, *this, target, ticket);
      }();
      listen_to_slot(target, ticket);
      return place;
    }
    void listen_to_slot(const std::weak_ptr<detail::cancellable>& target,
                        std::uint64_t ticket) override {
      detail::pass_cancellation_on(asio::get_associated_cancellation_slot(handler_), target,
                                   ticket);
    }

   private:
    /// On the fallback's ring, with results_; or the ring goes first.
    static void run(detail::operation* op, bool wanted) {
      auto* const self = static_cast<holder*>(static_cast<base*>(op));
      if (!wanted) return static_cast<detail::droppable*>(self)->destroy();
      const auto plain = self->get_plain_allocator();
      [[maybe_unused]] const work working(std::move(self->work_));
      Handler handler(std::move(self->handler_));
      auto results = std::move(*self->results_);
      self->free(plain);
      std::apply([&](auto&... r) { std::move(handler)(std::move(r)...); }, results);
    }
    [[nodiscard]] plain_allocator get_plain_allocator() const noexcept {
      return asio::get_associated_allocator(handler_, detail::recycling_allocator<void>());
    }
    void free(const plain_allocator& plain) noexcept {
      allocator memory(plain);
      std::allocator_traits<allocator>::destroy(memory, this);
      std::allocator_traits<allocator>::deallocate(memory, this, 1);
    }

    work work_;
    ring_context::executor_type fallback_;
    Handler handler_;
    std::optional<std::tuple<Results...>> results_;
  };

  void drop() noexcept {
    held_.reset();
    if (const auto place = std::exchange(place_, nullptr))
      static_cast<void>(place->take([](detail::droppable* held) { held->destroy(); }));
  }

  std::unique_ptr<base, destroy> held_;           ///< Until it waits ...
  std::shared_ptr<detail::waiting_place> place_;  ///< ... and from then on.
};

}  // namespace cowire

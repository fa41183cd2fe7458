// SPDX-License-Identifier: Apache-2.0
/// A handler that waits for its results, type-erased, and goes straight to its own executor.
///
/// The counterpart of completion.hpp for objects that are not driven by the ring thread: a sender
/// completes on the application's thread, without a detour. Move-only owner; dropped unarmed, or
/// with the handler uncalled. complete() may be called inside the initiating call: the handler is
/// always posted. Memory comes from the handler's associated allocator; its executor has
/// outstanding work until the handler was posted.
///
/// Serialised use.
#pragma once

#include <cowire/ring/asio.hpp>
#include <cowire/ring/detail/operation.hpp>
#include <cowire/ring/ring_context.hpp>

#include <cstdint>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

namespace cowire::detail {

/// Something whose waiting operations can be cancelled by a ticket that is never used again, so
/// that a late signal finds nothing.
class cancellable {
 public:
  virtual void cancel(std::uint64_t ticket) = 0;

 protected:
  ~cancellable() = default;
};

template <class... Results>
class direct_completion {
 public:
  direct_completion() noexcept = default;
  /// `fallback` is the executor of handlers that have none of their own.
  template <class Handler>
  direct_completion(Handler handler, const ring_context::executor_type& fallback)
      : held_(holder<Handler>::make(std::move(handler), fallback)) {}

  [[nodiscard]] bool armed() const noexcept { return held_ != nullptr; }
  /// Posts the handler; not armed any more.
  void complete(Results... results) { held_.release()->complete(std::move(results)...); }
  /// Where whoever wants to act for the waiting handler posts to: the handler's executor, or the
  /// fallback.
  [[nodiscard]] asio::any_io_executor executor() const { return held_->executor(); }
  /// A cancellation signal, emitted where the handler's slot is used, is passed on as `ticket`.
  /// Every type is honoured: no operation here has a partial effect without saying so.
  void on_cancel(std::weak_ptr<cancellable> target, std::uint64_t ticket) {
    held_->on_cancel(std::move(target), ticket);
  }

 private:
  class base {
   public:
    virtual void complete(Results... results) = 0;  ///< Also frees.
    virtual void destroy() noexcept = 0;
    [[nodiscard]] virtual asio::any_io_executor executor() const = 0;
    virtual void on_cancel(std::weak_ptr<cancellable> target, std::uint64_t ticket) = 0;

   protected:
    ~base() = default;
  };
  struct destroy {
    void operator()(base* held) const noexcept { held->destroy(); }
  };

  template <class Handler>
  class holder final : public base {
    using executor_t = asio::associated_executor_t<Handler, ring_context::executor_type>;
    using work = std::decay_t<decltype(asio::prefer(std::declval<const executor_t&>(),
                                                    asio::execution::outstanding_work.tracked))>;
    using plain_allocator = asio::associated_allocator_t<Handler, recycling_allocator<void>>;
    using allocator =
        typename std::allocator_traits<plain_allocator>::template rebind_alloc<holder>;

   public:
    holder(Handler&& handler, const ring_context::executor_type& fallback) noexcept
        : work_(asio::prefer(asio::get_associated_executor(handler, fallback),
                             asio::execution::outstanding_work.tracked)),
          fallback_(fallback),
          handler_(std::move(handler)) {}

    [[nodiscard]] static holder* make(Handler&& handler,
                                      const ring_context::executor_type& fallback) {
      allocator memory(asio::get_associated_allocator(handler, recycling_allocator<void>()));
      auto* block = std::allocator_traits<allocator>::allocate(memory, 1);
      // Asio requires handlers and executors to move without throwing.
      return ::new (static_cast<void*>(block)) holder(std::move(handler), fallback);
    }

    void complete(Results... results) override {
      const auto plain = get_plain_allocator();
      work working(std::move(work_));
      delivery<Handler, plain_allocator, Results...> out{
          plain, std::move(handler_), {std::move(results)...}};
      free(plain);
      asio::post(asio::prefer(working, asio::execution::outstanding_work.untracked),
                 std::move(out));
    }
    void destroy() noexcept override {
      const auto plain = get_plain_allocator();
      const Handler handler(std::move(handler_));  // Freed last: it may own what owns us.
      free(plain);
    }
    [[nodiscard]] asio::any_io_executor executor() const override {
      // The executor of use_future is no executor that others could post to.
      if constexpr (std::is_convertible_v<executor_t, asio::any_io_executor>)
        return asio::prefer(work_, asio::execution::outstanding_work.untracked);
      else
        return fallback_;
    }
    void on_cancel(std::weak_ptr<cancellable> target, std::uint64_t ticket) override {
      auto slot = asio::get_associated_cancellation_slot(handler_);
      if (!slot.is_connected()) return;
      slot.assign([target = std::move(target), ticket](asio::cancellation_type type) {
        if (type == asio::cancellation_type::none) return;
        if (const auto alive = target.lock()) alive->cancel(ticket);
      });
    }

   private:
    [[nodiscard]] plain_allocator get_plain_allocator() const noexcept {
      return asio::get_associated_allocator(handler_, recycling_allocator<void>());
    }
    void free(const plain_allocator& plain) noexcept {
      allocator memory(plain);
      std::allocator_traits<allocator>::destroy(memory, this);
      std::allocator_traits<allocator>::deallocate(memory, this, 1);
    }

    work work_;
    ring_context::executor_type fallback_;
    Handler handler_;
  };

  std::unique_ptr<base, destroy> held_;
};

}  // namespace cowire::detail

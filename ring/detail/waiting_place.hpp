// SPDX-License-Identifier: Apache-2.0
/// Where a waiting handler will run, in a way that its execution context may go away meanwhile.
///
///     direct_completion ---> waiting_place ---> handler (memory of its own allocator)
///                                 ^
///     asio::execution_context: service ---> context_waiters, the list of its places
///
/// A handler that waits for us is nothing that its context knows of: a context is told of handlers
/// only when they are posted. So one that is destroyed while handlers wait would leave them with
/// executors that lead nowhere. Each place therefore enters itself in a list that a service of the
/// context keeps, and services are told before a context goes: then every handler that waits is
/// destroyed, uncalled, as the context does with those that it holds itself, and whoever would have
/// completed it is told (cancellable::context_gone), so that it stands in nobody's way.
///
/// Services are shut down newest first (Asio: service_registry), ours thus before the scheduler.
///
/// An executor that does not tell its context (the type-erased one of asio::any_completion_handler,
/// unless it holds an io_context's, a ring_context's or an any_io_executor) has no such list: there
/// the rule stays that the context goes last.
#pragma once

#include <cowire/base/forked.hpp>
#include <cowire/ring/asio.hpp>
#include <cowire/ring/ring_context.hpp>

#include <asio/io_context.hpp>
#include <asio/system_executor.hpp>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>
#include <typeinfo>
#include <utility>

namespace cowire::detail {

/// Something whose waiting operations can be ended from outside by a ticket that is never used
/// again, so that a late signal finds nothing.
class cancellable {
 public:
  /// Where the handler's cancellation slot is used.
  virtual void cancel(std::uint64_t ticket) = 0;
  /// The handler went with its context: in the thread that destroys it.
  virtual void context_gone(std::uint64_t ticket) = 0;

 protected:
  ~cancellable() = default;
};

/// A handler that can be destroyed without being called.
class droppable {
 public:
  virtual void destroy() noexcept = 0;

 protected:
  ~droppable() = default;
};

/// Something to do where a handler waits. Destroyed without run() where its context goes first.
class deferred_call {
 public:
  deferred_call() = default;
  deferred_call(const deferred_call&) = delete;
  deferred_call& operator=(const deferred_call&) = delete;
  virtual ~deferred_call() = default;
  virtual void run() = 0;
};

class waiting_place;

/// The places of one execution context. Any thread.
class context_waiters {
 public:
  [[nodiscard]] static std::shared_ptr<context_waiters> of(asio::execution_context& context);

  void add(waiting_place& place) noexcept;
  void remove(waiting_place& place) noexcept;
  /// Unless it is too late, keeps the context from going until leave().
  [[nodiscard]] bool enter() noexcept;
  void leave() noexcept;

 private:
  class service;
  /// The context is about to go.
  void end() noexcept;

  const fork_mark born_;
  std::mutex mutex_;
  std::condition_variable left_;
  std::size_t inside_ = 0;
  bool ended_ = false;
  waiting_place* first_ = nullptr;
};

/// One waiting handler's. Any thread.
class waiting_place : public std::enable_shared_from_this<waiting_place> {
 public:
  waiting_place(const waiting_place&) = delete;
  waiting_place& operator=(const waiting_place&) = delete;

  /// The handler is still there.
  [[nodiscard]] bool holds() const noexcept {
    return held_.load(std::memory_order_acquire) != nullptr;
  }
  /// Takes the handler out and gives it to `use`; false where it is gone.
  template <class Use>
  [[nodiscard]] bool take(Use&& use) {
    const stay here(waiters_.get());
    if (!here) return false;
    droppable* const held = held_.exchange(nullptr, std::memory_order_acq_rel);
    if (held) use(held);
    return held != nullptr;
  }
  /// Posts to the handler's executor; false, `call` still the caller's, where its context is gone.
  [[nodiscard]] bool post(std::unique_ptr<deferred_call>& call);

 protected:
  waiting_place(droppable& held, std::weak_ptr<cancellable> target, std::uint64_t ticket) noexcept
      : held_(&held), target_(std::move(target)), ticket_(ticket) {}
  virtual ~waiting_place();
  /// Once made. nullptr = the executor does not tell its context.
  void enter_list_of(asio::execution_context* context);

 private:
  friend class context_waiters;
  /// Keeps the context, if it is known, from going.
  class stay {
   public:
    explicit stay(context_waiters* waiters) noexcept
        : waiters_(waiters), granted_(!waiters || waiters->enter()) {}
    stay(const stay&) = delete;
    stay& operator=(const stay&) = delete;
    ~stay() {
      if (waiters_ && granted_) waiters_->leave();
    }
    explicit operator bool() const noexcept { return granted_; }

   private:
    context_waiters* const waiters_;
    const bool granted_;
  };
  virtual void do_post(std::unique_ptr<deferred_call> call) = 0;
  /// Some executors must not outlive their context (strands).
  virtual void forget_executor() noexcept = 0;
  void on_context_gone() noexcept;

  const fork_mark born_;
  std::atomic<droppable*> held_;
  const std::weak_ptr<cancellable> target_;
  const std::uint64_t ticket_;
  std::shared_ptr<context_waiters> waiters_;
  // The list's, and guarded by it.
  bool listed_ = false;
  waiting_place* previous_ = nullptr;
  waiting_place* next_ = nullptr;
};

/// The executor of a known kind inside a type-erased one; nullptr if it is of another kind.
template <class Wanted, class Executor>
[[nodiscard]] const Wanted* inside(const Executor& executor) noexcept {
  // target() of Asio 1.22 does not look at the type.
  if constexpr (requires { executor.template target<Wanted>(); })
    if (executor.target_type() == typeid(Wanted)) return executor.template target<Wanted>();
  return nullptr;
}

/// Whether handlers can be posted to it as they are. To the executor of any_completion_handler,
/// which has no blocking.never, they cannot.
template <class Executor>
inline constexpr bool is_postable =
    !asio::execution::is_executor<Executor>::value ||
    asio::can_require<Executor, asio::execution::blocking_t::never_t>::value;

/// The context of an executor; nullptr where it does not tell.
template <class Executor>
[[nodiscard]] asio::execution_context* context_of(const Executor& executor) noexcept {
  if constexpr (requires {
                  static_cast<asio::execution_context&>(
                      asio::query(executor, asio::execution::context));
                }) {
    return &static_cast<asio::execution_context&>(asio::query(executor, asio::execution::context));
  } else if constexpr (requires { static_cast<asio::execution_context&>(executor.context()); }) {
    return &executor.context();
  } else {
    if (const auto* io = inside<asio::io_context::executor_type>(executor)) return context_of(*io);
    if (const auto* ring = inside<ring_context::executor_type>(executor)) return context_of(*ring);
    if (const auto* any = inside<asio::any_io_executor>(executor)) return context_of(*any);
    return nullptr;
  }
}

/// asio::post() for every executor: never runs `function` inside the call.
template <class Executor, class Function>
void post_to(const Executor& executor, Function&& function) {
  if constexpr (is_postable<Executor>) {
    asio::post(executor, std::forward<Function>(function));
  } else if (const auto* io = inside<asio::io_context::executor_type>(executor)) {
    asio::post(*io, std::forward<Function>(function));
  } else if (const auto* ring = inside<ring_context::executor_type>(executor)) {
    asio::post(*ring, std::forward<Function>(function));
  } else {
    // It may run what it is given at once: so from elsewhere.
    const auto working = asio::prefer(executor, asio::execution::outstanding_work.tracked);
    asio::post(
        asio::system_executor(),
        [working, moved = std::decay_t<Function>(std::forward<Function>(function))]() mutable {
          asio::dispatch(working, std::move(moved));
        });
  }
}

template <class Executor>
class place_of final : public waiting_place {
 public:
  place_of(const Executor& executor, droppable& held, std::weak_ptr<cancellable> target,
           std::uint64_t ticket)
      : waiting_place(held, std::move(target), ticket), executor_(executor) {}
  [[nodiscard]] static std::shared_ptr<waiting_place> make(const Executor& executor,
                                                           droppable& held,
                                                           std::weak_ptr<cancellable> target,
                                                           std::uint64_t ticket) {
    auto made = std::allocate_shared<place_of>(recycling_allocator<place_of>(), executor, held,
                                               std::move(target), ticket);
    made->enter_list_of(context_of(executor));
    return made;
  }
  ~place_of() override = default;

 private:
  void do_post(std::unique_ptr<deferred_call> call) override {
    post_to(*executor_, [call = std::move(call)] { call->run(); });
  }
  void forget_executor() noexcept override { executor_.reset(); }

  std::optional<Executor> executor_;
};

template <class Executor>
[[nodiscard]] std::shared_ptr<waiting_place> make_place(const Executor& executor, droppable& held,
                                                        const std::weak_ptr<cancellable>& target,
                                                        std::uint64_t ticket) {
  return place_of<Executor>::make(executor, held, target, ticket);
}
/// Of most handlers, a coroutine's among them: compiled once, and not with each of their callers.
[[nodiscard]] std::shared_ptr<waiting_place> make_place(const asio::any_io_executor& executor,
                                                        droppable& held,
                                                        const std::weak_ptr<cancellable>& target,
                                                        std::uint64_t ticket);

/// Passes a signal on as `ticket`. Every type of cancellation is honoured.
template <class Slot>
void pass_cancellation_on(Slot slot, const std::weak_ptr<cancellable>& target,
                          std::uint64_t ticket) {
  if (!slot.is_connected()) return;
  slot.assign([target, ticket](asio::cancellation_type type) {
    if (type == asio::cancellation_type::none) return;
    if (const auto alive = target.lock()) alive->cancel(ticket);
  });
}
/// Asio's own kind: compiled once, too.
void pass_cancellation_on(asio::cancellation_slot slot, const std::weak_ptr<cancellable>& target,
                          std::uint64_t ticket);

}  // namespace cowire::detail

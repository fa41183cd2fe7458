// SPDX-License-Identifier: Apache-2.0
/// io_uring as an Asio execution context.
///
/// A ring_context runs handlers and coroutines on one thread and performs the I/O of the objects
/// made on it: ring_timer, readable_fd, datagram_source, async_send_message. Everything of Asio
/// that works with an executor works with its executor: co_spawn, strand, post, dispatch, defer,
/// any_io_executor, every completion token. A handler with another associated executor (an
/// application's own io_context) is delivered there.
///
///     cowire::ring_context ring;
///     cowire::co_spawn(ring, application(ring), cowire::detached);
///     ring.run();
///
/// Where io_uring is refused (sysctl, seccomp, old kernel) the same objects run on epoll: chosen
/// when the context is made, see backend() and backend_reason().
///
/// Threads: run() belongs to one thread at a time ("the ring thread"), not always the same.
/// Executors may be used, and work be posted, from any thread. An I/O object, as in Asio, is used
/// by one thread at a time, which need not be the ring thread.
///
/// Lifetime: I/O objects and executors go before their context. Destroying the context destroys
/// every handler that still waits, without calling it. When run() returns, nothing of any operation
/// is left inside the kernel; operations that were under way go on with the next run().
///
/// A child of fork() cannot use an inherited context: run() and new I/O objects throw
/// std::system_error with error::forked, other calls change nothing but the child's memory, and the
/// destructor leaves everything as it is. A context that the child makes itself works.
///
/// Not for CPU-bound work, and not for sockets of Asio: those bring their own reactor along.
#pragma once

#include <cowire/ring/asio.hpp>
#include <cowire/ring/detail/event_loop.hpp>
#include <cowire/ring/detail/parents_own.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace cowire {

/// What the ring thread waits with.
enum class ring_backend : std::uint8_t { io_uring, epoll };

class ring_context : public asio::execution_context {
 public:
  class executor_type;

  /// What a context may be made with.
  enum class backend_choice : std::uint8_t {
    automatic,  ///< io_uring, or epoll where that is refused.
    io_uring,   ///< Or an exception.
    epoll,
  };
  /// What it is made with.
  struct options {
    /// Submission queue entries; more requests than that at once cost an extra system call.
    unsigned queue_depth = 256;
    backend_choice backend = backend_choice::automatic;  ///< What to wait with.
  };

  ring_context() : ring_context(options{}) {}
  /// Throws std::system_error naming the call that failed, with io_uring chosen and refused, or
  /// when the process is out of descriptors or memory.
  explicit ring_context(const options& wanted);
  /// run() must have returned.
  ~ring_context();

  [[nodiscard]] executor_type get_executor() noexcept;

  /// What it turned out to be; does not change.
  [[nodiscard]] ring_backend backend() const noexcept { return backend_; }
  /// One line for an operator: which backend, and why not a better one.
  [[nodiscard]] const std::string& backend_reason() const noexcept { return reason_; }

  /// Runs handlers and I/O in the calling thread until stop(), or until no work is left (then the
  /// context counts as stopped, too). Returns how many operations ran. An exception of a handler
  /// leaves run(), which may be called again. Blocks.
  std::size_t run() { return loop_->run(); }
  /// Any thread. run() returns as soon as the handler under way is done; nothing is lost.
  void stop() noexcept { loop_->stop(); }
  /// Before run() is called again after it has returned.
  void restart() noexcept { loop_->restart(); }
  /// Any thread. By stop() or for want of work, and not restarted since.
  [[nodiscard]] bool stopped() const noexcept { return loop_->stopped(); }
  /// Whether the calling thread is inside run().
  [[nodiscard]] bool running_in_this_thread() const noexcept {
    return loop_->running_in_this_thread();
  }

 private:
  friend class executor_type;
  friend detail::event_loop& loop_of(ring_context& ring) noexcept { return *ring.loop_; }

  struct selection {
    std::unique_ptr<detail::backend> kernel;
    ring_backend backend;
    std::string reason;
  };
  static selection select(const options& wanted);
  explicit ring_context(selection selected);

  ring_backend backend_;
  std::string reason_;
  detail::parents_own<detail::event_loop> loop_;
};

/// The executor: copyable, any thread. Properties: context, mapping (thread), blocking (possibly,
/// never), outstanding_work, relationship (which makes no difference here).
class ring_context::executor_type {
 public:
  executor_type(const executor_type& other) noexcept
      : executor_type(*other.context_, other.properties_) {}
  executor_type(executor_type&& other) noexcept
      : context_(other.context_), properties_(other.properties_) {
    other.properties_.tracked = false;
  }
  executor_type& operator=(executor_type other) noexcept {
    std::swap(context_, other.context_);
    std::swap(properties_, other.properties_);
    return *this;
  }
  ~executor_type() {
    if (properties_.tracked) context_->loop_->work_finished();
  }

  /// Whether the calling thread is inside the context's run().
  [[nodiscard]] bool running_in_this_thread() const noexcept {
    return context_->running_in_this_thread();
  }

  /// Runs `function` at once when allowed (blocking.possibly, on the ring thread), otherwise queues
  /// it. An exception leaves run(), never this call.
  template <class Function>
  void execute(Function&& function) const {
    if (properties_.may_block && running_in_this_thread()) {
      std::decay_t<Function> local(std::forward<Function>(function));
      try {
        std::move(local)();
      } catch (...) {
        context_->loop_->post_function(
            [error = std::current_exception()] { std::rethrow_exception(error); });
      }
      return;
    }
    context_->loop_->post_function(std::forward<Function>(function));
  }

  [[nodiscard]] ring_context& query(asio::execution::context_t) const noexcept { return *context_; }
  [[nodiscard]] static constexpr asio::execution::mapping_t query(
      asio::execution::mapping_t) noexcept {
    return asio::execution::mapping.thread;
  }
  [[nodiscard]] asio::execution::blocking_t query(asio::execution::blocking_t) const noexcept {
    if (properties_.may_block) return asio::execution::blocking.possibly;
    return asio::execution::blocking.never;
  }
  [[nodiscard]] asio::execution::outstanding_work_t query(
      asio::execution::outstanding_work_t) const noexcept {
    if (properties_.tracked) return asio::execution::outstanding_work.tracked;
    return asio::execution::outstanding_work.untracked;
  }
  [[nodiscard]] asio::execution::relationship_t query(
      asio::execution::relationship_t) const noexcept {
    if (properties_.continuation) return asio::execution::relationship.continuation;
    return asio::execution::relationship.fork;
  }

  [[nodiscard]] executor_type require(asio::execution::blocking_t::possibly_t) const noexcept {
    return with([](properties& p) { p.may_block = true; });
  }
  [[nodiscard]] executor_type require(asio::execution::blocking_t::never_t) const noexcept {
    return with([](properties& p) { p.may_block = false; });
  }
  [[nodiscard]] executor_type require(
      asio::execution::outstanding_work_t::tracked_t) const noexcept {
    return with([](properties& p) { p.tracked = true; });
  }
  [[nodiscard]] executor_type require(
      asio::execution::outstanding_work_t::untracked_t) const noexcept {
    return with([](properties& p) { p.tracked = false; });
  }
  [[nodiscard]] executor_type require(asio::execution::relationship_t::fork_t) const noexcept {
    return with([](properties& p) { p.continuation = false; });
  }
  [[nodiscard]] executor_type require(
      asio::execution::relationship_t::continuation_t) const noexcept {
    return with([](properties& p) { p.continuation = true; });
  }

  friend bool operator==(const executor_type& a, const executor_type& b) noexcept {
    return a.context_ == b.context_ && a.properties_.may_block == b.properties_.may_block &&
           a.properties_.continuation == b.properties_.continuation;
  }

 private:
  friend class ring_context;
  struct properties {
    bool may_block = true, tracked = false, continuation = false;
  };
  executor_type(ring_context& context, properties p) noexcept : context_(&context), properties_(p) {
    if (p.tracked) context_->loop_->work_started();
  }
  template <class Change>
  [[nodiscard]] executor_type with(Change change) const noexcept {
    properties changed = properties_;
    change(changed);
    return executor_type(*context_, changed);
  }

  ring_context* context_;
  properties properties_;
};

inline ring_context::executor_type ring_context::get_executor() noexcept {
  return executor_type(*this, {});
}

}  // namespace cowire

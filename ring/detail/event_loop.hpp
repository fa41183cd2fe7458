// SPDX-License-Identifier: Apache-2.0
/// The engine of a ring_context: a queue of operations, a count of outstanding work, a doorbell,
/// deadlines, and a backend to sleep in.
///
/// "Ring thread" means the thread inside run(). What objects on a ring do with their state they do
/// there: everything else posts. post() keeps one order for all threads: what was posted before (in
/// the sense of happens-before) runs before.
///
/// Work: every operation counts from its post() until it has run; a completion (completion.hpp)
/// counts from its creation until its handler was handed on. run() returns when the count reaches
/// zero.
///
/// In a child of fork() an inherited loop keeps what it is given and never runs it: run() throws
/// error::forked.
#pragma once

#include <cowire/base/doorbell.hpp>
#include <cowire/base/forked.hpp>
#include <cowire/ring/detail/operation.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <type_traits>
#include <utility>
#include <vector>

namespace cowire::detail {

class backend;
class timer_queue;
class ring_object;
class shared_pool;

/// A number no other thread of this process has or had; never 0.
[[nodiscard]] std::uint64_t this_thread_number() noexcept;

class event_loop {
 public:
  explicit event_loop(std::unique_ptr<backend> kernel);
  event_loop(const event_loop&) = delete;
  event_loop& operator=(const event_loop&) = delete;
  ~event_loop();

  // ---- any thread ----
  /// Takes the operation over. Never runs it inside the call.
  void post(operation* op) noexcept {
    work_started();
    submit(op);
  }
  template <class Function>
  void post_function(Function&& function) {
    post(function_operation<std::decay_t<Function>>::make(std::forward<Function>(function)));
  }
  /// As post(), for an operation that has counted as work since before.
  void submit(operation* op) noexcept;
  void work_started() noexcept { work_.fetch_add(1, std::memory_order_relaxed); }
  void work_finished() noexcept {
    if (work_.fetch_sub(1, std::memory_order_acq_rel) == 1) stop();
  }
  void stop() noexcept;
  void restart() noexcept { stopped_.store(false, std::memory_order_release); }
  [[nodiscard]] bool stopped() const noexcept { return stopped_.load(std::memory_order_acquire); }
  [[nodiscard]] bool running_in_this_thread() const noexcept {
    return runner_.load(std::memory_order_relaxed) == this_thread_number();
  }
  /// Never 0.
  [[nodiscard]] std::uint64_t next_id() noexcept {
    return last_id_.fetch_add(1, std::memory_order_relaxed) + 1;
  }
  [[nodiscard]] backend& kernel() const noexcept { return *kernel_; }
  /// Whether this is the copy of a forked child.
  [[nodiscard]] bool inherited() const noexcept { return born_.inherited(); }

  // ---- the ring thread ----
  /// See ring_context::run().
  std::size_t run();
  [[nodiscard]] timer_queue& timers() const noexcept { return *timers_; }
  /// What the sources of this ring share (detail/shared_pool.hpp).
  [[nodiscard]] std::vector<std::weak_ptr<shared_pool>>& shared_pools() noexcept {
    return shared_pools_;
  }

  /// Nobody runs any more: destroys every operation and everything waiting in an object, without
  /// running it. The calling thread counts as the ring thread meanwhile.
  void shutdown() noexcept;

 private:
  friend class ring_object;
  class session;
  class bell_request;

  void refuse_if_inherited() const;
  void take_remote() noexcept;
  std::size_t run_queued();
  void sleep();

  const fork_mark born_;
  std::unique_ptr<backend> kernel_;
  std::unique_ptr<timer_queue> timers_;
  doorbell bell_;
  std::unique_ptr<bell_request> bell_request_;
  operation_queue local_;
  std::vector<std::weak_ptr<shared_pool>> shared_pools_;
  alignas(64) std::atomic<operation*> remote_{nullptr};  // A stack: the newest first.
  alignas(64) std::atomic<std::int64_t> work_{0};
  std::atomic<std::uint64_t> last_id_{0};
  std::atomic<bool> stopped_{false};
  std::atomic<std::uint64_t> runner_{0};  // this_thread_number() of the thread inside run().

  std::mutex objects_mutex_;
  ring_object* objects_ = nullptr;  // All that must be told of shutdown().
};

/// An operation that is part of its owner: put into the queue again and again, without memory of
/// its own. Keeps the owner while it is queued. Ring thread.
template <class Owner>
class member_operation final : public operation {
 public:
  using member = void (Owner::*)();
  explicit member_operation(member what) noexcept : operation(&complete), what_(what) {}

  [[nodiscard]] bool queued() const noexcept { return owner_ != nullptr; }
  void post(event_loop& loop, std::shared_ptr<Owner> owner) noexcept {
    owner_ = std::move(owner);
    loop.post(this);
  }

 private:
  static void complete(operation* base, bool run) {
    auto* self = static_cast<member_operation*>(base);
    const auto owner = std::move(self->owner_);
    if (run) (*owner.*self->what_)();
  }

  const member what_;
  std::shared_ptr<Owner> owner_;
};

/// Base of the state behind an I/O object. Always held by shared_ptr: the public object holds one,
/// and so does whatever is under way.
class ring_object : public std::enable_shared_from_this<ring_object> {
 public:
  /// Throws std::system_error (error::forked) if the loop was inherited.
  explicit ring_object(event_loop& l);
  ring_object(const ring_object&) = delete;
  ring_object& operator=(const ring_object&) = delete;
  virtual ~ring_object();

  [[nodiscard]] detail::event_loop& loop() const noexcept { return loop_; }

  /// Ring thread: the operation with this id, if it still waits here, is to end.
  virtual void on_cancel(std::uint64_t id) = 0;

 private:
  friend class detail::event_loop;
  /// The ring goes away: destroy what waits, start nothing more. Called once.
  virtual void on_shutdown() noexcept = 0;
  void unlink() noexcept;

  detail::event_loop& loop_;
  bool linked_ = true;
  ring_object* previous_ = nullptr;
  ring_object* next_ = nullptr;
};

}  // namespace cowire::detail

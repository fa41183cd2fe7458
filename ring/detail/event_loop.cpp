// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/detail/event_loop.hpp>

#include <cowire/base/assert.hpp>
#include <cowire/base/error.hpp>
#include <cowire/ring/detail/backend.hpp>
#include <cowire/ring/detail/timer_queue.hpp>

namespace cowire::detail {

std::uint64_t this_thread_number() noexcept {
  static std::atomic<std::uint64_t> last{0};
  thread_local const std::uint64_t number = last.fetch_add(1, std::memory_order_relaxed) + 1;
  return number;
}

/// Ends the backend's sleep; disarming the bell is the loop's business.
class event_loop::bell_request final : public request {
 public:
  bell_request(backend& kernel, int bell) noexcept : request(kind::poll, bell), kernel_(kernel) {
    kernel_.start(*this);
  }
  void on_event(const event& e) noexcept override {
    if (!e.more && e.result != -ECANCELED) kernel_.start(*this);
  }

 private:
  backend& kernel_;
};

/// A thread's stay inside run().
class event_loop::session {
 public:
  explicit session(event_loop& l) : loop_(l) {
    std::uint64_t nobody = 0;
    // Pairs with the release in the destructor: the loop's plain members change hands here.
    const bool alone = loop_.runner_.compare_exchange_strong(nobody, this_thread_number(),
                                                             std::memory_order_acquire);
    COWIRE_ASSERT(alone);  // ring_context::run() is for one thread at a time.
    try {
      loop_.kernel_->attach();
    } catch (...) {
      loop_.runner_.store(0, std::memory_order_release);
      throw;
    }
  }
  session(const session&) = delete;
  session& operator=(const session&) = delete;
  ~session() {
    // A handler may have forked: what is in the kernel is the parent's then.
    if (!loop_.inherited()) loop_.kernel_->detach();
    loop_.runner_.store(0, std::memory_order_release);
  }

 private:
  event_loop& loop_;
};

event_loop::event_loop(std::unique_ptr<backend> kernel)
    : kernel_(std::move(kernel)),
      timers_(std::make_unique<timer_queue>()),
      bell_request_(std::make_unique<bell_request>(*kernel_, bell_.fd())) {}

event_loop::~event_loop() { kernel_->close(); }

void event_loop::submit(operation* op) noexcept {
  if (running_in_this_thread()) {
    // What other threads posted earlier goes first: there is one order for all.
    if (remote_.load(std::memory_order_relaxed)) take_remote();
    local_.push(op);
    return;
  }
  op->next_ = remote_.load(std::memory_order_relaxed);
  // Pairs with the acquire in take_remote(): the operation's contents.
  while (!remote_.compare_exchange_weak(op->next_, op, std::memory_order_release,
                                        std::memory_order_relaxed)) {
  }
  bell_.ring();
}

void event_loop::stop() noexcept {
  stopped_.store(true, std::memory_order_release);  // Pairs with the acquire in stopped().
  if (!running_in_this_thread()) bell_.ring();
}

void event_loop::take_remote() noexcept {
  // Pairs with the release in submit().
  operation* newest = remote_.exchange(nullptr, std::memory_order_acquire);
  operation* oldest = nullptr;
  while (newest) {
    operation* older = newest->next_;
    newest->next_ = oldest;
    oldest = newest;
    newest = older;
  }
  while (oldest) {
    operation* next = oldest->next_;
    local_.push(oldest);
    oldest = next;
  }
}

std::size_t event_loop::run_queued() {
  struct finish_work {
    event_loop& owner;
    ~finish_work() { owner.work_finished(); }
  };
  take_remote();
  operation_queue now;  // What is posted meanwhile waits its turn: I/O must not starve.
  now.append(local_);
  struct put_back {
    operation_queue& from;
    operation_queue& to;
    ~put_back() {
      from.append(to);
      to.append(from);
    }
  } const rest{now, local_};
  std::size_t count = 0;
  while (!stopped()) {
    operation* op = now.pop();
    if (!op) break;
    const finish_work done{*this};
    ++count;
    op->run();
  }
  return count;
}

void event_loop::sleep() {
  bell_.arm();
  const bool idle = !remote_.load(std::memory_order_relaxed) && !stopped();
  kernel_->wait(idle ? timers_->earliest() : backend::clock::time_point::min());
  bell_.disarm();
}

void event_loop::refuse_if_inherited() const {
  if (inherited()) throw_error(make_error_code(error::forked), "ring_context::run");
}

std::size_t event_loop::run() {
  refuse_if_inherited();
  if (work_.load(std::memory_order_acquire) == 0) stop();
  if (stopped()) return 0;
  const session here(*this);
  std::size_t count = 0;
  while (!stopped()) {
    count += run_queued();
    if (stopped()) break;
    refuse_if_inherited();
    if (local_.empty())
      sleep();
    else
      kernel_->wait(backend::clock::time_point::min());
    if (timers_->earliest() != backend::clock::time_point::max())
      timers_->expire(backend::clock::now());
  }
  return count;
}

void event_loop::shutdown() noexcept {
  std::uint64_t nobody = 0;
  const bool alone =
      runner_.compare_exchange_strong(nobody, this_thread_number(), std::memory_order_acquire);
  COWIRE_ASSERT(alone);  // A ring_context is destroyed after run() has returned.
  for (;;) {
    std::shared_ptr<ring_object> object;
    {
      const std::lock_guard lock(objects_mutex_);
      if (!objects_) break;
      object = objects_->weak_from_this().lock();
      objects_->unlink();
    }
    if (object) object->on_shutdown();
  }
  kernel_->close();
  // A handler's destructor may post once more (an I/O object in a coroutine's frame).
  for (take_remote(); operation* op = local_.pop(); take_remote()) op->destroy();
  runner_.store(0, std::memory_order_release);
}

// ---- objects ----------------------------------------------------------------------------------

ring_object::ring_object(detail::event_loop& l) : loop_(l) {
  if (loop_.inherited()) throw_error(make_error_code(error::forked), "ring_context");
  const std::lock_guard lock(loop_.objects_mutex_);
  next_ = loop_.objects_;
  if (next_) next_->previous_ = this;
  loop_.objects_ = this;
}

ring_object::~ring_object() {
  if (loop_.inherited()) return;
  const std::lock_guard lock(loop_.objects_mutex_);
  if (linked_) unlink();
}

void ring_object::unlink() noexcept {
  (previous_ ? previous_->next_ : loop_.objects_) = next_;
  if (next_) next_->previous_ = previous_;
  linked_ = false;
}

}  // namespace cowire::detail

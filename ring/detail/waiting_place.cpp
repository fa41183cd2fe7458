// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/detail/waiting_place.hpp>

#include <vector>

namespace cowire::detail {

/// What an execution context tells that it goes.
class context_waiters::service final : public asio::execution_context::service {
 public:
  inline static asio::execution_context::id id;
  explicit service(asio::execution_context& context)
      : asio::execution_context::service(context), waiters(std::make_shared<context_waiters>()) {}

  const std::shared_ptr<context_waiters> waiters;

 private:
  void shutdown() noexcept override { waiters->end(); }
};

std::shared_ptr<context_waiters> context_waiters::of(asio::execution_context& context) {
  return asio::use_service<service>(context).waiters;
}

void context_waiters::add(waiting_place& place) noexcept {
  const std::lock_guard lock(mutex_);
  place.listed_ = true;
  place.next_ = first_;
  if (first_) first_->previous_ = &place;
  first_ = &place;
}

void context_waiters::remove(waiting_place& place) noexcept {
  const std::lock_guard lock(mutex_);
  if (!place.listed_) return;
  (place.previous_ ? place.previous_->next_ : first_) = place.next_;
  if (place.next_) place.next_->previous_ = place.previous_;
  place.listed_ = false;
}

bool context_waiters::enter() noexcept {
  if (born_.inherited()) return false;
  const std::lock_guard lock(mutex_);
  if (ended_) return false;
  ++inside_;
  return true;
}

void context_waiters::leave() noexcept {
  const std::lock_guard lock(mutex_);
  if (--inside_ == 0) left_.notify_all();
}

void context_waiters::end() noexcept {
  if (born_.inherited()) return;  // A child's copy: the handlers are left behind.
  std::vector<std::shared_ptr<waiting_place>> places;
  {
    std::unique_lock lock(mutex_);
    ended_ = true;
    // In one go with that: whoever comes too late from here on leaves the handler to us, and may
    // be the last to hold its place.
    for (auto* place = first_; place; place = place->next_)
      if (auto alive = place->weak_from_this().lock()) places.push_back(std::move(alive));
    // A post at most, each: nobody waits in there.
    left_.wait(lock, [this] { return inside_ == 0; });
  }
  for (const auto& place : places) place->on_context_gone();
}

waiting_place::~waiting_place() {
  if (waiters_ && !born_.inherited()) waiters_->remove(*this);
}

void waiting_place::enter_list_of(asio::execution_context* context) {
  if (!context) return;
  waiters_ = context_waiters::of(*context);
  waiters_->add(*this);
}

bool waiting_place::post(std::unique_ptr<deferred_call>& call) {
  const stay here(waiters_.get());
  if (here) do_post(std::move(call));
  return static_cast<bool>(here);
}

void waiting_place::on_context_gone() noexcept {
  droppable* const held = held_.exchange(nullptr, std::memory_order_acq_rel);
  forget_executor();
  if (!held) return;
  if (const auto alive = target_.lock()) alive->context_gone(ticket_);
  held->destroy();
}

std::shared_ptr<waiting_place> make_place(const asio::any_io_executor& executor, droppable& held,
                                          const std::weak_ptr<cancellable>& target,
                                          std::uint64_t ticket) {
  return make_place<asio::any_io_executor>(executor, held, target, ticket);
}

void pass_cancellation_on(asio::cancellation_slot slot, const std::weak_ptr<cancellable>& target,
                          std::uint64_t ticket) {
  pass_cancellation_on<asio::cancellation_slot>(slot, target, ticket);
}

}  // namespace cowire::detail

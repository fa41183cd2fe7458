// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/engine.hpp>
#include <cowire/async/detail/shared_producer.hpp>

#include <algorithm>
#include <mutex>
#include <utility>

namespace cowire::detail {
namespace {

/// Of the threads that have used any, in the order of their first use. 0 = not yet one of them. At
/// a fixed place in each thread's block, also in libcowire.so, which could ask for it by a call
/// otherwise: four bytes of what the C library has in reserve for libraries that are loaded late.
[[gnu::tls_model("initial-exec")]] constinit thread_local std::uint32_t number_of_this_thread = 0;

std::uint32_t number_this_thread() noexcept {
  constinit static std::atomic<std::uint32_t> last{0};
  return number_of_this_thread = last.fetch_add(1, std::memory_order_relaxed) + 1;
}

}  // namespace

// Leasing and sending
// -------------------------------------------------------------------------------

payload shared_producer::try_acquire(const sender_state& from) noexcept {
  if (born_.inherited()) return {};  // Before the lock, which nobody gives back in a child.
  const std::lock_guard guard(lock_);
  return via_.try_acquire(from);
}

payload shared_producer::try_acquire(const sender_state& from, std::error_code& ec) noexcept {
  ec.clear();
  payload out = try_acquire(from);
  if (out) return out;
  if (born_.inherited())
    ec = error::forked;
  else
    ec = via_.stopped() ? error::closed : error::would_block;
  return out;
}

std::error_code shared_producer::try_send(const sender_state& from,
                                          std::span<const std::byte> bytes,
                                          const endpoint& to) noexcept {
  if (born_.inherited()) [[unlikely]]
    return error::forked;
  const std::lock_guard guard(lock_);
  return via_.try_send(from, bytes, to);
}

std::error_code shared_producer::send(const sender_state& from, payload&& what,
                                      const endpoint& to) noexcept {
  if (born_.inherited()) [[unlikely]]
    return error::forked;
  const std::lock_guard guard(lock_);
  return via_.send(from, std::move(what), to);
}

std::error_code shared_producer::try_send(const sender_state& from,
                                          std::span<const std::byte> bytes, const endpoint& to,
                                          const datagram_options& options) noexcept {
  if (born_.inherited()) return error::forked;
  const std::lock_guard guard(lock_);
  return via_.try_send(from, bytes, to, options);
}

std::error_code shared_producer::send(const sender_state& from, payload&& what, const endpoint& to,
                                      const datagram_options& options) noexcept {
  if (born_.inherited()) return error::forked;
  const std::lock_guard guard(lock_);
  return via_.send(from, std::move(what), to, options);
}

std::error_code shared_producer::ask_about(const sender_state& from, const endpoint& to,
                                           const datagram_options& options, path_question& out) {
  if (born_.inherited()) return error::forked;
  const std::lock_guard guard(lock_);
  return via_.ask_about(from, to, options, out);
}

std::error_code shared_producer::try_send(producer::send_operation& op) noexcept {
  if (born_.inherited()) return error::forked;
  const std::lock_guard guard(lock_);
  return via_.try_send(op);
}

void shared_producer::release(frame_index frame) noexcept {
  bool somebody_waits = false;
  {
    const std::lock_guard guard(lock_);
    via_.put_back(frame);
    somebody_waits = !waiters_.empty();
  }
  if (somebody_waits) serve();
}

void shared_producer::begin_acquire(const sender_state& from, std::shared_ptr<void> keep,
                                    direct_completion<std::error_code, payload> done) {
  if (born_.inherited()) return done.refuse_in_child(error::forked, payload{});
  if (payload now = try_acquire(from)) return done.complete({}, std::move(now));
  if (via_.stopped()) return done.complete(error::closed, payload{});
  if (from.when_full == full_policy::fail) return done.complete(error::would_block, payload{});
  wait({.acquire = std::move(done), .keep = std::move(keep)});
}

void shared_producer::begin_send(producer::send_operation op, std::shared_ptr<void> keep) {
  if (born_.inherited()) return op.done.refuse_in_child(error::forked, std::size_t{0});
  const auto ec = try_send(op);
  if (ec != error::would_block || op.from->when_full == full_policy::fail)
    return op.done.complete(ec, std::size_t{op.sent});
  wait({.send = std::move(op), .keep = std::move(keep)});
}

// Waiting
// -------------------------------------------------------------------------------------------

void shared_producer::wait(waiter next) {
  next.ticket = ticket_.fetch_add(1, std::memory_order_relaxed) + 1;
  // An owner of what is waited for: its own executor may be what the waiter's end is told by.
  const std::shared_ptr<shared_producer> self(all_.lock(), this);
  if (next.acquires())
    next.acquire.begin_wait(self, next.ticket);
  else
    next.send.done.begin_wait(self, next.ticket);
  {
    waiters one;
    one.push_back(std::move(next));
    const std::lock_guard guard(lock_);
    waiters_.splice(waiters_.end(), one);
    via_.keep_turns(true);
  }
  serve();
}

void shared_producer::serve() noexcept {
  waiters done;
  {
    const std::lock_guard guard(lock_);
    if (waiters_.empty()) return;
    do {
      via_.settle();
      serve_frames(done);
    } while (!waiters_.empty() && via_.ask_for_frames());
    via_.keep_turns(!waiters_.empty());
    if (waiters_.empty()) via_.ask_no_more();
  }
  complete(done);
}

void shared_producer::serve_frames(waiters& out) noexcept {
  via_.keep_turns(false);
  while (!waiters_.empty()) {
    waiter& first = waiters_.front();
    if (via_.stopped())
      first.result = error::closed;
    else if (!first.armed())
      first.result = error::closed;  // It went with its context just now.
    else if (first.acquires() && !via_.take_for(first.got))
      return;
    else if (!first.acquires() && !via_.advance(first.send))
      return;
    else
      first.result = first.send.then;
    out.splice(out.end(), waiters_, waiters_.begin());
  }
}

void shared_producer::complete(waiters& done) {
  for (waiter& w : done) {
    if (w.acquires())
      w.acquire.complete(w.result, std::move(w.got));
    else
      w.send.done.complete(w.result, w.send.sent);
  }
}

bool shared_producer::take_out(std::uint64_t ticket, waiters& out) noexcept {
  const auto found =
      std::ranges::find_if(waiters_, [ticket](const waiter& w) { return w.ticket == ticket; });
  if (found == waiters_.end()) return false;
  out.splice(out.end(), waiters_, found);
  via_.keep_turns(!waiters_.empty());
  return true;
}

void shared_producer::cancel(std::uint64_t ticket) {
  if (born_.inherited()) return;
  waiters out;
  {
    const std::lock_guard guard(lock_);
    if (!take_out(ticket, out)) return;
    out.front().result = operation_aborted();
  }
  complete(out);
}

void shared_producer::context_gone(std::uint64_t ticket) {
  if (born_.inherited()) return;
  waiters gone;  // Destroyed after the lock is given back: the handles in it may be the last ones.
  const std::lock_guard guard(lock_);
  static_cast<void>(take_out(ticket, gone));
}

void shared_producer::settle() noexcept {
  if (!lock_.try_lock()) return;
  const std::lock_guard guard(lock_, std::adopt_lock);
  if (waiters_.empty()) via_.settle();
}

void shared_producer::retire(const sender_state& sender) {
  if (born_.inherited()) return;
  const std::lock_guard guard(lock_);
  via_.retire(sender);
}

// All of them
// ---------------------------------------------------------------------------------------

shared_producers::shared_producers(std::shared_ptr<engine> owner, std::span<producer* const> some)
    : owner_(std::move(owner)) {
  for (producer* one : some) all_.push_back(std::make_unique<shared_producer>(*one));
}

void shared_producers::begin() {
  const auto self = shared_from_this();
  for (const auto& one : all_) {
    one->all_ = self;
    producer& via = one->via();
    via.lend(owner_, std::shared_ptr<producer>(self, &via));
    via.set_sharer(one.get());
  }
}

shared_producers::~shared_producers() {
  if (owner_->inherited()) {
    leave_behind(std::move(owner_));
    return;
  }
  for (const auto& one : all_) {
    one->via().set_sharer(nullptr);
    one->via().take_back();
    owner_->recycle_shared(&one->via());
  }
}

std::size_t shared_producers::mine() const noexcept {
  std::uint32_t number = number_of_this_thread;
  if (number == 0) [[unlikely]]
    number = number_this_thread();
  return number % static_cast<std::uint32_t>(all_.size());
}

shared_sender_state::~shared_sender_state() {
  if (producers->owner().inherited()) return;
  states.front()->errors->close();
  for (std::size_t i = 0; i < states.size(); ++i) (*producers)[i].retire(*states[i]);
}

}  // namespace cowire::detail

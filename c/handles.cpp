// SPDX-License-Identifier: Apache-2.0
#include <cowire/c/handles.hpp>

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace cowire::c {
namespace {

unique_fd make_event() {
  unique_fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) throw_error(errno_code(errno), "eventfd");
  return fd;
}

}  // namespace

signals::signals(std::size_t errors_max) : fd_(make_event()), errors_max_(errors_max) {}

void signals::set() noexcept {
  const std::uint64_t one = 1;
  static_cast<void>(::write(fd_.get(), &one, sizeof one));  // Full: it is readable already.
}

void signals::there_is_room() noexcept {
  // Under the lock, as pop() makes it unreadable: what is told while it does is told after it.
  const std::lock_guard lock(mutex_);
  set();
}

bool signals::push(const send_error& error) {
  const std::lock_guard lock(mutex_);
  errors_.push_back(error);
  set();
  return errors_.size() < errors_max_;
}

bool signals::pop(send_error& error) {
  const std::lock_guard lock(mutex_);
  if (errors_.empty()) {
    std::uint64_t count = 0;
    static_cast<void>(::read(fd_.get(), &count, sizeof count));  // EAGAIN: it was unreadable.
    return false;
  }
  error = errors_.front();
  errors_.pop_front();
  return true;
}

sender_core::sender_core(shared_sender through, std::size_t errors_max)
    : through_(std::move(through)), signals_(std::make_shared<signals>(errors_max)) {}

bool sender_core::next_error(send_error& error) {
  const bool any = signals_->pop(error);
  read_errors();  // It may have stopped at a full queue.
  return any;
}

void sender_core::read_errors() {
  if (reading_.exchange(true, std::memory_order_acq_rel)) return;
  through_.async_next_error(
      [to = signals_, weak = weak_from_this()](std::error_code ec, const send_error& error) {
        if (ec) return;  // It is over: nobody reads any more.
        const bool more = to->push(error);
        const auto alive = weak.lock();
        if (!alive) return;
        alive->reading_.store(false, std::memory_order_release);
        if (more) alive->read_errors();
      });
}

void sender_core::tell_of_room(std::size_t place) noexcept {
  if (inherited()) return;
  try {
    if (places_->asked[place].exchange(true, std::memory_order_acq_rel)) return;
    // The frame comes and goes, before anybody is told, who may want just this one.
    through_.async_acquire_at(place,
                              [to = signals_, by = places_, place](std::error_code, payload frame) {
                                frame.reset();
                                by->asked[place].store(false, std::memory_order_release);
                                to->there_is_room();
                              });
    // After the end nobody serves who begins to wait.
    if (std::error_code ec; !through_.try_acquire(ec) && ec == error::closed)
      signals_->there_is_room();
  } catch (const std::exception&) {
    signals_->there_is_room();  // No memory to wait with: the caller tries again.
  }
}

}  // namespace cowire::c

// SPDX-License-Identifier: Apache-2.0
/// A bounded queue from one of our threads to one asynchronous reader: what route changes and send
/// errors travel through.
///
/// Any thread may call any member; a mutex guards it, because neither side is a data path. One read
/// at a time. Handlers run on their associated executor, never inside a call. A reader whose
/// context goes away is destroyed with it, and makes room for another one. In a child of fork() an
/// inherited queue refuses its readers.
#pragma once

#include <cowire/base/error.hpp>
#include <cowire/base/forked.hpp>
#include <cowire/ring/asio.hpp>
#include <cowire/ring/direct_completion.hpp>
#include <cowire/ring/ring_context.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>

namespace cowire {

template <class T>
class event_queue final : public detail::cancellable,
                          public std::enable_shared_from_this<event_queue<T>> {
 public:
  using signature = void(std::error_code, T);
  using executor_type = ring_context::executor_type;

  /// `fallback` runs handlers that have no executor of their own.
  event_queue(executor_type fallback, std::size_t limit)
      : fallback_(std::move(fallback)), limit_(limit == 0 ? 1 : limit) {}

  [[nodiscard]] executor_type get_executor() const noexcept { return fallback_; }

  /// Appends; false (and counted) when full or closed.
  bool push(T value) {
    for (std::error_code none;;) {
      reader waiting;
      {
        const std::lock_guard lock(mutex_);
        if (closed_) return false;
        if (!reader_.armed()) {
          if (values_.size() < limit_) {
            values_.push_back(std::move(value));
            return true;
          }
          ++dropped_;
          return false;
        }
        waiting = std::move(reader_);
      }
      if (waiting.try_complete(none, value)) return true;
      // Its context has just gone: the value is the next reader's.
    }
  }

  /// Drops what is queued in favour of `marker`, which stands for all of it.
  void replace_all(T marker) {
    {
      const std::lock_guard lock(mutex_);
      dropped_ += values_.size();
      values_.clear();
    }
    push(std::move(marker));
  }

  /// Ends a waiting read with error::closed; later ones get what is queued, then the same.
  void close() {
    if (born_.inherited()) return;
    reader waiting;
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
      waiting = std::move(reader_);
    }
    if (waiting.armed()) waiting.complete(error::closed, T{});
  }

  [[nodiscard]] bool closed() const {
    if (born_.inherited()) return true;
    const std::lock_guard lock(mutex_);
    return closed_;
  }
  /// Whether a read waits: it was not cancelled, and its context is still there.
  [[nodiscard]] bool read_waits() const {
    if (born_.inherited()) return false;
    const std::lock_guard lock(mutex_);
    return reader_.armed();
  }
  [[nodiscard]] std::uint64_t dropped() const {
    if (born_.inherited()) return 0;
    const std::lock_guard lock(mutex_);
    return dropped_;
  }

  using reader = direct_completion<std::error_code, T>;

  /// The reader's side of async_next().
  template <class Handler>
  static void start_next(const std::shared_ptr<event_queue>& self, Handler handler) {
    self->start(reader(std::move(handler), self->fallback_));
  }
  /// The same, for a handler that is held already.
  void start(reader next) {
    if (born_.inherited()) return next.refuse_in_child(error::forked, T{});
    std::error_code ec;
    T value{};
    {
      const std::lock_guard lock(mutex_);
      if (reader_.armed()) {
        ec = error::invalid_argument;  // One read at a time.
      } else if (!values_.empty()) {
        value = std::move(values_.front());
        values_.pop_front();
      } else if (closed_) {
        ec = error::closed;
      } else {
        const std::uint64_t ticket = ++ticket_;
        next.begin_wait(this->weak_from_this(), ticket);
        reader_ = std::move(next);
        return;
      }
    }
    next.complete(ec, std::move(value));
  }

 private:
  void context_gone(std::uint64_t ticket) override {
    reader gone;
    const std::lock_guard lock(mutex_);
    if (ticket == ticket_) gone = std::move(reader_);
  }

  void cancel(std::uint64_t ticket) override {
    reader waiting;
    {
      const std::lock_guard lock(mutex_);
      if (ticket != ticket_) return;
      waiting = std::move(reader_);
    }
    if (waiting.armed()) waiting.complete(operation_aborted(), T{});
  }

  const detail::fork_mark born_;
  const executor_type fallback_;
  const std::size_t limit_;
  mutable std::mutex mutex_;
  std::deque<T> values_;
  reader reader_;
  std::uint64_t ticket_ = 0;
  std::uint64_t dropped_ = 0;
  bool closed_ = false;
};

}  // namespace cowire

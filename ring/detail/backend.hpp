// SPDX-License-Identifier: Apache-2.0
/// The seam between a ring_context and the kernel: three kinds of request, one way to wait.
///
/// A backend is used by one thread at a time, between attach() and detach() (the thread inside
/// ring_context::run()). Requests may be started and cancelled at any time by that thread, or by
/// the only thread there is while nobody is attached. Timers are not here: wait() takes a deadline.
///
/// Ownership: from start() until an event with `more == false` the request, its message and its
/// buffers belong to the backend, cancelled or not. Only detach() and the destructor give the same
/// guarantee without such an event: after them the kernel holds nothing.
///
/// There are two implementations, io_uring and epoll; epoll produces the same events, byte for byte
/// in the buffers, so that nothing above this line knows which one runs.
#pragma once

#include <cowire/base/assert.hpp>

#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace cowire::detail {

/// What lies at the start of a filled receive buffer, followed by msg_namelen bytes of name, then
/// msg_controllen bytes of control, then the payload. The layout is io_uring's.
struct receive_header {
  std::uint32_t name_size;     ///< Of the sender's address; may exceed the room for it.
  std::uint32_t control_size;  ///< Bytes of control messages.
  std::uint32_t payload_size;  ///< Of the payload; with MSG_TRUNC in effect not the buffer's share.
  std::uint32_t flags;         ///< MSG_TRUNC, MSG_CTRUNC.
};
static_assert(sizeof(receive_header) == 16);

/// Numbered buffers that a receive request fills. Ring thread only.
class buffer_group {
 public:
  /// Their ids are their positions. All start outside the group, in which there may be `at_once` of
  /// them, at most 32 768.
  buffer_group(std::vector<std::span<std::byte>> buffers, std::size_t at_once)
      : buffers_(std::move(buffers)), provided_(buffers_.size()), at_once_(at_once) {}
  buffer_group(const buffer_group&) = delete;
  buffer_group& operator=(const buffer_group&) = delete;
  virtual ~buffer_group() = default;

  static constexpr std::size_t count_max = 32768;

  /// The backend may write into buffer `id` from now on.
  void provide(std::uint16_t id) {
    COWIRE_ASSERT(id < buffers_.size() && !provided_[id] && available_ < at_once_);
    provided_[id] = true;
    ++available_;
    add(id);
  }
  /// For `count` buffers: until there are so many append() does not throw.
  void reserve(std::size_t count) {
    buffers_.reserve(count);
    provided_.reserve(count);
  }
  /// One more, outside the group.
  void append(std::span<std::byte> buffer) {
    buffers_.push_back(buffer);
    provided_.push_back(false);
  }
  /// Called by a backend before the event that hands over buffer `id`.
  void take(std::uint16_t id) {
    COWIRE_ASSERT(id < buffers_.size() && provided_[id]);
    provided_[id] = false;
    --available_;
  }
  [[nodiscard]] std::size_t available() const noexcept { return available_; }
  [[nodiscard]] std::size_t size() const noexcept { return buffers_.size(); }
  [[nodiscard]] std::size_t at_once() const noexcept { return at_once_; }
  [[nodiscard]] bool provided(std::uint16_t id) const { return provided_[id]; }
  [[nodiscard]] std::span<std::byte> buffer(std::uint16_t id) const { return buffers_[id]; }

 private:
  virtual void add(std::uint16_t id) = 0;

  std::vector<std::span<std::byte>> buffers_;
  std::vector<bool> provided_;
  std::size_t at_once_;
  std::size_t available_ = 0;
};

/// What happened to a request.
struct event {
  int result = 0;     ///< Bytes, or a negative errno. Poll: 0 or a negative errno.
  bool more = false;  ///< More events follow; otherwise the request is its owner's again.
  std::optional<std::uint16_t> buffer{};  ///< Receive: the buffer that was filled (or spent).
};

/// Something a backend carries out. Embed it, fill in the parameters, start() it.
class request {
 public:
  enum class kind : std::uint8_t {
    poll,     ///< One event each time `fd` becomes readable (an edge), until cancelled.
    receive,  ///< One event a datagram, in buffers of `group`, until cancelled or failed.
    send,     ///< sendmsg once; waits while the socket is full.
  };

  request(kind k, int f) noexcept : what(k), fd(f) {}
  request(const request&) = delete;
  request& operator=(const request&) = delete;
  virtual ~request() { COWIRE_ASSERT(!started()); }

  /// Ring thread, from within wait(), detach() or close(). May start and cancel requests, and may
  /// destroy this one if `!e.more`. -ENOBUFS of a receive means "group empty" or a netlink overrun.
  virtual void on_event(const event& e) noexcept = 0;

  [[nodiscard]] bool started() const noexcept { return stage_ != stage::idle; }

  kind what;
  int fd;                         ///< Stays open until the last event.
  buffer_group* group = nullptr;  ///< Receive.
  /// Receive: only msg_namelen and msg_controllen count, the room for each. Send: the message.
  msghdr message{};
  int flags = 0;  ///< MSG_*.

 private:
  friend class backend;
  friend class request_list;
  enum class stage : std::uint8_t { idle, queued, active };
  stage stage_ = stage::idle;
  bool cancelled_ = false;
  bool watched_ = false;
  request* previous_ = nullptr;
  request* next_ = nullptr;
};

/// Doubly linked, intrusive.
class request_list {
 public:
  [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
  [[nodiscard]] request* front() const noexcept { return first_; }
  [[nodiscard]] static request* after(const request& r) noexcept { return r.next_; }
  void push_back(request& r) noexcept {
    r.previous_ = last_;
    r.next_ = nullptr;
    (last_ ? last_->next_ : first_) = &r;
    last_ = &r;
  }
  void remove(request& r) noexcept {
    (r.previous_ ? r.previous_->next_ : first_) = r.next_;
    (r.next_ ? r.next_->previous_ : last_) = r.previous_;
  }

 private:
  request* first_ = nullptr;
  request* last_ = nullptr;
};

class backend {
 public:
  using clock = std::chrono::steady_clock;

  backend() = default;
  backend(const backend&) = delete;
  backend& operator=(const backend&) = delete;
  virtual ~backend() = default;

  /// Never delivers an event before it returns.
  void start(request& r) noexcept {
    COWIRE_ASSERT(!r.started());
    r.cancelled_ = false;
    enqueue(r);
  }

  /// Asks for the last event soon: -ECANCELED, or what happened instead. Never delivers it itself.
  void cancel(request& r) noexcept {
    if (!r.started() || r.cancelled_) return;
    r.cancelled_ = true;
    if (is_active(r)) withdraw(r);
  }

  /// Submits what was started and cancelled, sleeps until there is an event or `deadline` is
  /// reached (`clock::time_point::max()`: no limit; `min()`: do not sleep), delivers events.
  /// May return early without any.
  virtual void wait(clock::time_point deadline) = 0;

  /// The calling thread drives the backend from here on. Throws std::system_error.
  virtual void attach() = 0;

  /// Takes everything back from the kernel. Requests stay started and go on at the next attach();
  /// events that happened meanwhile are delivered.
  virtual void detach() noexcept = 0;

  /// Detached: ends every request with -ECANCELED.
  void close() noexcept {
    while (request* r = queued_.front()) finish(*r, {.result = -ECANCELED});
    while (request* r = active_.front()) finish(*r, {.result = -ECANCELED});
  }

  /// Any thread.
  [[nodiscard]] virtual std::unique_ptr<buffer_group> make_group(
      std::vector<std::span<std::byte>> buffers, std::size_t at_once) = 0;

 protected:
  static bool is_active(const request& r) noexcept { return r.stage_ == request::stage::active; }
  static bool is_cancelled(const request& r) noexcept { return r.cancelled_; }
  /// The epoll backend's mark of a request that counts in its descriptor's interest.
  static bool& watched(request& r) noexcept { return r.watched_; }
  void activate(request& r) noexcept {
    COWIRE_DEBUG_ASSERT(r.stage_ == request::stage::queued);
    queued_.remove(r);
    r.stage_ = request::stage::active;
    active_.push_back(r);
  }
  /// Back from the kernel without an event, to be submitted again.
  void requeue(request& r) noexcept {
    active_.remove(r);
    enqueue(r);
  }
  /// Takes the request off its list and delivers its last event.
  void finish(request& r, event e) noexcept {
    (is_active(r) ? active_ : queued_).remove(r);
    r.stage_ = request::stage::idle;
    e.more = false;
    r.on_event(e);
  }

  request_list queued_;  ///< Started, not yet submitted.
  request_list active_;  ///< Submitted.

 private:
  /// An active request was cancelled.
  virtual void withdraw(request& r) noexcept = 0;

  void enqueue(request& r) noexcept {
    r.stage_ = request::stage::queued;
    queued_.push_back(r);
  }
};

/// nullptr, with `ec` and `reason` saying why, where the kernel refuses or lacks something. On
/// success `reason` names the flags in use.
[[nodiscard]] std::unique_ptr<backend> make_uring_backend(unsigned queue_depth, std::error_code& ec,
                                                          std::string& reason);
/// Throws std::system_error.
[[nodiscard]] std::unique_ptr<backend> make_epoll_backend();

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/readable_fd.hpp>

#include <cowire/base/error.hpp>
#include <cowire/ring/detail/backend.hpp>
#include <cowire/ring/detail/duplicate.hpp>

#include <poll.h>

namespace cowire {
/// Ring thread only.
struct readable_fd::state final : public detail::ring_object, public detail::request {
  state(detail::event_loop& l, unique_fd descriptor)
      : ring_object(l), request(kind::poll, descriptor.get()), owned_(std::move(descriptor)) {}

  void start(detail::completion_ptr<std::error_code> c) {
    if (closed_) {
      c.release()->complete(operation_aborted());
      return;
    }
    waiting_.push(std::move(c));
    if (!started()) {
      self_ = shared_from_this();
      loop().kernel().start(*this);  // Reports what is readable by then, too.
      return;
    }
    // The armed poll tells of what comes; this tells of what was left unread. It also keeps an edge
    // that was seen and read since from completing this wait.
    pollfd now{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&now, 1, 0) > 0) finish({});
  }

  void on_cancel(std::uint64_t id) override {
    if (auto* c = waiting_.remove(id)) c->complete(operation_aborted());
  }

  void cancel() { finish(operation_aborted()); }

  void close() {
    closed_ = true;
    cancel();
    loop().kernel().cancel(*this);
  }

  void on_event(const detail::event& e) noexcept override {
    finish(e.result < 0 ? errno_code(-e.result) : std::error_code());
    if (!e.more) const auto last = std::move(self_);
  }

 private:
  void finish(std::error_code ec) {
    while (auto* c = waiting_.pop()) c->complete(ec);
  }
  void on_shutdown() noexcept override {
    closed_ = true;
    waiting_.destroy_all();
  }

  unique_fd owned_;
  detail::wait_list<std::error_code> waiting_;
  std::shared_ptr<ring_object> self_;  // While the backend holds the request.
  bool closed_ = false;
};

readable_fd::readable_fd(ring_context& ring, int fd)
    : ring_(&ring), state_(std::make_shared<state>(loop_of(ring), detail::duplicate(fd))) {}

readable_fd& readable_fd::operator=(readable_fd&& other) noexcept {
  if (this != &other) {
    close();
    ring_ = other.ring_;
    state_ = std::move(other.state_);
  }
  return *this;
}

readable_fd::~readable_fd() { close(); }

void readable_fd::close() noexcept {
  if (!state_) return;
  detail::event_loop& l = state_->loop();
  l.post_function([s = std::move(state_)] { s->close(); });
}

void readable_fd::cancel() {
  state_->loop().post_function([s = state_] { s->cancel(); });
}

void readable_fd::start(state& s, detail::completion_ptr<std::error_code> c) {
  s.start(std::move(c));
}

std::shared_ptr<detail::ring_object> readable_fd::object() const noexcept { return state_; }

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/detail/timer_queue.hpp>
#include <cowire/ring/ring_timer.hpp>

namespace cowire {

/// Ring thread only.
struct ring_timer::state final : public detail::ring_object, public detail::timer_entry {
  explicit state(detail::event_loop& l) : ring_object(l) {}
  ~state() override { loop().timers().remove(*this); }

  void start(time_point when, detail::completion_ptr<std::error_code> c) {
    if (closed_) {
      c.release()->complete(operation_aborted());
      return;
    }
    // A new expiry has cancelled older waits: all that wait share one deadline.
    if (waiting_.empty()) loop().timers().insert(*this, when);
    waiting_.push(std::move(c));
  }

  void on_cancel(std::uint64_t id) override {
    if (auto* c = waiting_.remove(id)) c->complete(operation_aborted());
    if (waiting_.empty()) loop().timers().remove(*this);
  }

  void cancel() {
    loop().timers().remove(*this);
    finish(operation_aborted());
  }

  void on_expired() noexcept override { finish({}); }

 private:
  void finish(std::error_code ec) {
    while (auto* c = waiting_.pop()) c->complete(ec);
  }
  void on_shutdown() noexcept override {
    closed_ = true;
    loop().timers().remove(*this);
    waiting_.destroy_all();
  }

  detail::wait_list<std::error_code> waiting_;
  bool closed_ = false;
};

ring_timer::ring_timer(ring_context& ring)
    : ring_(&ring), state_(std::make_shared<state>(loop_of(ring))) {}

ring_timer& ring_timer::operator=(ring_timer&& other) noexcept {
  if (this != &other) {
    cancel();
    ring_ = other.ring_;
    state_ = std::move(other.state_);
    expiry_ = other.expiry_;
  }
  return *this;
}

ring_timer::~ring_timer() { cancel(); }

void ring_timer::expires_at(time_point when) {
  cancel();
  expiry_ = when;
}

void ring_timer::cancel() {
  if (state_) state_->loop().post_function([s = state_] { s->cancel(); });
}

void ring_timer::start(state& s, time_point when, detail::completion_ptr<std::error_code> c) {
  s.start(when, std::move(c));
}

std::shared_ptr<detail::ring_object> ring_timer::object() const noexcept { return state_; }

}  // namespace cowire

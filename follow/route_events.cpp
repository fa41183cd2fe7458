// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/checked_interval.hpp>
#include <cowire/base/forked.hpp>
#include <cowire/base/signals_blocked.hpp>
#include <cowire/follow/route_events.hpp>
#include <cowire/follow/route_service.hpp>
#include <cowire/ring/event_queue.hpp>
#include <cowire/route/epoch.hpp>
#include <cowire/route/publisher.hpp>

#include <future>
#include <thread>
#include <utility>

namespace cowire {

route_events& route_events::operator=(route_events&& other) noexcept {
  if (this != &other) {
    close();
    queue_ = std::move(other.queue_);
    source_ = std::move(other.source_);
  }
  return *this;
}

route_events::~route_events() { close(); }

route_events::executor_type route_events::get_executor() const noexcept {
  return queue_->get_executor();
}

void route_events::begin_next(direct_completion<std::error_code, route_change> done) {
  queue_->start(std::move(done));
}

void route_events::close() noexcept {
  if (const auto queue = std::exchange(queue_, nullptr)) queue->close();
}

struct route_watcher::state : std::enable_shared_from_this<state> {
  explicit state(route_watcher_config config)
      : routes(ring, epochs, tables,
               {.update_interval = config.update_interval, .log = std::move(config.log)}) {}

  void start() {
    const auto ready = std::make_shared<std::promise<void>>();
    auto outcome = ready->get_future();
    asio::post(ring.get_executor(),
               [this, ready] { routes.start({}, [ready] { ready->set_value(); }); });
    const signals_blocked during_creation;
    thread = std::thread([this] { ring.run(); });
    if (outcome.wait_for(std::chrono::seconds(30)) != std::future_status::ready)
      throw_error(errno_code(ETIMEDOUT), "reading the kernel's routes");
  }

  void refuse_if_inherited() const {
    if (born.inherited()) throw_error(error::forked, "route_watcher");
  }

  /// The control thread cannot wait for the end of its own handler: another one does.
  void stop() {
    if (!ring.running_in_this_thread()) return stop_now();
    const signals_blocked during_creation;
    std::thread([self = shared_from_this()] { self->stop_now(); }).detach();
  }

  void stop_now() {
    std::promise<void> done;
    asio::post(ring.get_executor(), [&] {
      routes.stop();
      asio::post(ring.get_executor(), [&] { done.set_value(); });
    });
    done.get_future().get();
    ring.stop();
    thread.join();
  }

  const detail::fork_mark born;
  ring_context ring;
  epoch_domain epochs;
  publisher tables;
  detail::route_service routes;
  std::thread thread;
};

route_watcher::route_watcher(route_watcher_config config)
    : state_((check_interval("update_interval", config.update_interval),
              std::make_shared<state>(std::move(config)))) {
  try {
    state_->start();
  } catch (...) {
    state_->stop();
    throw;
  }
}

route_watcher::~route_watcher() {
  if (state_->born.inherited())
    detail::leave_behind(std::move(state_));
  else
    state_->stop();
}

route_events route_watcher::watch(std::size_t queue_limit) {
  state_->refuse_if_inherited();
  return {state_->routes.subscribe(queue_limit), state_};
}

route_stats route_watcher::stats() const {
  state_->refuse_if_inherited();
  return state_->routes.stats();
}

}  // namespace cowire

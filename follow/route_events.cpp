// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/route_service.hpp>
#include <cowire/follow/route_events.hpp>
#include <cowire/ring/detail/signals_blocked.hpp>

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

void route_events::close() noexcept {
  if (const auto queue = std::exchange(queue_, nullptr)) queue->close();
}

struct route_watcher::impl {
  explicit impl(route_watcher_config config)
      : routes(ring, epochs, tables,
               {.update_interval = config.update_interval, .log = std::move(config.log)}) {}

  void start() {
    const auto ready = std::make_shared<std::promise<void>>();
    auto outcome = ready->get_future();
    asio::post(ring.get_executor(),
               [this, ready] { routes.start([ready] { ready->set_value(); }); });
    const detail::signals_blocked during_creation;
    thread = std::thread([this] { ring.run(); });
    if (outcome.wait_for(std::chrono::seconds(30)) != std::future_status::ready)
      throw_error(errno_code(ETIMEDOUT), "reading the kernel's routes");
  }

  void stop() {
    std::promise<void> done;
    asio::post(ring.get_executor(), [&] {
      routes.stop();
      asio::post(ring.get_executor(), [&] { done.set_value(); });
    });
    done.get_future().get();
    ring.stop();
    thread.join();
  }

  ring_context ring;
  epoch_domain epochs;
  publisher tables;
  detail::route_service routes;
  std::thread thread;
};

route_watcher::route_watcher(route_watcher_config config)
    : impl_(std::make_shared<impl>(std::move(config))) {
  try {
    impl_->start();
  } catch (...) {
    impl_->stop();
    throw;
  }
}

route_watcher::~route_watcher() { impl_->stop(); }

route_events route_watcher::watch(std::size_t queue_limit) {
  return {impl_->routes.subscribe(queue_limit), impl_};
}

route_stats route_watcher::stats() const { return impl_->routes.stats(); }

}  // namespace cowire

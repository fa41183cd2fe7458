// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/tx_core.hpp>

#include <cowire/base/error.hpp>
#include <cowire/xdp/detail/tx_engine.hpp>

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

namespace cowire {
namespace {

[[nodiscard]] idle_policy effective_idle_policy(const tx_core_options& options) noexcept {
  if (options.idle) return *options.idle;
  return options.cpu && std::thread::hardware_concurrency() > 2 ? idle_policy::spin
                                                                : idle_policy::adaptive;
}

}  // namespace

/// The control thread's half: it builds configurations, hands them to the engine and waits until it
/// uses them.
class tx_core::control_side {
 public:
  control_side(const frame_memory& memory, const publisher& tables, epoch_domain& epochs,
               doorbell& control, const tx_core_options& options)
      : options_(options),
        engine_(memory, tables, epochs, control, effective_idle_policy(options), options),
        current_(std::make_unique<detail::tx_configuration>(memory.frame_count)) {
    engine_.configure(*current_);
    engine_.apply_configuration();
  }
  ~control_side() { stop(); }

  [[nodiscard]] detail::tx_engine& engine() noexcept { return engine_; }

  void start() {
    COWIRE_ASSERT(!thread_.joinable());
    thread_ = std::thread([this] { engine_.run(); });
    const std::string name = "cowire-tx-" + std::to_string(options_.number);
    static_cast<void>(::pthread_setname_np(thread_.native_handle(), name.c_str()));
    if (!options_.cpu) return;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(*options_.cpu, &cpus);
    const int failure = ::pthread_setaffinity_np(thread_.native_handle(), sizeof cpus, &cpus);
    if (failure == 0) return;
    stop();
    throw_error(errno_code(failure), "pin the TX core to CPU " + std::to_string(*options_.cpu) +
                                         " (see `lscpu -e` for those this process may use)");
  }

  void stop() {
    if (!thread_.joinable()) return;
    engine_.request_stop();
    thread_.join();
  }

  bool run_once() {
    COWIRE_ASSERT(!thread_.joinable());
    return engine_.run_once();
  }

  void attach(producer_channel& channel) {
    COWIRE_ASSERT(channel.first_frame % slice_granularity == 0 &&
                  channel.frame_count % slice_granularity == 0);
    channels_.push_back(std::make_unique<detail::tx_channel>(channel));
    change([&](detail::tx_configuration& next) {
      next.channels.push_back({channels_.back().get(), false});
    });
  }

  void begin_detach(const producer_channel& channel) {
    change([&](detail::tx_configuration& next) {
      for (auto& entry : next.channels)
        if (&entry.state->channel == &channel) entry.draining = true;
    });
  }

  [[nodiscard]] bool detached(const producer_channel& channel) {
    const auto it = std::find_if(channels_.begin(), channels_.end(),
                                 [&](const auto& c) { return &c->channel == &channel; });
    if (it == channels_.end()) return true;
    // Pairs with the release in the engine: what the core did to the channel happened before.
    if (!(*it)->drained.load(std::memory_order_acquire)) return false;
    change([&](detail::tx_configuration& next) {
      std::erase_if(next.channels, [&](const auto& entry) { return entry.state == it->get(); });
    });
    channels_.erase(it);
    return true;
  }

  void add_port(egress_slot slot, std::uint32_t interface_index, const tx_queue& queue) {
    COWIRE_ASSERT(slot != divert_slot && slot < max_egress_slots && find_port(slot) == nullptr);
    tx_counters::slot& counters = engine_.counters().slots[slot];
    counters.interface_index.store(interface_index, std::memory_order_relaxed);
    ports_.push_back(std::make_unique<detail::tx_port>(slot, queue, engine_.places(), counters));
    change([&](detail::tx_configuration& next) {
      next.ports.push_back({ports_.back().get(), std::nullopt});
    });
  }

  void begin_remove_port(egress_slot slot, std::chrono::milliseconds grace) {
    change([&](detail::tx_configuration& next) {
      for (auto& entry : next.ports)
        if (entry.port->slot() == slot) entry.closing_grace = grace;
    });
  }

  [[nodiscard]] bool port_removed(egress_slot slot) {
    detail::tx_port* const port = find_port(slot);
    if (port == nullptr) return true;
    // Pairs with the release in the engine: it has touched the queue for the last time.
    if (!port->removed.load(std::memory_order_acquire)) return false;
    change([&](detail::tx_configuration& next) {
      std::erase_if(next.ports, [&](const auto& entry) { return entry.port == port; });
    });
    std::erase_if(ports_, [&](const auto& owned) { return owned.get() == port; });
    return true;
  }

  /// Waits for a state that the core reaches by running; runs it here where it has no thread.
  template <class Test>
  void wait_until(Test test) {
    while (!test()) {
      if (thread_.joinable()) {
        std::this_thread::yield();
      } else {
        static_cast<void>(engine_.run_once());
      }
    }
  }

 private:
  [[nodiscard]] detail::tx_port* find_port(egress_slot slot) noexcept {
    for (const auto& port : ports_)
      if (port->slot() == slot) return port.get();
    return nullptr;
  }

  /// Replaces the configuration by a changed copy. The old one is destroyed once the core uses the
  /// new one, which takes it a batch at most: it looks once per batch, and the bell wakes it from
  /// sleep.
  template <class Change>
  void change(Change&& edit) {
    auto next = std::make_unique<detail::tx_configuration>(*current_);
    edit(*next);
    next->index();
    engine_.configure(*next);
    if (thread_.joinable()) {
      while (!engine_.uses(*next)) std::this_thread::yield();
    } else {
      engine_.apply_configuration();
    }
    current_ = std::move(next);
  }

  const tx_core_options options_;
  detail::tx_engine engine_;
  std::unique_ptr<detail::tx_configuration> current_;
  std::vector<std::unique_ptr<detail::tx_channel>> channels_;
  std::vector<std::unique_ptr<detail::tx_port>> ports_;
  std::thread thread_;
};

tx_core::tx_core(const frame_memory& memory, const publisher& tables, epoch_domain& epochs,
                 doorbell& control, const tx_core_options& options)
    : side_(std::make_unique<control_side>(memory, tables, epochs, control, options)) {}
tx_core::~tx_core() = default;

void tx_core::start() { side_->start(); }
void tx_core::stop() { side_->stop(); }
bool tx_core::run_once() { return side_->run_once(); }
void tx_core::attach(producer_channel& channel) { side_->attach(channel); }
void tx_core::begin_detach(producer_channel& channel) { side_->begin_detach(channel); }
bool tx_core::detached(producer_channel& channel) { return side_->detached(channel); }

void tx_core::add_port(egress_slot slot, std::uint32_t interface_index, const tx_queue& queue) {
  side_->add_port(slot, interface_index, queue);
}
void tx_core::begin_remove_port(egress_slot slot, std::chrono::milliseconds grace) {
  side_->begin_remove_port(slot, grace);
}
bool tx_core::port_removed(egress_slot slot) { return side_->port_removed(slot); }
void tx_core::remove_port(egress_slot slot, std::chrono::milliseconds grace) {
  side_->begin_remove_port(slot, grace);
  side_->wait_until([&] { return side_->port_removed(slot); });
}

spsc_ring<diverted_request>& tx_core::diverted() noexcept { return side_->engine().diverted(); }
spsc_ring<flow_sample>& tx_core::samples() noexcept { return side_->engine().samples(); }
work_bell& tx_core::work_bell() noexcept { return side_->engine().work_bell(); }
tx_snapshot tx_core::snapshot() const noexcept { return side_->engine().counters().snapshot(); }

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// Follows the kernel's routing state on a ring, and publishes forwarding tables by it: what
/// sending has of following. How it is done: detail/route_follower.hpp. Applications have
/// route_watcher (route_events.hpp) or a transmitter.
///
/// All calls on the ring thread, but where said otherwise. Created and destroyed while the ring
/// does not run, or on the ring thread. Network namespace: the creating thread's.
#pragma once

#include <cowire/base/log.hpp>
#include <cowire/follow/route_stats.hpp>
#include <cowire/route/output_layers.hpp>
#include <cowire/route/restrictions.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace cowire {

class compiler;
class epoch_domain;
template <class T>
class event_queue;
struct flow;
class ip_address;
class mirror;
struct neighbour_key;
class outer_flows;
struct publication;
class publisher;
class ring_context;
struct route_change;

}  // namespace cowire

namespace cowire::detail {

class route_follower;

struct route_service_options {
  std::chrono::milliseconds update_interval{30'000};
  std::uint32_t audit_rate = 0;  ///< Flows a second; needs flow_in_use.
  bool performance_mode = true;
  route_restrictions restrictions{};
  outer_flows* numbers = nullptr;  ///< As compiler_options has it.
  output_layers output{};
  log_callback log{};
};

/// What the owner is told and asked. Any of them may be empty.
struct route_service_hooks {
  /// Called after each publication of something new. It may not publish.
  std::function<void(const publication& done)> on_published{};
  /// Called after a publication that links had a part in.
  std::function<void()> on_links{};
  /// Called before tables are published by which another firewall is obeyed than before.
  std::function<void()> on_other_rules{};
  /// Called every upkeep period.
  std::function<void()> on_tick{};
  /// Whether datagrams leave through an AF_XDP socket of an interface these days: only then the
  /// neighbours behind it are kept fresh.
  std::function<bool(std::uint32_t interface_index)> interface_in_use{};
  /// Takes the next sample of the traffic for the truth audit; false = there is none now.
  std::function<bool(flow& in_use)> flow_in_use{};
};

class route_service {
 public:
  /// Opens and subscribes the sockets; throws std::system_error. The three outlive this.
  route_service(ring_context& ring, epoch_domain& epochs, publisher& tables,
                route_service_options options);
  ~route_service();
  route_service(const route_service&) = delete;
  route_service& operator=(const route_service&) = delete;

  /// Begins. `ready` is called once, after the first complete state was published.
  void start(route_service_hooks hooks, std::function<void()> ready);
  /// Ends all waiting; subscribers hear error::closed.
  void stop();

  [[nodiscard]] cowire::compiler& compiler() noexcept;
  [[nodiscard]] const mirror& state() const noexcept;
  /// Publishes what is pending and tells the subscribers.
  void publish();
  /// Has the kernel resolve a neighbour, as a first datagram would.
  void resolve(const neighbour_key& wanted);
  /// What the network said about one destination; the kernel is asked for how long it holds.
  void learn_path_mtu(const ip_address& destination, std::uint32_t mtu);

  /// Any thread: detail::output_service::look_at_group_of().
  [[nodiscard]] std::shared_ptr<const std::uint64_t> look_at_group_of(int fd);
  /// Any thread.
  [[nodiscard]] std::shared_ptr<event_queue<route_change>> subscribe(std::size_t limit);
  /// Any thread.
  [[nodiscard]] route_stats stats() const;

 private:
  std::unique_ptr<route_follower> impl_;
};

}  // namespace cowire::detail

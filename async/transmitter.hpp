// SPDX-License-Identifier: Apache-2.0
/// Everything that sends, assembled from one config: frames, AF_XDP sockets, TX cores, and a
/// control thread that follows the kernel's routes and serves diverted datagrams.
///
///     transmitter tx({.interfaces = {"eth0"}});
///     sender s = tx.make_sender({.source_port = 8001});
///     co_await s.async_send(bytes, destination, asio::use_awaitable);
///
/// Threads: `cowire-control`, and `cowire-tx-0` and so on for the TX cores. Any thread may call any
/// member, handlers on the control thread included; senders have rules of their own (sender.hpp).
/// Set-up calls (constructor, make_sender, make_producer) may block for some milliseconds.
///
/// Lifetime: transmitter, senders and the application's contexts (an asio::io_context, a
/// ring_context) may go in any order. A context takes the handlers along that wait in it, uncalled,
/// as it does with its own; what a sender or a payload needs stays until it is gone.
///
/// fork(): in a child, everything that was made before is the parent's. Calls on an inherited
/// transmitter, sender or producer fail at once with error::forked (a call without an error to give
/// just fails), destructors do nothing, and nothing of the parent's is disturbed; payloads lose
/// their bytes. The child gets neither the AF_XDP sockets nor the UDP ports, so that it holds none
/// of them when the parent gives them up. It may exec, or make a transmitter of its own. Processes
/// made by vfork() or a bare clone() may do nothing but exec.
///
/// Network namespace and credentials are those of the constructing thread.
///
/// Nothing about a NIC is fatal in automatic mode: an interface on which no AF_XDP socket works is
/// served by the kernel path, and stats() says why. Interfaces may be created, renamed, deleted and
/// created again meanwhile; their sockets follow.
#pragma once

#include <cowire/async/sender.hpp>
#include <cowire/async/tunnel.hpp>
#include <cowire/base/reason.hpp>
#include <cowire/follow/detail/checked_interval.hpp>
#include <cowire/follow/route_events.hpp>
#include <cowire/route/output_path.hpp>
#include <cowire/route/restrictions.hpp>
#include <cowire/xdp/socket.hpp>
#include <cowire/xdp/tx_core.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace cowire {

namespace detail {
class engine;
}

inline constexpr std::uint32_t tx_cores_max = 64;

/// What the options of a transmitter_config may be, where their types allow more.
struct transmitter_limits {
  static constexpr std::uint32_t max_producers_max = 1024;
  static constexpr std::uint32_t frames_per_producer_max = 1u << 20;
  static constexpr std::uint32_t ring_capacity_min = 64, ring_capacity_max = 1u << 16;
  static constexpr std::chrono::microseconds busy_poll_max{10'000};
  static constexpr std::uint32_t busy_poll_budget_max = 1024;
  static constexpr std::uint32_t audit_rate_max = 1'000'000;
  /// Of update_interval and drain_timeout; none is negative.
  static constexpr std::chrono::seconds interval_max = detail::interval_max;
};

struct transmitter_config {
  /// Names of the interfaces that get an AF_XDP socket. Empty = every Ethernet device that is up
  /// and not a loopback, those that come later included.
  std::vector<std::string> interfaces{};
  /// Unset = the best rung that works, interface by interface (xdp/socket.hpp has the ladder). One
  /// that is set is the only one tried: the constructor throws when an interface named above lacks
  /// it.
  std::optional<send_mode> mode{};
  /// CPU of each TX core, which are as many then: all different. Empty = not pinned.
  ///
  /// Each core has a queue of its own on every interface, and a flow stays with one core, by its
  /// destination. An interface with fewer transmit queues than there are cores limits the cores in
  /// use (transmitter_stats::cores_in_use) as long as it is served.
  std::vector<unsigned> cpus{};
  /// Hardware transmit queue of each TX core, the same on every interface: one for each of `cpus`,
  /// all different. For queues whose interrupts, memory or other users are elsewhere. Empty = core
  /// k takes queue k.
  std::vector<std::uint32_t> queues{};
  /// How many, where `cpus` and `queues` are empty: 1 to tx_cores_max.
  std::uint32_t tx_cores = 1;
  std::uint32_t frames_per_producer = 4096;  ///< What one thread can have on the way at once.
  std::uint32_t max_producers = 8;           ///< Threads and explicit producers, intakes included.
  std::uint32_t frame_size = 2048;           ///< 2048 or 4096; payloads hold 128 bytes less.
  std::uint32_t ring_capacity = 2048;        ///< Descriptors of each AF_XDP transmit ring.
  /// As socket_options::busy_poll, for every zero-copy queue. 0 = interrupts, as the driver has it.
  std::chrono::microseconds busy_poll{0};
  std::uint32_t busy_poll_budget = socket_options{}.busy_poll_budget;
  bool huge_pages = true;  ///< 2 MiB pages where there are any.
  /// Made before anything else and removed by stop(). An existing one of the name must be as it is
  /// declared, and stays.
  std::vector<tunnel_declaration> tunnels{};
  /// Tables, tunnels and destinations that the fast path keeps to.
  route_restrictions restrictions{};
  /// What of the kernel's output path counts. The valve for hosts where it is known better that a
  /// layer matters to nobody: what is ignored is logged as a warning and told by stats(). What the
  /// kernel sends for another reason meets all layers as ever.
  output_layers output{};
  /// False: destinations are looked up by the plain reference resolver instead of the compiled
  /// table. For comparison only; slow.
  bool performance_mode = true;
  /// Period of re-dump checks: all kernel state is read again and compared. 0 = never. Not the
  /// update latency: changes are followed by events, within a millisecond.
  std::chrono::milliseconds update_interval{30'000};
  /// Truth audit: flows in use a second, at most, about which the kernel is asked whether it would
  /// send them likewise. 0 = never. 500 look at 10 000 live destinations in 20 s, for some 0.2 % of
  /// a CPU on the control thread.
  std::uint32_t audit_rate = 500;
  /// What a TX core does when there is nothing to do. Unset = polls on a CPU of its own (`cpus`) if
  /// the machine has more than two, otherwise sleeps after a while.
  std::optional<idle_policy> idle{};
  /// How long stop() waits for datagrams on the way.
  std::chrono::milliseconds drain_timeout{1'000};
  /// What the control thread waits with (ring/ring_context.hpp).
  ring_context::backend_choice backend = ring_context::backend_choice::automatic;
  log_callback log{};
};

struct interface_stats {
  std::string name;
  std::uint32_t index = 0;
  send_mode mode = send_mode::kernel;  ///< The rung in use; kernel = no AF_XDP socket.
  std::string reason;                  ///< Why not a better rung; "" on the best one.
  /// Options of its sockets that the kernel refused (xdp_socket::refused_options).
  std::vector<std::string> refused_options{};
  std::uint64_t transmitted = 0;
  std::uint64_t lost_in_device = 0;
  /// Times its sockets were opened anew because the device completed nothing of what it held.
  std::uint64_t rebuilt = 0;
  std::uint32_t sockets = 0;  ///< One for each TX core that can send through it.
};

/// What one TX core has done.
struct core_stats {
  std::uint64_t taken = 0;  ///< From producers.
  std::uint64_t transmitted = 0;
  std::uint64_t diverted = 0;
  std::uint64_t lost_in_device = 0;
};

/// A snapshot. Once drained: submitted == sum(transmitted) + kernel_path + sum(refused) +
/// lost_in_device + shed, exactly; meanwhile the difference is on the way.
struct transmitter_stats {
  std::uint64_t submitted = 0;
  std::map<std::string, std::uint64_t> transmitted;  ///< By interface name, past ones included.
  std::uint64_t kernel_path = 0;                     ///< Diverted, and the kernel took them.
  std::map<std::string, std::uint64_t> refused;      ///< Diverted, and refused: by errno name.
  std::map<std::string, std::uint64_t> diverted;     ///< By divert_reason name: the cause of both.
  /// Dropped by a device without carrier or room, as it said itself (its tx_dropped counts them,
  /// too), or in the rings of an interface when it went away, so that nobody can tell.
  std::uint64_t lost_in_device = 0;
  std::uint64_t shed = 0;                 ///< Gave way to newer ones (full_policy::shed_oldest).
  std::uint64_t errors_from_network = 0;  ///< ICMP errors that came back.
  std::vector<interface_stats> interfaces;
  std::vector<core_stats> cores;
  std::uint32_t cores_in_use = 0;  ///< The first so many of them take new datagrams.
  std::string cores_reason;        ///< Why not all, and what to do; "" if they do.
  route_stats routes;
  std::vector<std::string> output_ignored;  ///< Layers (transmitter_config::output), by name.

  /// transmitted, summed.
  [[nodiscard]] std::uint64_t transmitted_total() const noexcept;
  /// refused, summed.
  [[nodiscard]] std::uint64_t refused_total() const noexcept;
  /// Everything that has come to an end: what is `submitted` once drained.
  [[nodiscard]] std::uint64_t accounted() const noexcept;
  /// Submitted and not yet accounted for; 0 once drained.
  [[nodiscard]] std::uint64_t on_the_way() const noexcept;
};

class transmitter {
 public:
  /// Returns when routes are published and sockets bound. Throws std::system_error naming what
  /// failed and what to do about it: no privilege, unknown interface, a rung that was asked for and
  /// is not there, an option out of its range (error::invalid_argument).
  explicit transmitter(transmitter_config config = {});
  transmitter(const transmitter&) = delete;
  transmitter& operator=(const transmitter&) = delete;
  /// As stop().
  ~transmitter();

  /// A sender on options.via, or on the calling thread's own producer (made on first use). Opens
  /// the backing socket of its port. Throws std::system_error (port_in_use, no such device,
  /// no_producer ...); the twin does not.
  [[nodiscard]] sender make_sender(const sender_options& options = {});
  [[nodiscard]] sender make_sender(const sender_options& options, std::error_code& ec);
  /// A producer for one strand or one thread, apart from the thread's own. Throws std::system_error
  /// (error::no_producer when all are lent).
  [[nodiscard]] producer make_producer();

  /// Routing changes from now on.
  [[nodiscard]] route_events watch_routes(std::size_t queue_limit = 4096);

  [[nodiscard]] transmitter_stats stats() const;

  /// Refuses further datagrams, waits until those on the way are out or the drain timeout is over,
  /// closes the sockets and ends the threads. Waiting operations complete with error::closed.
  /// Idempotent. In a handler on the control thread it returns at once, and the rest follows on a
  /// thread of its own; another call, elsewhere, waits for it.
  void stop() noexcept;

 private:
  friend class intake;
  std::shared_ptr<detail::engine> engine_;
};

}  // namespace cowire

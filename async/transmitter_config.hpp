// SPDX-License-Identifier: Apache-2.0
/// What a transmitter is made with, and what its options may be.
///
/// Plain values with defaults that fit most hosts: `transmitter tx({.interfaces = {"eth0"}})`.
#pragma once

#include <cowire/async/tunnel_declaration.hpp>
#include <cowire/base/checked_interval.hpp>
#include <cowire/base/log.hpp>
#include <cowire/ring/ring_context.hpp>
#include <cowire/route/output_layers.hpp>
#include <cowire/route/restrictions.hpp>
#include <cowire/xdp/idle_policy.hpp>
#include <cowire/xdp/send_mode.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cowire {

/// TX cores of one transmitter.
inline constexpr std::uint32_t tx_cores_max = 64;

/// What the options of a transmitter_config may be, where their types allow more.
struct transmitter_limits {
  static constexpr std::uint32_t max_producers_max = 1024;            ///< At least 1.
  static constexpr std::uint32_t frames_per_producer_max = 1u << 20;  ///< Frames.
  static constexpr std::uint32_t shared_producers_max = 64;           ///< At least 0.
  /// Rounded up to a power of two.
  static constexpr std::uint32_t ring_capacity_min = 64, ring_capacity_max = 1u << 16;
  static constexpr std::chrono::microseconds busy_poll_max{10'000};  ///< At least 0.
  static constexpr std::uint32_t busy_poll_budget_max = 1024;        ///< At least 1.
  static constexpr std::uint32_t tracked_flows_max = 1u << 20;       ///< At least 1.
  static constexpr std::uint32_t audit_rate_max = 1'000'000;         ///< At least 0.
  /// Of update_interval and drain_timeout; none is negative.
  static constexpr std::chrono::seconds interval_max = cowire::interval_max;
};

/// What a transmitter is made with.
struct transmitter_config {
  /// Names of the interfaces that get an AF_XDP socket. Empty = every Ethernet device that is up
  /// and not a loopback, those that come later included.
  std::vector<std::string> interfaces{};
  /// Unset = the best rung that works, interface by interface (xdp/send_mode.hpp has the ladder).
  /// One that is set is the only one tried: the constructor throws when an interface named above
  /// lacks it.
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
  /// Producers behind shared senders, which have the frames of one producer more together. A thread
  /// uses one of them, so that threads are in each other's way less often the more there are. 1:
  /// the datagrams of all threads leave in the order of their calls, as from a socket. 0: no shared
  /// senders, and no memory for them.
  std::uint32_t shared_producers = 4;
  std::uint32_t frame_size = 2048;     ///< 2048 or 4096; payloads hold 128 bytes less.
  std::uint32_t ring_capacity = 2048;  ///< Descriptors of each AF_XDP transmit ring.
  /// As socket_options::busy_poll, for every zero-copy queue. 0 = interrupts, as the driver has it.
  std::chrono::microseconds busy_poll{0};
  std::uint32_t busy_poll_budget = busy_poll_budget_default;  ///< Frames of one such poll at most.
  bool huge_pages = true;                                     ///< 2 MiB pages where there are any.
  /// Made before anything else and removed by stop(). An existing one of the name must be as it is
  /// declared, and stays.
  std::vector<tunnel_declaration> tunnels{};
  /// Tables, tunnels and destinations that the fast path keeps to.
  route_restrictions restrictions{};
  /// What of the kernel's output path counts. The valve for hosts where it is known better that a
  /// layer matters to nobody: what is ignored is logged as a warning and told by stats(). What the
  /// kernel sends for another reason meets all layers as ever. Counters of rules that a flow passes
  /// fall short by what the fast path sends, unless they are strict: then they divert it.
  output_layers output{};
  /// Flows (addresses and ports) at a time that may be on the fast path where the kernel tracks
  /// connections; others take the kernel path. Memory is used as they come, some 200 bytes each.
  std::uint32_t tracked_flows = 131'072;
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
  /// How long stop() waits for datagrams on the way; and an intake's end, before.
  std::chrono::milliseconds drain_timeout{1'000};
  /// What the control thread waits with (ring/ring_context.hpp).
  ring_context::backend_choice backend = ring_context::backend_choice::automatic;
  log_callback log{};  ///< For what an operator should know; empty = nothing is said.
};

/// Bytes of frames that a transmitter of this config has: what each of its AF_XDP sockets
/// registers, and locks (xdp/locked_memory.hpp). Asks the interfaces that it would serve.
[[nodiscard]] std::uint64_t umem_bytes(const transmitter_config& config);

}  // namespace cowire

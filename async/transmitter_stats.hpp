// SPDX-License-Identifier: Apache-2.0
/// What a transmitter has done so far: transmitter::stats(). Plain values.
#pragma once

#include <cowire/async/tracking_stats.hpp>
#include <cowire/follow/route_stats.hpp>
#include <cowire/xdp/send_mode.hpp>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace cowire {

/// One interface that is served, or could be.
struct interface_stats {
  std::string name;                    ///< As `ip link` has it.
  std::uint32_t index = 0;             ///< Its number in the kernel.
  send_mode mode = send_mode::kernel;  ///< The rung in use; kernel = no AF_XDP socket.
  std::string reason;                  ///< Why not a better rung; "" on the best one.
  /// Options of its sockets that the kernel refused (xdp_socket::refused_options).
  std::vector<std::string> refused_options{};
  std::uint64_t transmitted = 0;     ///< Frames that its driver has completed.
  std::uint64_t lost_in_device = 0;  ///< As transmitter_stats::lost_in_device.
  /// Times its sockets were opened anew because the device completed nothing of what it held.
  std::uint64_t rebuilt = 0;
  std::uint32_t sockets = 0;  ///< One for each TX core that can send through it.
};

/// What one TX core has done.
struct core_stats {
  std::uint64_t taken = 0;           ///< From producers.
  std::uint64_t transmitted = 0;     ///< By its sockets of all interfaces.
  std::uint64_t diverted = 0;        ///< Handed to the kernel path.
  std::uint64_t lost_in_device = 0;  ///< As transmitter_stats::lost_in_device.
  /// Of those taken, of flows whose hop it remembered of the newest table, and of others that it
  /// looked for; the rest were looked up without, as nearly all flows were new: so often it paused.
  std::uint64_t flow_hits = 0, flow_misses = 0, flow_pauses = 0;
};

/// A snapshot. Once drained: submitted == sum(transmitted) + kernel_path + sum(refused) +
/// lost_in_device + shed, exactly; meanwhile the difference is on the way.
struct transmitter_stats {
  std::uint64_t submitted = 0;  ///< By all senders: what came to be of it follows.
  std::map<std::string, std::uint64_t> transmitted;  ///< By interface name, past ones included.
  std::uint64_t kernel_path = 0;                     ///< Diverted, and the kernel took them.
  std::map<std::string, std::uint64_t> refused;      ///< Diverted, and refused: by errno name.
  std::map<std::string, std::uint64_t> diverted;     ///< By divert_reason name: the cause of both.
  /// Dropped by a device without carrier or room, as it said itself (its tx_dropped counts them,
  /// too), or in the rings of an interface when it went away, so that nobody can tell.
  std::uint64_t lost_in_device = 0;
  std::uint64_t shed = 0;                   ///< Gave way to newer ones (full_policy::shed_oldest).
  std::uint64_t errors_from_network = 0;    ///< ICMP errors that came back.
  std::vector<interface_stats> interfaces;  ///< Those of now.
  std::vector<core_stats> cores;            ///< By number.
  std::uint32_t cores_in_use = 0;           ///< The first so many of them take new datagrams.
  std::string cores_reason;                 ///< Why not all, and what to do; "" if they do.
  route_stats routes;                       ///< Of the follower of the kernel's state.
  tracking_stats tracking;                  ///< Of flows that the kernel tracks.
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

}  // namespace cowire

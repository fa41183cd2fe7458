// SPDX-License-Identifier: Apache-2.0
/// What the kernel says about one network interface, as far as sending through AF_XDP cares.
///
/// A snapshot: read at set-up by the mode ladder (socket.hpp) and by `cowire doctor`. Any thread;
/// makes system calls and allocates. Not for following changes: that is netlink::monitor.
#pragma once

#include <cowire/base/address.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace cowire {

/// How an XDP program is attached.
enum class xdp_attachment : std::uint8_t { none, native, generic, hardware, several };
[[nodiscard]] std::string_view name(xdp_attachment attachment) noexcept;

/// What the driver declares (netdev netlink, Linux 6.3 and later).
struct xdp_features {
  bool native = false;     ///< Runs XDP programs itself.
  bool zero_copy = false;  ///< AF_XDP zero-copy.
  /// What a descriptor's metadata may ask of the NIC (Linux 6.8). cowire asks for none of it.
  bool tx_checksum = false, tx_launch_time = false;
};

/// Pairs of "now" and "largest possible". Drivers answer odd numbers, and many answer nothing: 0
/// means unknown.
struct device_rings {
  std::uint32_t rx = 0, rx_max = 0;
  std::uint32_t tx = 0, tx_max = 0;
};
struct device_queues {
  std::uint32_t rx = 1, tx = 1;          ///< Queues in use.
  std::uint32_t rx_max = 0, tx_max = 0;  ///< Through ethtool; 0 = cannot be changed.
  bool combined = false;                 ///< ethtool counts pairs of both, and not each kind.
};

struct device_facts {
  std::string name;
  std::uint32_t index = 0;
  std::string driver;  ///< "" for devices without ethtool.
  std::string driver_version;
  std::string bus;  ///< PCI address or the like; "" for virtual devices.
  mac_address mac;
  std::uint32_t mtu = 0;
  bool ethernet = false;  ///< ARPHRD_ETHER: frames start with an Ethernet header.
  bool up = false;        ///< Administratively.
  bool carrier = false;   ///< Link detected.
  device_queues queues;
  device_rings rings;
  std::optional<xdp_features> features;  ///< nullopt: the kernel or driver does not say.
  xdp_attachment attached = xdp_attachment::none;
  std::uint32_t program_id = 0;  ///< Of the attached program, where there is exactly one.
  /// Offloads that bite: settings in use that spoil AF_XDP or comparison of bytes, one sentence
  /// each, with the command that changes it.
  std::vector<std::string> warnings;
};

/// Throws std::system_error that names the interface and the remedy: no such device, or no
/// permission.
[[nodiscard]] device_facts read_device(const std::string& name);
/// The same; on failure `ec` is set and the facts are empty.
[[nodiscard]] device_facts read_device(const std::string& name, std::error_code& ec);

/// Whether the driver is known to serve the receive and the transmit queue of this number in
/// separate polls (netdev netlink, Linux 6.8): busy polling of an AF_XDP socket serves the receive
/// queue's only.
[[nodiscard]] bool polled_apart(std::uint32_t interface_index, std::uint32_t queue);

/// What gives a device so many transmit queues: a command, or why it cannot have them.
[[nodiscard]] std::string more_queues(const device_facts& device, std::uint32_t wanted);

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// What is known to go wrong with AF_XDP on some drivers, each with its source.
///
/// The mode ladder (socket.hpp) passes over a rung whose trouble is to be avoided, unless that rung
/// is asked for by name; `cowire doctor` tells of all. What the kernel or a driver refuses by
/// itself needs no entry: the ladder finds out.
#pragma once

#include <cowire/xdp/device.hpp>
#include <cowire/xdp/socket.hpp>

#include <span>
#include <string>
#include <string_view>

namespace cowire {

struct known_trouble {
  std::string_view driver;  ///< As ethtool names it.
  send_mode mode;
  bool avoid;             ///< False: worth knowing, no reason against the rung.
  std::string_view what;  ///< A sentence without its full stop.
  std::string_view source;
};

[[nodiscard]] std::span<const known_trouble> known_troubles() noexcept;

/// Why a rung is not taken on a device by itself, and what overrides that; "" = nothing against it.
[[nodiscard]] std::string trouble_to_avoid(const device_facts& device, send_mode mode);

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// Destination ports as a few ranges: what may be told apart where a hop is chosen by more than the
/// destination.
///
/// Plain values; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace cowire {

/// Host order; both inside. Nothing is sent to port 0, so zeros are an empty range, and so is one
/// whose `last` is less than its `first`. No default values, as hops have it in a union.
struct port_range {
  std::uint16_t first, last;
  [[nodiscard]] constexpr bool contains(std::uint16_t port) const noexcept {
    return first <= port && port <= last && port != 0;
  }
  friend auto operator<=>(const port_range&, const port_range&) noexcept = default;
};

/// As many as a hop has room for.
inline constexpr std::size_t port_ranges_max = 3;
using port_ranges = std::array<port_range, port_ranges_max>;

/// The ports that are in one of the ranges, or (`inside` false) those that are in none.
struct port_filter {
  port_ranges ranges{};
  bool inside = true;
  [[nodiscard]] constexpr bool passes(std::uint16_t port) const noexcept {
    bool found = false;
    for (const port_range& one : ranges) found |= one.contains(port);
    return found == inside;
  }
  friend auto operator<=>(const port_filter&, const port_filter&) noexcept = default;
};

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// What the user keeps from the fast path although it could serve it. Everything is allowed where
/// nothing is said; what is not goes to the kernel path, counted by its reason.
///
/// A plain value; any thread.
#pragma once

#include <cowire/base/address.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cowire {

/// Unset = no restriction.
struct route_restrictions {
  /// Flows that a rule sends to another table than these (and local, which always is one) are
  /// diverted: table_not_mirrored. Not those that an earlier rule's table answers. Flows through a
  /// tunnel are where its outer datagrams are.
  std::optional<std::vector<std::uint32_t>> routing_tables{};
  /// Tunnels of other names are diverted: tunnel_not_listed, inside others as well. They may come
  /// later.
  std::optional<std::vector<std::string>> tunnel_interfaces{};
  /// Destinations outside these, where their route is a tunnel, are diverted: outside_prefixes.
  std::optional<std::vector<ip_prefix>> tunnel_prefixes{};
};

}  // namespace cowire

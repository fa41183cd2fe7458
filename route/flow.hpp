// SPDX-License-Identifier: Apache-2.0
/// What a route decision may depend on, split in the two halves that have different lives.
///
/// A *flow class* is everything except the destination: what policy rules can see and what the
/// headers of a sender have in common. It is registered once per kind of sender and compiled into a
/// table of its own. A *flow* is a flow class with a destination: one question to the routing
/// tables.
#pragma once

#include <cowire/base/address.hpp>

#include <cstdint>
#include <optional>

namespace cowire {

/// Index of a registered flow class; never reused while the transmitter lives.
using flow_class_id = std::uint16_t;
/// Numbers from here on are nobody's class: what hands requests over has meanings for some.
inline constexpr flow_class_id flow_classes_max = 0xfff0;

struct flow_class {
  /// Fixed source addresses, one per family; unset = the kernel's choice per destination.
  std::optional<ip_address> source_v4, source_v6;
  /// source_v6 comes with each datagram (IPV6_PKTINFO), so that the kernel looks whether it is this
  /// host's, which it does not do with the address that a socket is bound to.
  bool source_is_asked_for = false;
  std::uint32_t mark = 0;  ///< SO_MARK.
  std::uint8_t tos = 0;    ///< IP_TOS or IPV6_TCLASS, the whole byte.
  std::uint8_t ttl = 0;  ///< IP_TTL or IPV6_UNICAST_HOPS; 0 = the route's or the system's default.
  std::uint32_t output_interface = 0;  ///< Bound device, ifindex; 0 = any.
  std::uint8_t ip_protocol = 17;       ///< Always UDP for senders; queries may ask otherwise.
  std::uint16_t source_port = 0;       ///< Host order; 0 where no rule looks at ports.
  std::uint32_t uid = 0;               ///< Owner of the socket; rules may select by it.
  // Of datagrams to multicast groups alone, which `ttl` does not concern.
  std::uint8_t multicast_ttl = 1;         ///< IP_MULTICAST_TTL or IPV6_MULTICAST_HOPS.
  std::uint32_t multicast_interface = 0;  ///< IP_MULTICAST_IF or IPV6_MULTICAST_IF; 0 = none.
  bool multicast_loop = true;             ///< IP_MULTICAST_LOOP or IPV6_MULTICAST_LOOP.
  /// An adopted socket has an interface for multicast that nobody can read, or has none.
  bool multicast_interface_hidden = false;

  [[nodiscard]] const std::optional<ip_address>& source(ip_family family) const noexcept {
    return family == ip_family::v4 ? source_v4 : source_v6;
  }
  friend bool operator==(const flow_class&, const flow_class&) noexcept = default;
};

struct flow {
  flow_class cls;
  ip_address destination;
  std::uint16_t destination_port = 0;  ///< Host order; 0 = unknown.
};

}  // namespace cowire

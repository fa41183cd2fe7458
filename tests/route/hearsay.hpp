// SPDX-License-Identifier: Apache-2.0
/// What a router tells this host about the way to one destination: an ICMP redirect, or a path MTU.
///
/// A line of a world: `icmp N FROM OWN ABOUT redirect GATEWAY` or `icmp N FROM OWN ABOUT mtu
/// BYTES`: as if the router FROM, behind the device whose other end is pN, had written to OWN about
/// a datagram from there to ABOUT. Inside is an ICMP echo reply: of those the kernel takes note
/// without a socket that has sent them (icmp_err in net/ipv4/icmp.c, icmpv6_err in
/// net/ipv6/icmp.c). Both ends are in the namespace; the device has the link-layer address
/// link_address_of(N).
#pragma once

#include <cowire/base/address.hpp>

#include <cstdint>
#include <optional>
#include <string>

namespace cowire::testing {

struct hearsay {
  std::uint32_t device = 0;  ///< N.
  ip_address from, own, about;
  std::optional<ip_address> gateway;  ///< A redirect to it; to `about` itself = it is on-link.
  std::uint32_t mtu = 0;              ///< Otherwise.

  [[nodiscard]] static std::optional<hearsay> parse(const std::string& line);
  [[nodiscard]] std::string to_string() const;
  /// The whole Ethernet frame.
  [[nodiscard]] std::string frame() const;
};

[[nodiscard]] std::string link_address_of(std::uint32_t device);

}  // namespace cowire::testing

// SPDX-License-Identifier: Apache-2.0
/// What Linux puts in front of a packet that it sends through a GRE or IP-in-IP tunnel.
///
/// A tunnel's parameters and a few facts about the packet inside decide every byte of the outer
/// headers but four fields: the outer length, the GRE checksum and, on IPv4, the header checksum
/// and identification. The rules are those of net/ipv4/ip_gre.c, ip_tunnel.c, ipip.c and
/// net/ipv6/ip6_gre.c, ip6_tunnel.c, sit.c; the tests compare with captured frames.
///
/// Plain functions over values; any thread; no allocation. Not for tunnels whose headers depend on
/// more than that: sequence numbers, UDP encapsulation.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/header_size.hpp>
#include <cowire/gre/header.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace cowire::gre {

/// What the outer IP header is followed by.
enum class carrier : std::uint8_t {
  gre,  ///< A GRE header (kinds gre, gretap, ip6gre, ip6gretap).
  ip,   ///< The inner packet itself (kinds ipip, sit, ip6tnl).
};

/// How the outer traffic class treats the inner ECN bits and what "inherit" looks like.
enum class tos_rule : std::uint8_t {
  odd_inherits,  ///< gre, gretap, ipip: an odd TOS inherits; ECN by RFC 6040.
  one_inherits,  ///< sit: only the value 1 inherits; ECN by RFC 6040.
  flag_plain,    ///< ip6gre, ip6gretap: a flag inherits the byte as it is; no ECN rule.
  flag_ecn,      ///< ip6tnl: a flag inherits; ECN by RFC 6040.
};

struct tunnel {
  ip_family outer = ip_family::v4;
  carrier carries = carrier::gre;
  bool ethernet = false;  ///< The packet inside begins with an Ethernet header.
  bool carries_ipv4 = true, carries_ipv6 = true;
  std::optional<be32> key;  ///< In every GRE header.
  bool checksum = false;    ///< Likewise.
  tos_rule tos_by = tos_rule::odd_inherits;
  std::uint8_t tos = 0;  ///< IPv6: the fixed traffic class.
  std::uint8_t ttl = 0;  ///< 0 = inherit.
  /// IPv4: DF is set if this, or (unless ignore_df) if the inner IPv4 packet has it. sit looks at
  /// this alone.
  bool pmtu_discovery = true;
  bool ignore_df = false;
  // IPv6 outer only:
  bool inherits_traffic_class = false;
  std::uint32_t flow_label = 0;  ///< Host order, 20 bits; 0 = none.
  std::optional<std::uint8_t>
      encap_limit;  ///< Tunnel encapsulation limit option (RFC 2473, 4.1.1).
  friend bool operator==(const tunnel&, const tunnel&) = default;
};

/// The packet inside, as far as outer headers depend on it.
struct inner_packet {
  ip_family family = ip_family::v4;
  std::uint8_t tos = 0;  ///< Or traffic class.
  std::uint8_t hop_limit = 64;
  bool dont_fragment = true;                ///< IPv4.
  std::optional<std::uint8_t> encap_limit;  ///< Of an option that an inner IPv6 header carries.
};

/// Everything between the outer link header and the inner packet.
struct outer_headers {
  static constexpr std::size_t size_max = header_size::ipv6 + header_size::encapsulation_limit + 12;

  std::array<std::byte, size_max> storage{};
  std::size_t size = 0;
  std::size_t gre_size = 0;  ///< Of the GRE header, which is at the end.
  /// The packet that the outer header makes: what a tunnel around this one, or the link, sees.
  inner_packet packet;

  /// Length, identification and checksums are zero.
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {storage.data(), size}; }
};

/// What the outer header's ECN bits are, for a packet inside with whatever ECN bits.
enum class ecn_rule : std::uint8_t {
  fixed,        ///< Always the same.
  copied,       ///< The packet's.
  encapsulated  ///< The packet's, but for a congestion mark, which starts anew (RFC 6040, 4.1).
};
[[nodiscard]] ecn_rule ecn_rule_of(const tunnel& through) noexcept;

/// The route of the outer packet is looked up with this TOS: ECN bits do not steer it.
[[nodiscard]] std::uint8_t routing_tos(const tunnel& through, const inner_packet& inner) noexcept;

/// What a tunnel over IPv4 takes for the packet inside when that already is a tunnel's: the driver
/// looks at the innermost IP header (`innermost`, its first 20 bytes), and reads it as if it were
/// of the family of the packet that it carries (net/ipv4/ip_tunnel.c with
/// skb_inner_network_header(), which the first encapsulation alone sets). The tunnels over IPv6,
/// and sit, look at the packet.
[[nodiscard]] inner_packet as_ip_tunnel_sees(const tunnel& through, const inner_packet& carried,
                                             const std::byte* innermost) noexcept;

/// `source` is the tunnel's local address or what the outer route chose. Empty where the kernel
/// drops: an inner packet that this kind does not carry, or whose encapsulation limit is used up.
[[nodiscard]] std::optional<outer_headers> encapsulate(const tunnel& through,
                                                       const ip_address& source,
                                                       const ip_address& remote,
                                                       const inner_packet& inner) noexcept;

}  // namespace cowire::gre

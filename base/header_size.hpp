// SPDX-License-Identifier: Apache-2.0
/// Sizes of the headers that datagrams are sent with, in bytes.
#pragma once

#include <cowire/base/address.hpp>

#include <cstddef>

namespace cowire::header_size {

inline constexpr std::size_t ethernet = 14;  ///< IEEE 802.3, without the frame check sequence.
inline constexpr std::size_t vlan_tag = 4;   ///< IEEE 802.1Q.
inline constexpr std::size_t ipv4 = 20;      ///< RFC 791, without options.
inline constexpr std::size_t ipv6 = 40;      ///< RFC 8200.
inline constexpr std::size_t udp = 8;        ///< RFC 768.
/// The IPv6 option that limits nesting, padded (RFC 2473, 4.1.1).
inline constexpr std::size_t encapsulation_limit = 8;

[[nodiscard]] constexpr std::size_t ip(ip_family family) noexcept {
  return family == ip_family::v4 ? ipv4 : ipv6;
}

}  // namespace cowire::header_size

// SPDX-License-Identifier: Apache-2.0
/// Bits of the first word of a GRE header (RFC 2784, RFC 2890), host order. The kernel gives the
/// flags of its tunnels in them, too: GRE_CSUM and its neighbours of linux/if_tunnel.h.
#pragma once

#include <cstdint>

namespace cowire::gre_flag {

inline constexpr std::uint16_t checksum = 0x8000;  ///< Over header and payload.
inline constexpr std::uint16_t routing = 0x4000;   ///< RFC 1701, obsolete.
inline constexpr std::uint16_t key = 0x2000;       ///< Tells tunnels apart.
inline constexpr std::uint16_t sequence = 0x1000;  ///< Datagrams are numbered.

}  // namespace cowire::gre_flag

// SPDX-License-Identifier: Apache-2.0
/// GRE headers on the wire: RFC 2784 with the key and sequence extensions of RFC 2890.
///
/// Plain functions over bytes. The decoder is strict: it accepts version 0 without the RFC 1701
/// routing fields, and verifies a checksum that is present. Any thread; no allocation.
///
/// Not for PPTP (version 1), and not for what a tunnel carries: the payload is opaque.
#pragma once

#include <cowire/base/address.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <system_error>

namespace cowire::gre {

inline constexpr std::uint16_t protocol_ipv4 = 0x0800;
inline constexpr std::uint16_t protocol_ipv6 = 0x86dd;
inline constexpr std::uint16_t protocol_ethernet = 0x6558;

struct header {
  std::uint16_t protocol = protocol_ipv4;  ///< EtherType of the payload, host order.
  bool checksum = false;                   ///< Covers header and payload.
  std::optional<be32> key;
  std::optional<std::uint32_t> sequence;  ///< Host order.
  friend bool operator==(const header&, const header&) noexcept = default;

  /// Bytes on the wire: 4, and 4 more for each optional field.
  [[nodiscard]] std::size_t size() const noexcept {
    return 4 + (checksum ? 4u : 0u) + (key ? 4u : 0u) + (sequence ? 4u : 0u);
  }
};

/// Largest size().
inline constexpr std::size_t header_size_max = 16;
/// Where the checksum is, if there is one.
inline constexpr std::size_t checksum_offset = 4;

/// Writes the header in front of `payload`, into `out`, which has at least size() bytes, and
/// returns size(). `payload` is read only where a checksum is asked for.
std::size_t encode(const header& value, std::span<std::byte> out,
                   std::span<const std::byte> payload) noexcept;

struct decoded {
  header value;
  std::size_t size = 0;  ///< Where the payload begins.
};

/// `packet` begins with the GRE header and ends with the payload. Errors: truncated; unsupported
/// (another version, or routing fields); malformed (reserved bits, wrong checksum).
[[nodiscard]] std::optional<decoded> decode(std::span<const std::byte> packet,
                                            std::error_code& ec) noexcept;

}  // namespace cowire::gre

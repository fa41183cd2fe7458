// SPDX-License-Identifier: Apache-2.0
/// Writes the headers of one datagram in front of its payload, without a branch.
///
/// A plain, a VLAN-tagged, an IPv6 and a tunnelled datagram all take the same instructions: copy
/// the hop's whole template, OR the destination in, patch lengths and checksums. What a hop lacks
/// lands in dead bytes below the frame's start (forwarding_table.hpp). Pure functions of their
/// arguments; any thread that owns the frame.
#pragma once

#include <cowire/base/checksum.hpp>
#include <cowire/route/forwarding_table.hpp>
#include <cowire/xdp/tx_queue.hpp>
#include <cowire/xdp/tx_request.hpp>
#include <cowire/xdp/umem.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cowire {

namespace detail {
inline void store16(std::byte* to, std::uint16_t value) noexcept {
  std::memcpy(to, &value, sizeof value);
}
}  // namespace detail

/// Writes the header_capacity bytes in front of `payload`. `request.length` is at most
/// `via.max_payload`; for a hop that diverts the result is meaningless and harmless.
inline void write_headers(std::byte* payload, const hop& via, const tx_request& request) noexcept {
  std::byte* const header = payload - header_capacity;
  std::memcpy(header, via.header, header_capacity);

  std::uint64_t place[2], destination[2];
  std::memcpy(place, via.header + destination_offset, sizeof place);
  std::memcpy(destination, request.destination.data(), sizeof destination);
  place[0] |= destination[0];
  place[1] |= destination[1];
  std::memcpy(header + destination_offset, place, sizeof place);

  const std::uint32_t length = request.length;
  const auto be = [](std::uint32_t v) {
    return be16::from_host(static_cast<std::uint16_t>(v)).raw;
  };
  const std::uint16_t ip_length = be(via.length_base + length);
  const std::uint16_t udp_length = be(8 + length);

  // The UDP length counts twice: in the pseudo header and in the header.
  const std::uint64_t udp_sum = std::uint64_t{via.udp_sum} + request.destination_sum +
                                request.payload_sum + request.source_port.raw +
                                request.destination_port.raw + udp_length + udp_length;
  const std::uint64_t ip_sum = std::uint64_t{via.ip_sum} + request.destination_sum + ip_length;

  for (const outer_header& outer : via.outer) {
    const std::uint16_t outer_length = be(outer.length_base + length);
    detail::store16(header + outer.length_offset, outer_length);
    detail::store16(header + outer.checksum_offset,
                    finish_sum(std::uint64_t{outer.sum} + outer_length));
  }
  detail::store16(header + via.length_offset, ip_length);
  detail::store16(header + via.checksum_offset, finish_sum(ip_sum));
  detail::store16(header + udp_header_offset, request.source_port.raw);
  detail::store16(header + udp_header_offset + 2, request.destination_port.raw);
  detail::store16(header + udp_header_offset + 4, udp_length);
  detail::store16(header + udp_header_offset + 6, finish_udp_sum(udp_sum));
}

/// What the device is told about it.
[[nodiscard]] inline tx_descriptor descriptor_of(const frame_memory& memory, const hop& via,
                                                 const tx_request& request) noexcept {
  return {memory.payload_address(request.frame) - via.header_length,
          static_cast<std::uint32_t>(via.header_length) + request.length, 0};
}

}  // namespace cowire

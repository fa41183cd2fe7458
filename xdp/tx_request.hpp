// SPDX-License-Identifier: Apache-2.0
/// One datagram on its way from a producer to the TX core: the frame holds the payload, this holds
/// the rest.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/checksum.hpp>
#include <cowire/route/flow.hpp>

#include <array>
#include <cstdint>

namespace cowire {

/// Index of a frame in the UMEM: its bytes are [index * frame_size, (index + 1) * frame_size).
using frame_index = std::uint32_t;

/// Stands for a flow class that no table serves (none gets this number): the kernel path has the
/// datagram, with the scope id that it alone can heed.
inline constexpr flow_class_id kernel_scope_class = 0xffff;

struct tx_request {
  frame_index frame = 0;
  flow_class_id flow_class = 0;
  ip_family family = ip_family::v4;
  std::uint8_t zero = 0;  ///< Makes one word of the two above: requests that share a trie.
  /// Network order, right-aligned: an IPv4 address is in the last four bytes and the rest is zero.
  /// As in the headers, the ports follow it.
  std::array<std::uint8_t, 16> destination{};
  be16 source_port, destination_port;
  /// Sum of `destination`; of kernel_scope_class, for which nobody makes headers, the scope id.
  std::uint32_t destination_sum = 0;
  /// What the UDP checksum covers and no hop knows: payload, destination, ports, and the length
  /// in the pseudo header.
  std::uint32_t udp_sum = 0;
  std::uint16_t length = 0;  ///< Payload bytes.
  std::uint32_t sender = 0;  ///< Who sent it: the kernel path finds the backing socket by it.
};
static_assert(sizeof(tx_request) == 44);

/// Right-aligned bytes and their sum, ready to be put in many requests. An IPv4-mapped address is
/// the IPv4 address, as it is to a socket.
struct request_destination {
  std::array<std::uint8_t, 16> bytes{};
  std::uint16_t sum = 0;
  be16 port;
  ip_family family = ip_family::v4;

  [[nodiscard]] static request_destination from(const endpoint& to) noexcept {
    const ip_address address = to.address.unmapped();
    request_destination d;
    std::memcpy(d.bytes.data() + 16 - address.size(), address.bytes().data(), address.size());
    d.sum = fold_sum(sum_bytes(std::as_bytes(std::span(d.bytes))));
    d.port = be16::from_host(to.port);
    d.family = address.family();
    return d;
  }
};

/// A request with all but its flow class and sender. `payload_sum` is folded.
[[nodiscard]] inline tx_request make_request(frame_index frame, std::size_t length,
                                             std::uint16_t payload_sum, be16 source_port,
                                             const request_destination& to) noexcept {
  const auto udp_length = be16::from_host(static_cast<std::uint16_t>(8 + length));
  tx_request request;
  request.destination = to.bytes;
  request.frame = frame;
  request.length = static_cast<std::uint16_t>(length);
  request.source_port = source_port;
  request.destination_port = to.port;
  request.destination_sum = to.sum;
  request.udp_sum =
      std::uint32_t{payload_sum} + to.sum + source_port.raw + to.port.raw + udp_length.raw;
  request.family = to.family;
  return request;
}

/// The scope id that the kernel path must name; 0 where the sender's own will do.
[[nodiscard]] inline std::uint32_t kernel_scope(const tx_request& request) noexcept {
  return request.flow_class == kernel_scope_class ? request.destination_sum : 0;
}
/// Leaves a request to the kernel path, with a scope id (not 0).
inline void leave_to_kernel(tx_request& request, std::uint32_t scope_id) noexcept {
  request.flow_class = kernel_scope_class;
  request.destination_sum = scope_id;
}

/// The destination of a request as an address.
[[nodiscard]] inline ip_address destination_of(const tx_request& request) noexcept {
  const std::size_t size = request.family == ip_family::v4 ? 4 : 16;
  return ip_address::from_bytes(request.family, request.destination.data() + 16 - size);
}

/// The destination of a request with port and scope id, as the kernel path names it.
[[nodiscard]] inline endpoint endpoint_of(const tx_request& request) noexcept {
  return {destination_of(request), request.destination_port.host(), kernel_scope(request)};
}

}  // namespace cowire

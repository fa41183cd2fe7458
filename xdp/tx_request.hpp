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

struct tx_request {
  frame_index frame = 0;
  flow_class_id flow_class = 0;
  ip_family family = ip_family::v4;
  std::uint8_t zero = 0;  ///< Makes one word of the two above: requests that share a trie.
  /// Network order, right-aligned: an IPv4 address is in the last four bytes and the rest is zero.
  /// As in the headers, the ports follow it.
  std::array<std::uint8_t, 16> destination{};
  be16 source_port, destination_port;
  std::uint32_t destination_sum = 0;  ///< Sum of `destination`.
  /// What the UDP checksum covers and no hop knows: payload, destination, ports, and the length
  /// in the pseudo header.
  std::uint32_t udp_sum = 0;
  std::uint16_t length = 0;  ///< Payload bytes.
  std::uint32_t sender = 0;  ///< Who sent it: the kernel path finds the backing socket by it.
};
static_assert(sizeof(tx_request) == 44);

/// Right-aligned bytes and their sum, ready to be put in many requests.
struct request_destination {
  std::array<std::uint8_t, 16> bytes{};
  std::uint16_t sum = 0;
  be16 port;
  ip_family family = ip_family::v4;

  [[nodiscard]] static request_destination from(const endpoint& to) noexcept {
    request_destination d;
    std::memcpy(d.bytes.data() + 16 - to.address.size(), to.address.bytes().data(),
                to.address.size());
    d.sum = fold_sum(sum_bytes(std::as_bytes(std::span(d.bytes))));
    d.port = be16::from_host(to.port);
    d.family = to.address.family();
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

/// The destination of a request as an address.
[[nodiscard]] inline ip_address destination_of(const tx_request& request) noexcept {
  const std::size_t size = request.family == ip_family::v4 ? 4 : 16;
  return ip_address::from_bytes(request.family, request.destination.data() + 16 - size);
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// One datagram on its way from a producer to the TX core: the frame holds the payload, this holds
/// the rest.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/checksum.hpp>
#include <cowire/base/reason.hpp>
#include <cowire/route/flow.hpp>

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

namespace cowire {

/// Index of a frame in the UMEM: its bytes are [index * frame_size, (index + 1) * frame_size).
using frame_index = std::uint32_t;

/// Stand for flow classes that no table serves (none gets these numbers): the kernel path has the
/// datagram, for a reason of its own (below).
/// With a scope id that the kernel alone can heed.
inline constexpr flow_class_id kernel_scope_class = 0xffff;
/// With choices of its own (datagram_options.hpp), of which no class was compiled yet, or may be.
inline constexpr flow_class_id new_class = 0xfffe;
/// The same, where there are as many as may be.
inline constexpr flow_class_id class_limit_class = 0xfffd;
/// All from here on are such.
inline constexpr flow_class_id first_without_table = class_limit_class;
static_assert(first_without_table >= flow_classes_max);

/// Why the kernel path has what no table serves.
[[nodiscard]] inline divert_reason reason_without_table(flow_class_id id) noexcept {
  switch (id) {
    case kernel_scope_class:
      return divert_reason::scoped_destination;
    case new_class:
      return divert_reason::new_flow_class;
    case class_limit_class:
      return divert_reason::flow_class_limit;
    default:
      return divert_reason::no_table;
  }
}

/// One cache line. The groups of members are laid out as they are used.
struct tx_request {
  // As a descriptor of the payload alone: a hop adds its headers to both (hop::descriptor_shift).
  std::uint64_t address = 0;  ///< Of the payload (frame_memory::payload_address).
  std::uint32_t length = 0;   ///< Payload bytes, below; and above, with_ecn() of a datagram's own.
  std::uint32_t options = 0;

  // 32 bytes that lie as the end of an IP header and the start of a UDP header do, and as what the
  // core remembers a flow by.
  frame_index frame = 0;
  flow_class_id flow_class = 0;
  ip_family family = ip_family::v4;
  std::uint8_t zero = 0;  ///< Makes one word of the two above: requests that share a trie.
  /// Network order, right-aligned: an IPv4 address is in the last four bytes and the rest is zero.
  std::array<std::uint8_t, 16> destination{};
  be16 source_port, destination_port;
  /// Who sent it: the kernel path finds the backing socket by it. And chosen_bit, probe_bit.
  std::uint32_t sender = 0;

  /// Sum of `destination`; of kernel_scope_class, for which nobody makes headers, the scope id.
  std::uint32_t destination_sum = 0;
  /// What the UDP checksum covers and no hop knows: payload, destination, ports, and the length
  /// in the pseudo header.
  std::uint32_t udp_sum = 0;
  /// Two hashes of class, destination and ports: where the core keeps what it knows of a flow, and
  /// by which it finds it there. Any functions of these are right, and such that spread well fast.
  std::uint32_t flow_hash = 0, flow_tag = 0;
};
static_assert(sizeof(tx_request) == 64);

/// Right-aligned bytes, their sum and a hash, ready to be put in many requests. An IPv4-mapped
/// address is the IPv4 address, as it is to a socket.
struct request_destination {
  std::array<std::uint8_t, 16> bytes{};
  std::uint16_t sum = 0;
  be16 port;
  ip_family family = ip_family::v4;
  std::uint64_t hash = 0;

  [[nodiscard]] static request_destination from(const endpoint& to) noexcept {
    const std::uint8_t* const bytes = to.address.bytes().data();
    if (to.address.is_v4()) return of_v4(bytes, to.port);
    if (to.address.is_v4_mapped()) [[unlikely]]
      return of_v4(bytes + 12, to.port);
    std::array<std::uint64_t, 2> words;
    std::memcpy(words.data(), bytes, sizeof words);
    return {words, ip_family::v6, to.port};
  }

 private:
  // Everything is made of two words in registers: a look at bytes that were stored just now, by
  // smaller stores, would wait for these.
  request_destination(const std::array<std::uint64_t, 2>& words, ip_family of,
                      std::uint16_t host_port) noexcept
      : bytes(std::bit_cast<std::array<std::uint8_t, 16>>(words)),
        sum(fold_sum((words[0] & 0xffffffffu) + (words[0] >> 32) + (words[1] & 0xffffffffu) +
                     (words[1] >> 32))),
        port(be16::from_host(host_port)),
        family(of),
        hash(hash_of(words, port)) {}
  [[nodiscard]] static request_destination of_v4(const std::uint8_t* last_bytes,
                                                 std::uint16_t host_port) noexcept {
    std::uint32_t last;
    std::memcpy(&last, last_bytes, sizeof last);
    constexpr unsigned up = std::endian::native == std::endian::little ? 32 : 0;
    return {{0, std::uint64_t{last} << up}, ip_family::v4, host_port};
  }

  /// Two multiplications by odd numbers without a pattern; the upper half is the better one.
  [[nodiscard]] static std::uint64_t hash_of(const std::array<std::uint64_t, 2>& words,
                                             be16 port) noexcept {
    const std::uint64_t mixed = (words[0] ^ words[0] >> 32) * 0x9e3779b97f4a7c15u + words[1];
    return (mixed ^ mixed >> 32 ^ std::uint64_t{port.raw} << 16) * 0xd6e8feb86659fd93u;
  }
};

/// Where a payload lies.
struct payload_place {
  frame_index frame = 0;
  std::uint64_t address = 0;  ///< frame_memory::payload_address of it.
};

/// A request with all but its sender. `payload_sum` is folded.
[[nodiscard]] inline tx_request make_request(const payload_place& at, std::size_t length,
                                             std::uint16_t payload_sum, be16 source_port,
                                             const request_destination& to,
                                             flow_class_id flow_class) noexcept {
  const auto udp_length = be16::from_host(static_cast<std::uint16_t>(8 + length));
  tx_request request;
  request.address = at.address;
  request.length = static_cast<std::uint32_t>(length);
  request.frame = at.frame;
  request.flow_class = flow_class;
  request.family = to.family;
  request.destination = to.bytes;
  request.source_port = source_port;
  request.destination_port = to.port;
  request.destination_sum = to.sum;
  request.udp_sum =
      std::uint32_t{payload_sum} + to.sum + source_port.raw + to.port.raw + udp_length.raw;
  const std::uint32_t of_sender = (source_port.raw | std::uint32_t{flow_class} << 16) * 0x9e3779b1u;
  request.flow_hash = static_cast<std::uint32_t>(to.hash >> 32) ^ of_sender;
  request.flow_tag = static_cast<std::uint32_t>(to.hash) ^ of_sender;
  return request;
}

/// Of tx_request::sender: the producer keeps choices of the datagram's own, by its frame.
inline constexpr std::uint32_t chosen_bit = 0x80000000u;
/// Likewise: it may be longer than the path MTU, which a hop knows, up to the device's, which it
/// does not. What fits is sent like any other: DF is set in all headers that the core writes.
inline constexpr std::uint32_t probe_bit = 0x40000000u;

[[nodiscard]] inline std::uint32_t sender_id(const tx_request& request) noexcept {
  return request.sender & ~(chosen_bit | probe_bit);
}
[[nodiscard]] inline bool is_probe(const tx_request& request) noexcept {
  return (request.sender & probe_bit) != 0;
}

/// Gives a request an ECN codepoint other than its class's. In the uppermost byte of the length it
/// has the writer's loop ask for a second pass, whatever the hop, and costs others nothing
/// (xdp/detail/run_writer.cpp).
inline void with_ecn(tx_request& request, unsigned codepoint) noexcept {
  request.length |= (0x80 | codepoint) << 24;
}
[[nodiscard]] inline bool has_ecn(const tx_request& request) noexcept {
  return request.length >> 31 != 0;
}
[[nodiscard]] inline unsigned ecn_of(const tx_request& request) noexcept {
  return request.length >> 24 & 3;
}
[[nodiscard]] inline std::uint32_t payload_size(const tx_request& request) noexcept {
  return request.length & 0xffff;
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

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

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cowire {

namespace detail {

// Vectors as gcc and clang know them: whatever the processor's registers hold, and the compiler
// splits what they do not.
using header_block = std::uint64_t __attribute__((vector_size(32)));
using lanes64 = std::uint64_t __attribute__((vector_size(16)));
using lanes32 = std::uint32_t __attribute__((vector_size(16)));
using lanes16 = std::uint16_t __attribute__((vector_size(16)));

template <class T>
[[nodiscard, gnu::always_inline]] inline T load(const void* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T>
[[gnu::always_inline]] inline void store(std::byte* to, T value) noexcept {
  std::memcpy(to, &value, sizeof value);
}

[[gnu::always_inline]] inline void copy_block(std::byte* to, const std::byte* from) noexcept {
  header_block block;
  std::memcpy(&block, from, sizeof block);
  std::memcpy(to, &block, sizeof block);
}

// One lane for each header that carries a length and a checksum: IP, UDP, and two outer IP headers.
static_assert(outer_headers_max == 2);
static_assert(offsetof(hop, udp_sum) == offsetof(hop, ip_sum) + 4 &&
              offsetof(hop, outer_sum) == offsetof(hop, ip_sum) + 8);
static_assert(offsetof(hop, udp_length_base) == offsetof(hop, length_base) + 2 &&
              offsetof(hop, outer_length_base) == offsetof(hop, length_base) + 4);
static_assert(offsetof(tx_request, udp_sum) == offsetof(tx_request, destination_sum) + 4);
static_assert(offsetof(tx_request, destination_port) == offsetof(tx_request, source_port) + 2);

/// The lengths in network order.
[[nodiscard, gnu::always_inline]] inline lanes16 lengths_of(const hop& via,
                                                            std::uint16_t length) noexcept {
  const auto base = std::bit_cast<lanes16>(lanes64{load<std::uint64_t>(&via.length_base), 0});
  const lanes16 host =
      base + lanes16{length, length, length, length, length, length, length, length};
  return host << 8 | host >> 8;
}

/// The checksums, each in the upper half of its lane of 32 bits.
[[nodiscard, gnu::always_inline]] inline lanes16 checksums_of(const hop& via,
                                                              const tx_request& request,
                                                              lanes16 lengths) noexcept {
  const auto of_lengths =
      std::bit_cast<lanes32>(__builtin_shufflevector(lengths, lanes16{}, 0, 8, 1, 9, 2, 10, 3, 11));
  const auto of_request =
      std::bit_cast<lanes32>(lanes64{load<std::uint64_t>(&request.destination_sum), 0});
  // UDP sends a computed 0 as 0xffff (RFC 768). Of a sum that is one too large the negative is the
  // complement of the right one, except that it is 0xffff where that is 0.
  const auto sum = std::bit_cast<lanes16>(load<lanes32>(&via.ip_sum) + of_lengths + of_request +
                                          lanes32{0, 1, 0, 0});
  // Ones' complement: the upper half of a sum and its halves exchanged is both halves added, and
  // the carry.
  const lanes16 exchanged = __builtin_shufflevector(sum, sum, 1, 0, 3, 2, 5, 4, 7, 6);
  const auto folded =
      std::bit_cast<lanes16>(std::bit_cast<lanes32>(sum) + std::bit_cast<lanes32>(exchanged));
  return lanes16{0, 0xffff, 0, 0, 0, 0xffff, 0, 0xffff} - folded;
}

}  // namespace detail

/// Writes the header_capacity bytes in front of `payload`. `request.length` is at most
/// `via.max_payload`; for a hop that diverts the result is meaningless and harmless.
[[gnu::always_inline]] inline void write_headers(std::byte* payload, const hop& via,
                                                 const tx_request& request) noexcept {
  using namespace detail;
  std::byte* const header = payload - header_capacity;
  const lanes16 lengths = lengths_of(via, request.length);
  const lanes16 checksums = checksums_of(via, request, lengths);
  for (std::size_t at = 0; at < header_capacity; at += sizeof(header_block))
    copy_block(header + at, via.header + at);
  store(header + destination_offset,
        load<lanes64>(via.header + destination_offset) | load<lanes64>(request.destination.data()));
  store(header + udp_header_offset, load<std::uint32_t>(&request.source_port));
  store<std::uint16_t>(header + udp_header_offset + 4, lengths[1]);
  store<std::uint16_t>(header + via.outer_length_offset[0], lengths[2]);
  store<std::uint16_t>(header + via.outer_checksum_offset[0], checksums[5]);
  store<std::uint16_t>(header + via.outer_length_offset[1], lengths[3]);
  store<std::uint16_t>(header + via.outer_checksum_offset[1], checksums[7]);
  store<std::uint16_t>(header + via.length_offset, lengths[0]);
  store<std::uint16_t>(header + via.checksum_offset, checksums[1]);
  store<std::uint16_t>(header + udp_header_offset + 6, checksums[3]);
}

/// What the device is told about it.
[[nodiscard, gnu::always_inline]] inline tx_descriptor descriptor_of(
    std::uint64_t payload_address, const hop& via, std::uint32_t length) noexcept {
  return {payload_address - via.header_length, via.header_length + length, 0};
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// Writes the headers of one datagram in front of its payload, without a branch.
///
/// A plain, a VLAN-tagged, an IPv6 and a tunnelled datagram all take the same instructions: compute
/// the fields, then template + fields + destination + ports. Where a field goes, and whether it
/// goes anywhere, is data of the hop (forwarding_table.hpp). Pure functions of their arguments; any
/// thread that owns the frame.
#pragma once

#include <cowire/base/checksum.hpp>
#include <cowire/route/forwarding_table.hpp>
#include <cowire/xdp/tx_queue.hpp>
#include <cowire/xdp/tx_request.hpp>
#include <cowire/xdp/umem.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace cowire {

namespace detail {

// Vectors as gcc and clang know them: the compiler splits what the processor does not have.
using lanes64 = std::uint64_t __attribute__((vector_size(16)));
using lanes32 = std::uint32_t __attribute__((vector_size(16)));
using lanes16 = std::uint16_t __attribute__((vector_size(16)));
using lanes8 = std::uint8_t __attribute__((vector_size(16)));

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

#if defined(__x86_64__)
__attribute__((always_inline, target("avx2"))) inline __m256i block_at(const void* from) noexcept {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
#endif

// A lane of 32 bits for each pair.
static_assert(hop::pair_count == 4);
static_assert(offsetof(tx_request, udp_sum) == offsetof(tx_request, destination_sum) + 4);

/// The fields of a datagram (hop::field_at).
[[nodiscard, gnu::always_inline]] inline lanes16 fields_of(const hop& via,
                                                           const tx_request& request) noexcept {
  const std::uint16_t payload = request.length;
  // Loads more than the lengths' bases; the upper half is not used.
  const auto host = std::bit_cast<lanes8>(
      load<lanes16>(via.length_base) +
      lanes16{payload, payload, payload, payload, payload, payload, payload, payload});
  // In network order, each in the lower half of its lane.
  const auto lengths = std::bit_cast<lanes16>(__builtin_shufflevector(
      host, lanes8{}, 1, 0, 16, 16, 3, 2, 16, 16, 5, 4, 16, 16, 7, 6, 16, 16));
  const auto of_request =
      std::bit_cast<lanes32>(lanes64{load<std::uint64_t>(&request.destination_sum), 0});
  const auto sum =
      std::bit_cast<lanes16>(load<lanes32>(via.sum) + std::bit_cast<lanes32>(lengths) + of_request);
  // Ones' complement: the upper half of a sum and its halves exchanged is both halves added, and
  // the carry.
  const lanes16 exchanged = __builtin_shufflevector(sum, sum, 1, 0, 3, 2, 5, 4, 7, 6);
  const auto folded =
      std::bit_cast<lanes16>(std::bit_cast<lanes32>(sum) + std::bit_cast<lanes32>(exchanged));
  // UDP sends a computed 0 as 0xffff (RFC 768). Of a sum that is one too large the negative is the
  // complement of the right one, except that it is 0xffff where that is 0.
  const lanes16 checksums = lanes16{0, 0xffff, 0, 0, 0, 0xffff, 0, 0xffff} - folded;
  return __builtin_shufflevector(lengths, checksums, 0, 9, 2, 11, 4, 13, 6, 15);
}

}  // namespace detail

/// Writes the header_capacity bytes in front of `payload`. `request.length` is at most
/// `via.max_payload`; for a hop that diverts the result is meaningless and harmless.
inline void write_headers(std::byte* payload, const hop& via, const tx_request& request) noexcept {
  using namespace detail;
  std::byte* const header = payload - header_capacity;
  const auto fields = std::bit_cast<std::array<std::byte, 16>>(fields_of(via, request));
  for (std::size_t at = 0; at < header_capacity; ++at) {
    const std::uint8_t field = via.field_at[at];
    header[at] = via.header[at] | (field == no_field ? std::byte{0} : fields[field]);
  }
  for (std::size_t i = 0; i < request.destination.size(); ++i)
    header[destination_offset + i] |= std::byte{request.destination[i]};
  store(header + udp_header_offset, request.source_port);
  store(header + udp_header_offset + 2, request.destination_port);
}

#if defined(__x86_64__)
/// The same for processors that have AVX2.
__attribute__((always_inline, target("avx2"))) inline void write_headers_avx2(
    std::byte* payload, const hop& via, const tx_request& request) noexcept {
  using namespace detail;
  constexpr std::size_t block_size = sizeof(__m256i);
  const __m256i fields =
      _mm256_broadcastsi128_si256(std::bit_cast<__m128i>(fields_of(via, request)));
  // The destination and the ports lie in the request as in the last block.
  static_assert(destination_offset - (header_capacity - block_size) ==
                    offsetof(tx_request, destination) &&
                offsetof(tx_request, source_port) == offsetof(tx_request, destination) + 16 &&
                offsetof(tx_request, destination_port) == offsetof(tx_request, source_port) + 2 &&
                sizeof(tx_request) >= block_size);
  const __m256i of_request =
      _mm256_and_si256(block_at(&request), _mm256_set_epi64x(0xffffffff, -1, -1, 0));
  std::byte* const header = payload - header_capacity;
  for (std::size_t at = 0; at < header_capacity; at += block_size) {
    const bool last = at + block_size == header_capacity;
    __m256i block = _mm256_or_si256(block_at(via.header + at),
                                    _mm256_shuffle_epi8(fields, block_at(via.field_at + at)));
    if (last) block = _mm256_or_si256(block, of_request);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(header + at), block);
  }
}
#endif

/// Writes the checksums of GRE headers, where the hop has such, into headers that are complete but
/// for those.
inline void write_gre_checksums(std::byte* payload, const hop& via,
                                const tx_request& request) noexcept {
  for (std::size_t i = 0; i < via.gre_checksum_count; ++i) {
    const gre_checksum& checksum = via.gre_checksums[i];
    std::uint64_t sum = checksum.sum;
    if (checksum.without_pseudo_header) {
      const auto udp_length = be16::from_host(static_cast<std::uint16_t>(8 + request.length));
      sum += std::uint32_t{0xffff} - fold_sum(request.destination_sum);
      sum += std::uint32_t{0xffff} - udp_length.raw;
    }
    detail::store(payload - header_capacity + checksum.offset, finish_sum(sum));
  }
}

/// What the device is told about it.
[[nodiscard, gnu::always_inline]] inline tx_descriptor descriptor_of(
    std::uint64_t payload_address, const hop& via, std::uint32_t length) noexcept {
  return {payload_address - via.header_length, via.header_length + length, 0};
}

}  // namespace cowire

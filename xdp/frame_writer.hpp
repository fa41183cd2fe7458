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
#include <span>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
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
  const auto payload = static_cast<std::uint16_t>(request.length);
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

/// Writes the hop::near_capacity bytes in front of `payload`: all headers of nearly all hops.
/// payload_size() is at most `via.max_payload`; for a hop that diverts the result is meaningless
/// and harmless.
inline void write_headers(std::byte* payload, const hop& via, const tx_request& request) noexcept {
  using namespace detail;
  std::byte* const header = payload - header_capacity;
  const auto fields = std::bit_cast<std::array<std::byte, 16>>(fields_of(via, request));
  for (std::size_t at = header_capacity - hop::near_capacity; at < header_capacity; ++at) {
    const std::uint8_t field = via.field_at[at];
    header[at] = via.header[at] | (field == no_field ? std::byte{0} : fields[field]);
  }
  for (std::size_t i = 0; i < request.destination.size(); ++i)
    header[destination_offset + i] |= std::byte{request.destination[i]};
  store(header + udp_header_offset, request.source_port);
  store(header + udp_header_offset + 2, request.destination_port);
}

/// Writes what write_headers() leaves out, of hops with hop::long_headers.
inline void write_long_headers(std::byte* payload, const hop& via,
                               const tx_request& request) noexcept {
  std::byte* const header = payload - header_capacity;
  const auto fields = std::bit_cast<std::array<std::byte, 16>>(detail::fields_of(via, request));
  for (std::size_t at = 0; at < header_capacity - hop::near_capacity; ++at) {
    const std::uint8_t field = via.field_at[at];
    header[at] = via.header[at] | (field == no_field ? std::byte{0} : fields[field]);
  }
}

// The last 32 bytes of the headers, as they lie in a request behind `frame`: destination and ports.
static_assert(hop::near_capacity % 32 == 0);
static_assert(offsetof(tx_request, destination) - offsetof(tx_request, frame) ==
                  destination_offset - (header_capacity - 32) &&
              offsetof(tx_request, source_port) == offsetof(tx_request, destination) + 16 &&
              offsetof(tx_request, destination_port) == offsetof(tx_request, source_port) + 2 &&
              offsetof(tx_request, sender) == offsetof(tx_request, destination_port) + 2);

#if defined(__aarch64__)
/// The same as write_headers() with NEON, which every such processor has.
inline void write_headers_neon(std::byte* payload, const hop& via,
                               const tx_request& request) noexcept {
  using namespace detail;
  constexpr std::size_t block_size = sizeof(uint8x16_t);
  const auto bytes_at = [](const void* from) {
    return vld1q_u8(static_cast<const std::uint8_t*>(from));
  };
  const auto fields = std::bit_cast<uint8x16_t>(fields_of(via, request));
  const auto* const of_request = reinterpret_cast<const std::byte*>(&request.frame);
  std::byte* const header = payload - header_capacity;
  for (std::size_t at = header_capacity - hop::near_capacity; at < header_capacity;
       at += block_size) {
    // An index beyond the fields, as no_field is, gives 0.
    uint8x16_t block =
        vorrq_u8(bytes_at(via.header + at), vqtbl1q_u8(fields, bytes_at(via.field_at + at)));
    if (at == header_capacity - 2 * block_size) {
      const uint8x16_t mask = vcombine_u8(vdup_n_u8(0), vdup_n_u8(0xff));
      block = vorrq_u8(block, vandq_u8(bytes_at(of_request), mask));
    } else if (at == header_capacity - block_size) {
      const uint8x16_t mask = vreinterpretq_u8_u32(uint32x4_t{~0u, ~0u, ~0u, 0});
      block = vorrq_u8(block, vandq_u8(bytes_at(of_request + block_size), mask));
    }
    vst1q_u8(reinterpret_cast<std::uint8_t*>(header + at), block);
  }
}
#endif

#if defined(__x86_64__)
/// The same as write_headers() for processors that have AVX2.
__attribute__((always_inline, target("avx2"))) inline void write_headers_avx2(
    std::byte* payload, const hop& via, const tx_request& request) noexcept {
  using namespace detail;
  constexpr std::size_t block_size = sizeof(__m256i);
  // As fields_of(), of which the compiler makes more.
  const __m128i host = _mm_add_epi16(_mm_set1_epi16(static_cast<short>(request.length)),
                                     load<__m128i>(via.length_base));
  const __m128i lengths =
      _mm_shuffle_epi8(host, _mm_setr_epi8(1, 0, -1, -1, 3, 2, -1, -1, 5, 4, -1, -1, 7, 6, -1, -1));
  const __m128i of_request =
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(&request.destination_sum));
  const __m128i sum = _mm_add_epi32(_mm_add_epi32(of_request, load<__m128i>(via.sum)), lengths);
  const __m128i exchanged =
      _mm_shuffle_epi8(sum, _mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  const __m128i checksums =
      _mm_sub_epi16(_mm_setr_epi16(0, -1, 0, 0, 0, -1, 0, -1), _mm_add_epi32(sum, exchanged));
  const __m256i fields = _mm256_broadcastsi128_si256(_mm_blend_epi16(lengths, checksums, 0xaa));
  const __m256i last_of_request =
      _mm256_and_si256(block_at(&request.frame), _mm256_set_epi64x(0xffffffff, -1, -1, 0));
  std::byte* const header = payload - header_capacity;
  for (std::size_t at = header_capacity - hop::near_capacity; at < header_capacity;
       at += block_size) {
    __m256i block = _mm256_or_si256(block_at(via.header + at),
                                    _mm256_shuffle_epi8(fields, block_at(via.field_at + at)));
    if (at + block_size == header_capacity) block = _mm256_or_si256(block, last_of_request);
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
    if (checksum.with_length)
      sum += be16::from_host(static_cast<std::uint16_t>(request.length)).raw;
    detail::store(payload - header_capacity + checksum.offset, finish_sum(sum));
  }
}

/// Writes what differs between the MAC addresses of groups (RFC 1112, 6.4; RFC 2464, 7).
inline void write_group_mac(std::byte* payload, const hop& via,
                            const tx_request& request) noexcept {
  std::byte* const mac = payload - header_capacity + via.group_mac_at;
  const auto last_of_group = std::as_bytes(std::span(request.destination)).last(4);
  if (request.family == ip_family::v6) {
    std::memcpy(mac + 2, last_of_group.data(), 4);
  } else {
    mac[3] = last_of_group[1] & std::byte{0x7f};
    std::memcpy(mac + 4, last_of_group.data() + 2, 2);
  }
}

/// Writes what the second pass is for, where the hop has such. Without it the frame is complete.
inline void write_second_pass(std::byte* payload, const hop& via,
                              const tx_request& request) noexcept {
  if ((via.second_pass & hop::long_headers) != 0) write_long_headers(payload, via, request);
  write_gre_checksums(payload, via, request);
  if ((via.second_pass & hop::with_group_mac) != 0) write_group_mac(payload, via, request);
}

namespace detail {

/// Replaces the ECN bits of an IP header, and mends the checksums that cover them (RFC 1624, eqn.
/// 3): its own, or, of IPv6, that of the next GRE header in front. An IPv4 header adds up to the
/// same as before with its checksum.
inline void replace_ecn(std::byte* header, std::size_t ip, unsigned codepoint,
                        const hop& via) noexcept {
  const auto mend = [](std::byte* checksum, std::uint16_t before, std::uint16_t after) {
    const std::uint32_t sum =
        std::uint32_t{0xffff} - load<std::uint16_t>(checksum) + 0xffffu - before + after;
    store(checksum, finish_sum(sum));
  };
  const bool v4 = std::to_integer<unsigned>(header[ip]) >> 4 == 4;
  const unsigned shift = v4 ? 0 : 4;  // The flow label begins in the same byte.
  const auto before = load<std::uint16_t>(header + ip);
  header[ip + 1] = (header[ip + 1] & ~std::byte{static_cast<std::uint8_t>(3u << shift)}) |
                   std::byte{static_cast<std::uint8_t>(codepoint << shift)};
  const auto after = load<std::uint16_t>(header + ip);
  if (v4) return mend(header + ip + 10, before, after);
  // From the inside: with the next one all that is behind it adds up to the same as before.
  for (std::size_t i = 0; i < via.gre_checksum_count; ++i)
    if (via.gre_checksums[i].offset < ip)
      return mend(header + via.gre_checksums[i].offset, before, after);
}

}  // namespace detail

/// Gives headers that are complete the ECN codepoint that the request names, has_ecn() be true.
inline void write_ecn(std::byte* payload, const hop& via, const tx_request& request) noexcept {
  if (via.header_length == 0) return;  // It diverts.
  std::byte* const header = payload - header_capacity;
  const unsigned ecn = ecn_of(request);
  constexpr unsigned congestion_experienced = 3, ecn_capable_0 = 2;
  const std::size_t own = udp_header_offset - (request.family == ip_family::v4 ? 20 : 40);
  detail::replace_ecn(header, own, ecn, via);
  for (const std::uint8_t at : via.ecn_at) {
    if (at == 0) return;
    const bool copied = (at & hop::ecn_copied) != 0 || ecn != congestion_experienced;
    detail::replace_ecn(header, at & ~unsigned{hop::ecn_copied}, copied ? ecn : ecn_capable_0, via);
  }
}

/// What the device is told about it. With the marks in the length, of which the second pass clears
/// it.
[[nodiscard, gnu::always_inline]] inline tx_descriptor descriptor_of(
    const hop& via, const tx_request& request) noexcept {
  return {request.address - via.header_length, via.header_length + request.length, 0};
}

#if defined(__x86_64__)
/// The same for processors that have AVX2. In 32 bits: no payload lies so near behind a multiple of
/// 4 GiB that its headers would begin before that.
__attribute__((always_inline, target("avx2"))) inline void describe_avx2(
    tx_descriptor* to, const hop& via, const tx_request& request) noexcept {
  static_assert(offsetof(tx_request, address) == offsetof(tx_descriptor, address) &&
                offsetof(tx_request, length) == offsetof(tx_descriptor, length) &&
                offsetof(tx_request, options) == offsetof(tx_descriptor, options));
  static_assert(payload_offset >= header_capacity);
  const __m128i shift =
      _mm_cvtepu32_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(via.descriptor_shift)));
  const __m128i of_payload = _mm_loadu_si128(reinterpret_cast<const __m128i*>(&request.address));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_add_epi32(shift, of_payload));
}
#endif

}  // namespace cowire

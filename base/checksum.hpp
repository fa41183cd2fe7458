// SPDX-License-Identifier: Apache-2.0
/// The Internet checksum (RFC 1071) in pieces, so that a header template can carry the sum of what
/// never changes.
///
/// Sums are over 16-bit words as they lie in memory (network order bytes loaded natively): ones'
/// complement addition is indifferent to byte order (RFC 1071, section 2B), so results can be
/// stored back natively too. A sum is not folded: add sums of parts that begin at even offsets,
/// then fold once. Two unfolded sums of the same bytes may differ and still fold to the same value.
///
/// Any thread; nothing here allocates or fails.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace cowire {

/// Folds a sum of 16-bit words to 16 bits, not complemented.
[[nodiscard]] constexpr std::uint16_t fold_sum(std::uint64_t sum) noexcept {
  sum = (sum & 0xffffffffu) + (sum >> 32);
  sum = (sum & 0xffffu) + (sum >> 16);
  sum = (sum & 0xffffu) + (sum >> 16);
  sum = (sum & 0xffffu) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

/// Folded and complemented: what an IPv4 header checksum field holds.
[[nodiscard]] constexpr std::uint16_t finish_sum(std::uint64_t sum) noexcept {
  return static_cast<std::uint16_t>(~fold_sum(sum));
}

/// As finish_sum, with UDP's rule that a computed 0 is sent as 0xffff (RFC 768).
[[nodiscard]] constexpr std::uint16_t finish_udp_sum(std::uint64_t sum) noexcept {
  const std::uint16_t value = finish_sum(sum);
  return value == 0 ? std::uint16_t{0xffff} : value;
}

namespace detail {
/// sum_bytes for any size, worth its call from 64 bytes on.
[[nodiscard]] std::uint64_t sum_long(const std::byte* from, std::size_t size) noexcept;
/// What sums are compiled for, to be compared: all give the same sum, folded. portable_wide is what
/// avx512 does, without its instructions.
enum class checksum_code : std::uint8_t { portable, portable_wide, avx2, avx512 };
/// Whether this processor has it; the others must not be used.
[[nodiscard]] bool has_code(checksum_code code) noexcept;
[[nodiscard]] std::uint64_t sum_with(checksum_code code, std::span<const std::byte> from) noexcept;
[[nodiscard]] std::uint64_t copy_and_sum_with(checksum_code code, std::byte* to,
                                              std::span<const std::byte> from) noexcept;
}  // namespace detail

/// Sum of the 16-bit words of `bytes`; an odd last byte is padded with zero.
[[nodiscard]] inline std::uint64_t sum_bytes(std::span<const std::byte> bytes) noexcept {
  const std::byte* p = bytes.data();
  std::size_t left = bytes.size();
  if (left >= 64) return detail::sum_long(p, left);
  std::uint64_t sum = 0;
  for (; left >= 4; p += 4, left -= 4) {
    std::uint32_t word;
    std::memcpy(&word, p, sizeof word);
    sum += word;
  }
  if (left != 0) {
    std::uint32_t word = 0;
    std::memcpy(&word, p, left);
    sum += word;
  }
  return sum;
}

/// Copies and sums in one pass: what a producer does when the payload is not written in place.
/// `to` and `from` do not overlap. Returns the sum as sum_bytes does.
[[nodiscard]] std::uint64_t copy_and_sum(std::byte* to, std::span<const std::byte> from) noexcept;

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// The Internet checksum (RFC 1071) in pieces, so that a header template can carry the sum of what
/// never changes.
///
/// Sums are over 16-bit words as they lie in memory (network order bytes loaded natively): ones'
/// complement addition is indifferent to byte order (RFC 1071, section 2B), so results can be
/// stored back natively too.
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

/// Sum of the 16-bit words of `bytes`; an odd last byte is padded with zero. Not folded: add sums,
/// then fold once.
[[nodiscard]] inline std::uint64_t sum_bytes(std::span<const std::byte> bytes) noexcept {
  std::uint64_t sum = 0;
  const std::byte* p = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 8; p += 8, left -= 8) {
    std::uint32_t a, b;
    std::memcpy(&a, p, 4);
    std::memcpy(&b, p + 4, 4);
    sum += std::uint64_t{a} + b;
  }
  std::byte tail[8] = {};
  std::memcpy(tail, p, left);
  std::uint32_t a, b;
  std::memcpy(&a, tail, 4);
  std::memcpy(&b, tail + 4, 4);
  return sum + a + b;
}

/// Copies and sums in one pass: what a producer does when the payload is not written in place.
/// `to` and `from` do not overlap. Returns the sum as sum_bytes does.
[[nodiscard]] inline std::uint64_t copy_and_sum(std::byte* to,
                                                std::span<const std::byte> from) noexcept {
  std::uint64_t sum = 0;
  const std::byte* p = from.data();
  std::size_t left = from.size();
  for (; left >= 8; p += 8, to += 8, left -= 8) {
    std::uint32_t a, b;
    std::memcpy(&a, p, 4);
    std::memcpy(&b, p + 4, 4);
    std::memcpy(to, &a, 4);
    std::memcpy(to + 4, &b, 4);
    sum += std::uint64_t{a} + b;
  }
  std::memcpy(to, p, left);
  return sum + sum_bytes({p, left});
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// Bytes of which some bits are known: what a register of nf_tables may hold.
#pragma once

#include <cowire/base/assert.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

namespace cowire::detail {

/// A truth that may depend on what is not known.
enum class ternary : std::uint8_t { no, yes, maybe };

[[nodiscard]] constexpr ternary negated(ternary t) noexcept {
  return t == ternary::maybe ? t : t == ternary::yes ? ternary::no : ternary::yes;
}
[[nodiscard]] constexpr ternary ternary_of(bool b) noexcept {
  return b ? ternary::yes : ternary::no;
}

/// Bits outside `known` are zero in `value`.
template <std::size_t Size>
struct partial_bytes {
  std::array<std::uint8_t, Size> value{};
  std::array<std::uint8_t, Size> known{};

  void set(std::size_t at, std::span<const std::uint8_t> bytes) noexcept {
    for (std::size_t i = 0; i < bytes.size(); ++i) put(at + i, bytes[i], 0xff);
  }
  void put(std::size_t at, std::uint8_t bits, std::uint8_t mask) noexcept {
    COWIRE_DEBUG_ASSERT(at < Size);
    value[at] = bits & mask;
    known[at] = mask;
  }
  void forget(std::size_t at, std::size_t length) noexcept {
    for (std::size_t i = at; i < std::min(Size, at + length); ++i) put(i, 0, 0);
  }
  [[nodiscard]] bool all_known(std::size_t at, std::size_t length) const noexcept {
    return std::all_of(known.begin() + static_cast<std::ptrdiff_t>(at),
                       known.begin() + static_cast<std::ptrdiff_t>(at + length),
                       [](std::uint8_t k) { return k == 0xff; });
  }
};

/// A key or an operand: at most all registers.
struct partial_key {
  std::array<std::uint8_t, 64> value{};
  std::array<std::uint8_t, 64> known{};
  std::size_t size = 0;
  /// Of a number whose bits tell less than its bounds; big endian, in the first bytes.
  std::optional<std::pair<std::uint32_t, std::uint32_t>> bounds;

  /// The lowest and the highest bytes that it may stand for.
  [[nodiscard]] std::array<std::uint8_t, 64> lowest() const noexcept {
    auto out = value;
    if (bounds) put_big_endian(out, bounds->first);
    return out;
  }
  [[nodiscard]] std::array<std::uint8_t, 64> highest() const noexcept {
    auto out = value;
    if (bounds) {
      put_big_endian(out, bounds->second);
      return out;
    }
    for (std::size_t i = 0; i < size; ++i) out[i] |= static_cast<std::uint8_t>(~known[i]);
    return out;
  }
  [[nodiscard]] bool all_known() const noexcept { return part_known(0, size); }
  [[nodiscard]] bool part_known(std::size_t at, std::size_t length) const noexcept {
    for (std::size_t i = at; i < at + length; ++i)
      if (known[i] != 0xff) return false;
    return true;
  }
  /// Whether a known bit differs from these bytes, compared from `at` on.
  [[nodiscard]] bool contradicts(std::span<const std::byte> bytes,
                                 std::size_t at = 0) const noexcept {
    for (std::size_t i = 0; i < bytes.size() && at + i < size; ++i)
      if (((value[at + i] ^ static_cast<std::uint8_t>(bytes[i])) & known[at + i]) != 0) return true;
    return false;
  }
  [[nodiscard]] ternary equals(std::span<const std::byte> bytes) const noexcept {
    if (contradicts(bytes)) return ternary::no;
    return all_known() ? ternary::yes : ternary::maybe;
  }
  static void put_big_endian(std::array<std::uint8_t, 64>& to, std::uint32_t number) noexcept {
    for (std::size_t i = 0; i < 4; ++i) to[i] = static_cast<std::uint8_t>(number >> (24 - 8 * i));
  }
  /// memcmp() of the lowest or highest with `bytes`, `length` of them from `at` on.
  [[nodiscard]] static int compare(const std::array<std::uint8_t, 64>& mine,
                                   std::span<const std::byte> bytes, std::size_t at = 0) noexcept {
    return std::memcmp(mine.data() + at, bytes.data(), bytes.size());
  }
  /// low <= key <= high, over as many bytes as they have, from `at` on.
  [[nodiscard]] ternary within(std::span<const std::byte> low, std::span<const std::byte> high,
                               std::size_t at = 0) const noexcept {
    const auto least = lowest(), most = highest();
    if (compare(most, low, at) < 0 || compare(least, high, at) > 0) return ternary::no;
    return compare(least, low, at) >= 0 && compare(most, high, at) <= 0 ? ternary::yes
                                                                        : ternary::maybe;
  }
};

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/checksum.hpp>

namespace cowire {
namespace {

/// Four 64-bit words: one register with AVX2, two with SSE2.
using words = std::uint64_t __attribute__((vector_size(32)));

/// Adds up the 32-bit halves of 64-bit words without taking out the lower ones: their sum is that
/// of the whole words less that of the upper halves, modulo 2^64, and is itself less than that.
struct half_sums {
  words all{};
  words upper{};

  [[gnu::always_inline]] void add(const words& word) noexcept {
    all += word;
    upper += word >> 32;
  }
  [[nodiscard, gnu::always_inline]] std::uint64_t total() const noexcept {
    const words lanes = all - (upper << 32) + upper;
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
  }
};

/// The word at `from`, copied to `to` or not.
template <class Word, bool Copy>
[[nodiscard, gnu::always_inline]] inline std::uint64_t take(std::byte* to,
                                                            const std::byte* from) noexcept {
  Word word;
  std::memcpy(&word, from, sizeof word);
  if constexpr (Copy) std::memcpy(to, &word, sizeof word);
  return word;
}
template <bool Copy>
[[gnu::always_inline]] inline void take(half_sums& sums, std::byte* to,
                                        const std::byte* from) noexcept {
  words word;
  std::memcpy(&word, from, sizeof word);
  if constexpr (Copy) std::memcpy(to, &word, sizeof word);
  sums.add(word);
}

template <bool Copy>
[[gnu::always_inline]] inline std::uint64_t run(std::byte* __restrict to,
                                                const std::byte* __restrict from,
                                                std::size_t size) noexcept {
  constexpr std::size_t step = sizeof(words);
  const std::byte* const end = from + size;
  const auto left = [&] { return static_cast<std::size_t>(end - from); };
  const auto advance = [&](std::size_t bytes) {
    from += bytes;
    if constexpr (Copy) to += bytes;
  };
  std::uint64_t sum = 0;
  if (size >= step) {
    half_sums even, odd;
    for (; left() >= 4 * step; advance(4 * step)) {
      take<Copy>(even, to, from);
      take<Copy>(odd, Copy ? to + step : nullptr, from + step);
      take<Copy>(even, Copy ? to + 2 * step : nullptr, from + 2 * step);
      take<Copy>(odd, Copy ? to + 3 * step : nullptr, from + 3 * step);
    }
    for (; left() >= step; advance(step)) take<Copy>(even, to, from);
    sum = even.total() + odd.total();
  }
  for (; left() >= 4; advance(4)) sum += take<std::uint32_t, Copy>(to, from);
  if (left() >= 2) {
    sum += take<std::uint16_t, Copy>(to, from);
    advance(2);
  }
  if (left() != 0) sum += take<std::uint8_t, Copy>(to, from);
  return sum;
}

// Compiled twice and chosen at run time: the build is for generic x86-64.
#if defined(__x86_64__)
const bool has_avx2 = __builtin_cpu_supports("avx2");

__attribute__((target("avx2"))) std::uint64_t sum_avx2(const std::byte* from,
                                                       std::size_t size) noexcept {
  return run<false>(nullptr, from, size);
}
__attribute__((target("avx2"))) std::uint64_t copy_avx2(std::byte* to, const std::byte* from,
                                                        std::size_t size) noexcept {
  return run<true>(to, from, size);
}
#endif

}  // namespace

std::uint64_t detail::sum_long(const std::byte* from, std::size_t size) noexcept {
#if defined(__x86_64__)
  if (has_avx2) return sum_avx2(from, size);
#endif
  return run<false>(nullptr, from, size);
}

std::uint64_t detail::copy_and_sum_portably(std::byte* to,
                                            std::span<const std::byte> from) noexcept {
  return run<true>(to, from.data(), from.size());
}

std::uint64_t copy_and_sum(std::byte* to, std::span<const std::byte> from) noexcept {
#if defined(__x86_64__)
  if (has_avx2) return copy_avx2(to, from.data(), from.size());
#endif
  return detail::copy_and_sum_portably(to, from);
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/checksum.hpp>

#include <bit>

namespace cowire {
namespace {

using detail::checksum_code;

/// 64-bit words: 32 bytes are one register with AVX2 and two with SSE2; 64 are one with AVX-512.
/// exchange() exchanges the 32-bit halves of each, by a shuffle: shifts and stores share one unit
/// of some processors. (Functions that return vectors would have an ABI that depends on the
/// target.)
template <std::size_t Bytes>
struct vector_of;
template <>
struct vector_of<32> {
  using words = std::uint64_t __attribute__((vector_size(32)));
  using halves = std::uint32_t __attribute__((vector_size(32)));
  [[gnu::always_inline]] static inline void exchange(words& word) noexcept {
    const auto in = reinterpret_cast<halves>(word);
    word = reinterpret_cast<words>(__builtin_shufflevector(in, in, 1, 0, 3, 2, 5, 4, 7, 6));
  }
};
template <>
struct vector_of<64> {
  using words = std::uint64_t __attribute__((vector_size(64)));
  using halves = std::uint32_t __attribute__((vector_size(64)));
  [[gnu::always_inline]] static inline void exchange(words& word) noexcept {
    const auto in = reinterpret_cast<halves>(word);
    word = reinterpret_cast<words>(
        __builtin_shufflevector(in, in, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
  }
};

/// The sum of the 32-bit halves of 64-bit words from that of the words and of the same words with
/// their halves exchanged: which is 2^32 + 1 times as much, modulo 2^64. 1 - 2^32 is its inverse.
[[nodiscard]] constexpr std::uint64_t sum_of_halves(std::uint64_t both) noexcept {
  return both - (both << 32);
}
static_assert(sum_of_halves(0xfffffffe00000003u + 0x00000003fffffffeu) == 0x100000001u);

/// The word at `from`, copied to `to` or not.
template <class Word, bool Copy>
[[nodiscard, gnu::always_inline]] inline Word take(std::byte* to, const std::byte* from) noexcept {
  Word word;
  std::memcpy(&word, from, sizeof word);
  if constexpr (Copy) std::memcpy(to, &word, sizeof word);
  return word;
}

/// Adds the vector at `from` and the same with exchanged halves.
template <std::size_t Bytes, bool Copy>
[[gnu::always_inline]] inline void add(typename vector_of<Bytes>::words& both, std::byte* to,
                                       const std::byte* from) noexcept {
  typename vector_of<Bytes>::words word;
  std::memcpy(&word, from, Bytes);
  if constexpr (Copy) std::memcpy(to, &word, Bytes);
  both += word;
  vector_of<Bytes>::exchange(word);
  both += word;
}

/// All whole vectors, for sum_of_halves; the pointers are those of the rest then.
template <std::size_t Bytes, bool Copy>
[[gnu::always_inline]] inline std::uint64_t run_vectors(std::byte*& to, const std::byte*& from,
                                                        std::size_t size) noexcept {
  typename vector_of<Bytes>::words even{}, odd{};
  const auto at = [&](std::size_t i) { return Copy ? to + i * Bytes : nullptr; };
  const auto advance = [&](std::size_t vectors) {
    from += vectors * Bytes;
    if constexpr (Copy) to += vectors * Bytes;
  };
  const std::byte* const last = from + size / (4 * Bytes) * (4 * Bytes);
  while (from != last) {
    add<Bytes, Copy>(even, at(0), from);
    add<Bytes, Copy>(odd, at(1), from + Bytes);
    add<Bytes, Copy>(even, at(2), from + 2 * Bytes);
    add<Bytes, Copy>(odd, at(3), from + 3 * Bytes);
    advance(4);
  }
  if ((size & 2 * Bytes) != 0) {
    add<Bytes, Copy>(even, at(0), from);
    add<Bytes, Copy>(odd, at(1), from + Bytes);
    advance(2);
  }
  if ((size & Bytes) != 0) {
    add<Bytes, Copy>(even, at(0), from);
    advance(1);
  }
  even += odd;
  std::uint64_t both = 0;
  for (std::size_t i = 0; i < Bytes / 8; ++i) both += even[i];
  return both;
}

/// What is less than a vector goes by the bits of the size.
template <std::size_t Bytes, bool Copy>
[[gnu::always_inline]] inline std::uint64_t run(std::byte* to, const std::byte* from,
                                                std::size_t size) noexcept {
  std::uint64_t both = 0;
  if (size >= Bytes) both = run_vectors<Bytes, Copy>(to, from, size);
  if (Bytes > 32 && (size & 32) != 0) both += run_vectors<32, Copy>(to, from, 32);
  const auto next = [&]<class Word>(Word) {
    const Word word = take<Word, Copy>(to, from);
    from += sizeof word;
    if constexpr (Copy) to += sizeof word;
    return word;
  };
  const auto add_next = [&] {
    const auto word = next(std::uint64_t{});
    both += word;
    both += std::rotl(word, 32);
  };
  if ((size & 16) != 0) {
    add_next();
    add_next();
  }
  if ((size & 8) != 0) add_next();
  std::uint64_t sum = sum_of_halves(both);
  if ((size & 4) != 0) sum += next(std::uint32_t{});
  if ((size & 2) != 0) sum += next(std::uint16_t{});
  if ((size & 1) != 0) sum += next(std::uint8_t{});
  return sum;
}

// Compiled three times and chosen at run time: the build is for generic x86-64.
#if defined(__x86_64__)
#define COWIRE_AVX2 __attribute__((target("avx2")))
#define COWIRE_AVX512 __attribute__((target("avx2,avx512f,avx512dq,avx512vl,avx512bw")))

COWIRE_AVX2 std::uint64_t sum_avx2(const std::byte* from, std::size_t size) noexcept {
  return run<32, false>(nullptr, from, size);
}
COWIRE_AVX2 std::uint64_t copy_avx2(std::byte* to, const std::byte* from,
                                    std::size_t size) noexcept {
  return run<32, true>(to, from, size);
}
COWIRE_AVX512 std::uint64_t sum_avx512(const std::byte* from, std::size_t size) noexcept {
  return run<64, false>(nullptr, from, size);
}
COWIRE_AVX512 std::uint64_t copy_avx512(std::byte* to, const std::byte* from,
                                        std::size_t size) noexcept {
  return run<64, true>(to, from, size);
}
#undef COWIRE_AVX2
#undef COWIRE_AVX512
#endif

/// The best that the processor has.
[[nodiscard]] checksum_code best_code() noexcept {
  using enum checksum_code;
  return detail::has_code(avx512) ? avx512 : detail::has_code(avx2) ? avx2 : portable;
}

const checksum_code best = best_code();

}  // namespace

bool detail::has_code(checksum_code code) noexcept {
#if defined(__x86_64__)
  // Those that count bits with AVX-512 do not slow down for its wide registers, as the first ones.
  if (code == checksum_code::avx512)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vpopcntdq");
  if (code == checksum_code::avx2) return __builtin_cpu_supports("avx2");
#endif
  return code == checksum_code::portable || code == checksum_code::portable_wide;
}

std::uint64_t detail::sum_with(checksum_code code, std::span<const std::byte> from) noexcept {
#if defined(__x86_64__)
  if (code == checksum_code::avx2) return sum_avx2(from.data(), from.size());
  if (code == checksum_code::avx512) return sum_avx512(from.data(), from.size());
#endif
  if (code == checksum_code::portable_wide)
    return run<64, false>(nullptr, from.data(), from.size());
  return run<32, false>(nullptr, from.data(), from.size());
}

std::uint64_t detail::copy_and_sum_with(checksum_code code, std::byte* to,
                                        std::span<const std::byte> from) noexcept {
#if defined(__x86_64__)
  if (code == checksum_code::avx2) return copy_avx2(to, from.data(), from.size());
  if (code == checksum_code::avx512) return copy_avx512(to, from.data(), from.size());
#endif
  if (code == checksum_code::portable_wide) return run<64, true>(to, from.data(), from.size());
  return run<32, true>(to, from.data(), from.size());
}

std::uint64_t detail::sum_long(const std::byte* from, std::size_t size) noexcept {
#if defined(__x86_64__)
  if (best == checksum_code::avx2) return sum_avx2(from, size);
#endif
  return sum_with(best, {from, size});
}

std::uint64_t copy_and_sum(std::byte* to, std::span<const std::byte> from) noexcept {
  // Nothing to choose where no vector fits in.
  if (from.size() < 32) return run<32, true>(to, from.data(), from.size());
#if defined(__x86_64__)
  if (best == checksum_code::avx2) return copy_avx2(to, from.data(), from.size());
#endif
  return detail::copy_and_sum_with(best, to, from);
}

}  // namespace cowire

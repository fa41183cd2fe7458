// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/detail/frame_runs.hpp>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace cowire::detail {
namespace {

/// Not zero: some differ.
[[gnu::always_inline]] inline std::uint64_t compare(const std::uint64_t* addresses,
                                                    const std::uint64_t* expected,
                                                    std::uint32_t count, unsigned shift,
                                                    frame_index* frames) noexcept {
  std::uint64_t different = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    different |= addresses[i] ^ expected[i];
    frames[i] = static_cast<frame_index>(addresses[i] >> shift);
  }
  return different;
}

/// Its sign bit, from differences that are negative: some are outside.
[[gnu::always_inline]] inline std::uint32_t outside(std::span<const frame_index> frames,
                                                    frame_index first,
                                                    std::uint32_t span) noexcept {
  std::uint32_t signs = 0;
  for (const frame_index frame : frames) signs |= (frame - first) | (span - (frame - first));
  return signs;
}

// As in the look-up (route/lpm.cpp): once more for newer processors than the build is for. By hand,
// as gcc makes more of it.
#if defined(__x86_64__)
const bool has_avx2 = __builtin_cpu_supports("avx2");
constexpr std::uint32_t lanes = 8;

__attribute__((target("avx2"))) inline __m256i block_at(const void* from) noexcept {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
__attribute__((target("avx2"))) inline void store(void* to, const __m256i& block) noexcept {
  _mm256_storeu_si256(static_cast<__m256i*>(to), block);
}
/// Undoes that 256-bit instructions work on two halves.
__attribute__((target("avx2"))) inline __m256i in_order(const __m256i& halves) noexcept {
  return _mm256_permute4x64_epi64(halves, 0xd8);
}

__attribute__((target("avx2"))) void copy_addresses_avx2(const tx_descriptor* from,
                                                         std::uint32_t count,
                                                         std::uint64_t* to) noexcept {
  std::uint32_t i = 0;
  for (; i + lanes <= count; i += lanes, from += lanes, to += lanes) {
    store(to, in_order(_mm256_unpacklo_epi64(block_at(from), block_at(from + 2))));
    store(to + 4, in_order(_mm256_unpacklo_epi64(block_at(from + 4), block_at(from + 6))));
  }
  for (; i < count; ++i) *to++ = from++->address;
}

__attribute__((target("avx2"))) bool frames_as_expected_avx2(const std::uint64_t* addresses,
                                                             const std::uint64_t* expected,
                                                             std::uint32_t count, unsigned shift,
                                                             frame_index* frames) noexcept {
  const __m128i by = _mm_cvtsi32_si128(static_cast<int>(shift));
  __m256i different = _mm256_setzero_si256();
  std::uint32_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const __m256i low = block_at(addresses + i), high = block_at(addresses + i + 4);
    different = _mm256_or_si256(
        different, _mm256_or_si256(_mm256_xor_si256(low, block_at(expected + i)),
                                   _mm256_xor_si256(high, block_at(expected + i + 4))));
    const __m256 halves = _mm256_shuffle_ps(_mm256_castsi256_ps(_mm256_srl_epi64(low, by)),
                                            _mm256_castsi256_ps(_mm256_srl_epi64(high, by)), 0x88);
    store(frames + i, in_order(_mm256_castps_si256(halves)));
  }
  const std::uint64_t rest = compare(addresses + i, expected + i, count - i, shift, frames + i);
  return rest == 0 && _mm256_testz_si256(different, different) != 0;
}

__attribute__((target("avx2"))) bool all_within_avx2(std::span<const frame_index> frames,
                                                     frame_index first,
                                                     std::uint32_t span) noexcept {
  const __m256i from = _mm256_set1_epi32(static_cast<int>(first));
  const __m256i most = _mm256_set1_epi32(static_cast<int>(span));
  __m256i signs = _mm256_setzero_si256();
  std::size_t i = 0;
  for (; i + lanes <= frames.size(); i += lanes) {
    const __m256i past = _mm256_sub_epi32(block_at(frames.data() + i), from);
    signs = _mm256_or_si256(signs, _mm256_or_si256(past, _mm256_sub_epi32(most, past)));
  }
  return outside(frames.subspan(i), first, span) >> 31 == 0 &&
         _mm256_movemask_ps(_mm256_castsi256_ps(signs)) == 0;
}
#endif

}  // namespace

void copy_addresses(const tx_descriptor* from, std::uint32_t count, std::uint64_t* to) noexcept {
#if defined(__x86_64__)
  if (has_avx2) return copy_addresses_avx2(from, count, to);
#endif
  for (std::uint32_t i = 0; i < count; ++i) to[i] = from[i].address;
}

bool frames_as_expected(const std::uint64_t* addresses, const std::uint64_t* expected,
                        std::uint32_t count, unsigned shift, frame_index* frames) noexcept {
#if defined(__x86_64__)
  if (has_avx2) return frames_as_expected_avx2(addresses, expected, count, shift, frames);
#endif
  return compare(addresses, expected, count, shift, frames) == 0;
}

bool all_within(std::span<const frame_index> frames, frame_index first, frame_index last) noexcept {
#if defined(__x86_64__)
  if (has_avx2) return all_within_avx2(frames, first, last - first);
#endif
  return outside(frames, first, last - first) >> 31 == 0;
}

}  // namespace cowire::detail

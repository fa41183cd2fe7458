// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/checksum.hpp>

#include <algorithm>

namespace cowire {
namespace {

/// Eight 32-bit words: one register with AVX2, two with SSE2.
using words = std::uint32_t __attribute__((vector_size(32)));

/// A lane takes four 16-bit halves of every 64 bytes, so 2^14 steps, a MiB, cannot overflow it.
/// Half of that is added up before the lanes start afresh.
constexpr std::size_t block = std::size_t{1} << 19;

template <bool Copy>
[[gnu::always_inline]] inline std::uint64_t run(std::byte* __restrict to,
                                                const std::byte* __restrict from,
                                                std::size_t size) noexcept {
  std::uint64_t sum = 0;
  while (size >= 2 * sizeof(words)) {
    words lanes{};
    std::size_t left = std::min(size, block) / (2 * sizeof(words)) * (2 * sizeof(words));
    size -= left;
    for (; left != 0; left -= 2 * sizeof(words), from += 2 * sizeof(words)) {
      words a, b;
      std::memcpy(&a, from, sizeof a);
      std::memcpy(&b, from + sizeof a, sizeof b);
      if constexpr (Copy) {
        std::memcpy(to, &a, sizeof a);
        std::memcpy(to + sizeof a, &b, sizeof b);
        to += 2 * sizeof(words);
      }
      lanes += ((a & 0xffffu) + (a >> 16)) + ((b & 0xffffu) + (b >> 16));
    }
    for (int i = 0; i < 8; ++i) sum += lanes[i];
  }
  if (Copy && size != 0) std::memcpy(to, from, size);  // An empty span may be null.
  return sum + sum_bytes({from, size});
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

std::uint64_t copy_and_sum(std::byte* to, std::span<const std::byte> from) noexcept {
#if defined(__x86_64__)
  if (has_avx2) return copy_avx2(to, from.data(), from.size());
#endif
  return run<true>(to, from.data(), from.size());
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/detail/flow_cache.hpp>

#include <unistd.h>

#include <algorithm>
#include <bit>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace cowire::detail {
namespace {

/// 16 384 flows. With a smaller second level they are found in the third, sooner than in the trie.
constexpr std::size_t bytes_min = std::size_t{1} << 19;
/// 65 536 flows. What lies further away than the second level is hardly faster than the trie.
constexpr std::size_t bytes_max = std::size_t{1} << 21;

[[nodiscard]] const hop* hop_at(const hop* first_hop, std::uint32_t offset) noexcept {
  return reinterpret_cast<const hop*>(reinterpret_cast<const std::byte*>(first_hop) + offset);
}

}  // namespace

flow_cache::flow_cache(std::size_t bytes, std::uint32_t generation)
    : tags_(std::bit_floor(bytes / (ways * sizeof(entry)))),
      entries_(tags_.size() * ways),
      generation_(generation),
      credit_max_(static_cast<std::int32_t>(std::min(entries_.size(), credit_limit))),
      credit_(credit_max_) {
  if (tags_.empty())
    pause_ = for_ever;
  else
    tags_mask_ = (tags_.size() - 1) * sizeof(tags);
}

std::size_t flow_cache::default_bytes() noexcept {
  const long second_level = ::sysconf(_SC_LEVEL2_CACHE_SIZE);  // 0: the system does not say.
  return std::clamp(static_cast<std::size_t>(std::max(second_level, 0L)) / 2, bytes_min, bytes_max);
}

void flow_cache::begin(std::uint64_t publication) noexcept {
  publication_ = publication;
  if (++generation_ != 0) return;
  std::fill(entries_.begin(), entries_.end(), entry{});
  generation_ = 1;
}

bool flow_cache::settle(std::uint32_t found, std::uint32_t missing) noexcept {
  credit_ += static_cast<std::int32_t>(found) - static_cast<std::int32_t>(missing);
  credit_ = std::min(credit_, credit_max_);
  if (credit_ > 0) return false;
  credit_ = 0;
  pause_ = pause_batches;
  return true;
}

const flow_cache::entry* flow_cache::find_one(const tx_request& request) const noexcept {
  const std::uint64_t set = (request.flow_hash & tags_mask_) / sizeof(tags);
  std::uint32_t same = 0;
  for (std::size_t way = 0; way < ways; ++way)
    same |= std::uint32_t{tags_[set].of[way] == request.flow_tag} << way;
  if (same == 0) return nullptr;
  const entry& at = entries_[set * ways + static_cast<std::size_t>(std::countr_zero(same))];
  return at.is_of(generation_, request) ? &at : nullptr;
}

void flow_cache::find_portably(std::span<const tx_request> requests, const hop* first_hop,
                               const hop** hops, unknown_requests& unknown) const noexcept {
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (const entry* const known = find_one(requests[i]); known != nullptr) {
      hops[i] = hop_at(first_hop, known->hop_offset);
    } else {
      unknown.at[unknown.count++] = static_cast<std::uint8_t>(i);
    }
  }
}

// As in the look-up (route/lpm.cpp): once more for newer processors than the build is for.
#if defined(__x86_64__)
namespace {
const bool newer_processor = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi");

__attribute__((always_inline, target("avx2,bmi"))) inline __m256i block_at(
    const void* from) noexcept {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
}  // namespace

__attribute__((target("avx2,bmi"))) void flow_cache::find_newer(
    std::span<const tx_request> requests, const hop* first_hop, const hop** hops,
    unknown_requests& unknown) const noexcept {
  const auto* const all_tags = reinterpret_cast<const std::byte*>(tags_.data());
  const auto* const all_entries = reinterpret_cast<const std::byte*>(entries_.data());
  const std::uint64_t tags_mask = tags_mask_;
  const __m256i generation = _mm256_set1_epi32(static_cast<int>(generation_));
  // All but the last word of an entry.
  const __m256i key_part = _mm256_set_epi32(0, -1, -1, -1, -1, -1, -1, -1);
  std::uint32_t missing = 0;
#pragma GCC unroll 2
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const tx_request& request = requests[i];
    const std::uint64_t offset = request.flow_hash & tags_mask;
    const __m256i same = _mm256_cmpeq_epi32(_mm256_set1_epi32(static_cast<int>(request.flow_tag)),
                                            block_at(all_tags + offset));
    const auto ways_set = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(same)));
    if (ways_set != 0) [[likely]] {
      const std::uint64_t way = _tzcnt_u32(ways_set);
      const std::byte* const at = all_entries + 8 * (offset + sizeof(std::uint32_t) * way);
      const __m256i key = _mm256_blend_epi32(generation, block_at(&request.frame), 0x7e);
      const __m256i different = _mm256_xor_si256(key, block_at(at));
      if (_mm256_testz_si256(different, key_part) != 0) [[likely]] {
        std::uint32_t hop_offset;
        std::memcpy(&hop_offset, at + offsetof(entry, hop_offset), sizeof hop_offset);
        hops[i] = hop_at(first_hop, hop_offset);
        continue;
      }
    }
    unknown.at[missing++] = static_cast<std::uint8_t>(i);
  }
  unknown.count = missing;
}
#endif

void flow_cache::find(std::span<const tx_request> requests, const hop* first_hop, const hop** hops,
                      unknown_requests& unknown) const noexcept {
  unknown.count = 0;
#if defined(__x86_64__)
  if (newer_processor) return find_newer(requests, first_hop, hops, unknown);
#endif
  find_portably(requests, first_hop, hops, unknown);
}

void flow_cache::remember(const tx_request& request, const hop* via, const hop* hops) noexcept {
  const auto offset = static_cast<std::uint64_t>(reinterpret_cast<const std::byte*>(via) -
                                                 reinterpret_cast<const std::byte*>(hops));
  if (offset >> 32 != 0) return;  // More than thirteen million hops lie before it.
  const std::uint64_t set = (request.flow_hash & tags_mask_) / sizeof(tags);
  std::uint32_t(&tag)[ways] = tags_[set].of;
  entry* const in = &entries_[set * ways];
  std::size_t way = 0;
  while (way < ways && tag[way] != request.flow_tag) ++way;
  if (way == ways) {
    way = 0;
    while (way < ways && in[way].generation == generation_) ++way;
  }
  if (way == ways) way = turn_++ % ways;
  tag[way] = request.flow_tag;
  entry& to = in[way];
  std::memcpy(&to, &request.frame, sizeof to);
  to.generation = generation_;
  to.hop_offset = static_cast<std::uint32_t>(offset);
}

}  // namespace cowire::detail

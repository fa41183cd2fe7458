// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/detail/flow_cache.hpp>

#include <unistd.h>

#include <algorithm>
#include <bit>

namespace cowire::detail {
namespace {

/// 16 384 flows. With a smaller second level they are found in the third, sooner than in the trie.
constexpr std::size_t bytes_min = std::size_t{1} << 19;
/// 65 536 flows. What lies further away than the second level is hardly faster than the trie.
constexpr std::size_t bytes_max = std::size_t{1} << 21;

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

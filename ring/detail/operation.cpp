// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/detail/operation.hpp>

#include <array>

namespace cowire::detail {
namespace {

constexpr std::size_t class_bytes = 64;
constexpr std::size_t class_count = 16;  // Blocks up to 1 KiB; larger ones are rare and not kept.
constexpr std::size_t kept_per_class = 16;

struct free_block {
  free_block* next;
};

// Trivially destructible, so that it can still be read after the cache of this thread is gone.
thread_local bool cache_closed = false;

struct block_cache {
  std::array<free_block*, class_count> first{};
  std::array<std::size_t, class_count> count{};
  block_cache() noexcept = default;
  block_cache(const block_cache&) = delete;
  block_cache& operator=(const block_cache&) = delete;
  ~block_cache() {
    cache_closed = true;
    for (free_block* block : first)
      while (block) ::operator delete(std::exchange(block, block->next));
  }
};

thread_local block_cache cache;

constexpr std::size_t class_of(std::size_t size) noexcept { return (size - 1) / class_bytes; }

}  // namespace

void* allocate_recycled(std::size_t size) {
  const std::size_t index = class_of(size);
  if (index >= class_count) return ::operator new(size);
  if (!cache_closed && cache.first[index]) {
    --cache.count[index];
    return std::exchange(cache.first[index], cache.first[index]->next);
  }
  return ::operator new((index + 1) * class_bytes);
}

void free_recycled(void* block, std::size_t size) noexcept {
  const std::size_t index = class_of(size);
  if (index >= class_count || cache_closed || cache.count[index] == kept_per_class) {
    ::operator delete(block);
    return;
  }
  cache.first[index] = ::new (block) free_block{cache.first[index]};
  ++cache.count[index];
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/lpm_pool.hpp>

#include <sys/mman.h>

#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define COWIRE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define COWIRE_ASAN 1
#endif
#endif
#if defined(COWIRE_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace cowire::detail {
namespace {

void poison([[maybe_unused]] std::uint32_t* memory, [[maybe_unused]] std::size_t words) {
#if defined(COWIRE_ASAN)
  __asan_poison_memory_region(memory, words * sizeof *memory);
#endif
}
void unpoison([[maybe_unused]] std::uint32_t* memory, [[maybe_unused]] std::size_t words) {
#if defined(COWIRE_ASAN)
  __asan_unpoison_memory_region(memory, words * sizeof *memory);
#endif
}

}  // namespace

lpm_pool::lpm_pool() {
  for (; reserved_ >= smallest_reservation; reserved_ /= 2) {
    // PROT_NONE: counts neither as memory nor against mlockall().
    mapping_ =
        ::mmap(nullptr, reserved_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping_ == MAP_FAILED) continue;  // An address space limit; try with less.
    const auto start = reinterpret_cast<std::uintptr_t>(mapping_);
    const std::uintptr_t gap = -start % growth;
    base_ = reinterpret_cast<std::uint32_t*>(start + gap);
    room_ = reserved_ - gap;
    return;
  }
  throw std::bad_alloc();
}

lpm_pool::~lpm_pool() {
  unpoison(base_, usable_ / sizeof(std::uint32_t));
  ::munmap(mapping_, reserved_);
}

void lpm_pool::free(std::uint32_t item) noexcept {
  const std::size_t bytes = bytes_of(item);
  const std::size_t size_class = class_of_item(item);
  std::uint32_t* const memory = at(item & place_mask);
  memory[0] = free_[size_class];
  free_[size_class] = item & place_mask;
  poison(memory + 1, bytes / sizeof(std::uint32_t) - 1);
  waiting_bytes_ -= bytes, --waiting_;
  bytes_ -= bytes, --blocks_;
}

std::uint32_t lpm_pool::allocate(std::size_t size_class) {
  const std::size_t words = words_of_class(size_class);
  std::uint32_t place = free_[size_class];
  if (place != none) {
    unpoison(at(place), words);
    free_[size_class] = *at(place);
  } else {
    place = extend(words);
  }
  bytes_ += words * sizeof(std::uint32_t), ++blocks_;
  return place;
}

std::uint32_t lpm_pool::extend(std::size_t words) {
  const std::size_t end = (used_words_ + words) * sizeof(std::uint32_t);
  while (end > usable_) {
    char* const next = reinterpret_cast<char*>(base_) + usable_;
    if (usable_ + growth > room_ || ::mprotect(next, growth, PROT_READ | PROT_WRITE) != 0)
      throw std::bad_alloc();
    // Small tables keep ordinary pages; random access to a large one misses the TLB otherwise.
    if (usable_ != 0) ::madvise(base_, usable_ + growth, MADV_HUGEPAGE);
    usable_ += growth;
  }
  const std::size_t place = used_words_;
  used_words_ += words;
  return static_cast<std::uint32_t>(place);
}

}  // namespace cowire::detail

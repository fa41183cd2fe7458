// SPDX-License-Identifier: Apache-2.0
/// Replaces operator new of the program that includes this, in one source, by one that counts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace cowire::test {

/// By the calling thread.
inline constinit thread_local std::uint64_t allocations = 0;

inline void* allocate(std::size_t size, std::size_t alignment) {
  ++allocations;
  const std::size_t rounded = (size + alignment - 1) / alignment * alignment;
  void* const memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

/// Not where gcc sees that it is what deletes.
[[gnu::noinline]] inline void release(void* memory) { std::free(memory); }

}  // namespace cowire::test

void* operator new(std::size_t size) {
  return cowire::test::allocate(size, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return cowire::test::allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { cowire::test::release(memory); }
void operator delete(void* memory, std::size_t) noexcept { cowire::test::release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { cowire::test::release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  cowire::test::release(memory);
}

// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/tracked_flows.hpp>

#include <sys/mman.h>

#include <bit>
#include <cerrno>
#include <memory>
#include <new>
#include <random>
#include <system_error>

namespace cowire {
namespace {

std::uint64_t random_seed() {
  std::random_device device;
  return std::uint64_t{device()} << 32 | device();
}

/// Zero, and nothing of it is there until it is touched.
void* reserve(std::size_t bytes) {
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    throw std::system_error(errno, std::system_category(),
                            "reserving address space for tracked flows");
  return memory;
}

std::uint64_t mix(std::uint64_t a, std::uint64_t b) noexcept {
  __extension__ using wide = unsigned __int128;
  const wide product = wide{a} * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

}  // namespace

tracked_flows::tracked_flows(std::uint32_t capacity)
    : capacity_(capacity),
      mask_(std::bit_ceil(2 * capacity) - 1),
      seed_(random_seed()),
      free_(std::make_shared<free_list>()) {
  COWIRE_ASSERT(capacity != 0 && capacity <= capacity_max);
  places_ = static_cast<std::uint64_t*>(reserve(sizeof *places_ * (std::size_t{mask_} + 1)));
  lines_ = static_cast<line*>(reserve(sizeof *lines_ * capacity_));
}

tracked_flows::~tracked_flows() {
  ::munmap(places_, sizeof *places_ * (std::size_t{mask_} + 1));
  ::munmap(lines_, sizeof *lines_ * capacity_);
}

std::uint32_t tracked_flows::hash_of(const tracked_key& key) const noexcept {
  // Odd numbers without a pattern, as the hexadecimal digits of pi are.
  constexpr std::uint64_t odd[] = {0x243f6a8885a308d3, 0x13198a2e03707345};
  const std::uint64_t a = mix(key.words[0] ^ seed_, key.words[1] ^ odd[0]);
  const std::uint64_t b = mix(key.words[2] ^ seed_, key.words[3] ^ odd[1]);
  return static_cast<std::uint32_t>(mix(a ^ key.words[4], b ^ odd[0]) >> 32);
}

tracked_flows::index tracked_flows::insert(const tracked_key& key) {
  const std::uint32_t used = size_.load(std::memory_order_relaxed);
  index at = none;
  if (used < capacity_ && !free_->empty()) {
    at = free_->back();
    free_->pop_back();
  } else if (used < capacity_ && next_ < capacity_) {
    at = next_++;
  }
  if (at == none) {
    full_.store(true, std::memory_order_relaxed);
    return none;
  }
  new (&lines_[at]) line{key, {}, {}, {}};
  lines_[at].reason.store(divert_reason::conntrack_new, std::memory_order_relaxed);
  const std::uint32_t hash = hash_of(key);
  std::uint32_t place = hash & mask_;
  while (places_[place] != 0) place = (place + 1) & mask_;
  put(place, std::uint64_t{hash} << 32 | (std::uint64_t{at} + 1));
  size_.store(used + 1, std::memory_order_relaxed);
  full_.store(false, std::memory_order_relaxed);  // Lines have come back from readers.
  return at;
}

void tracked_flows::remove(index at) {
  lines_[at].good_until.store(0, std::memory_order_relaxed);
  std::uint32_t hole = hash_of(lines_[at].key) & mask_;
  while (static_cast<index>(places_[hole]) != at + 1) hole = (hole + 1) & mask_;
  // What follows and is not at home moves up, so that no search ends too early.
  for (std::uint32_t next = (hole + 1) & mask_; places_[next] != 0; next = (next + 1) & mask_) {
    const std::uint32_t home = static_cast<std::uint32_t>(places_[next] >> 32) & mask_;
    if (((next - home) & mask_) < ((next - hole) & mask_)) continue;
    put(hole, places_[next]);
    hole = next;
  }
  put(hole, 0);
  removed_.push_back(at);
  size_.store(size_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
  full_.store(false, std::memory_order_relaxed);
}

void tracked_flows::retire_removed(epoch_domain& epochs) {
  if (removed_.empty()) return;
  const std::size_t bytes = removed_.size() * sizeof(line);
  epochs.retire(std::make_unique<removed_lines>(free_, std::exchange(removed_, {})), bytes);
}

}  // namespace cowire

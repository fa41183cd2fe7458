// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/umem.hpp>

#include <cowire/base/error.hpp>

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#ifndef MAP_HUGE_2MB
#define MAP_HUGE_2MB (21 << 26)
#endif

namespace cowire {
namespace {

constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;

[[nodiscard]] std::string describe_request(const umem_options& options) {
  return "map a umem of " + std::to_string(options.frame_count) + " frames of " +
         std::to_string(options.frame_size) +
         " bytes (frame_size is 2048 or 4096, frame_count 64 to 16777216)";
}

[[nodiscard]] bool is_valid(const umem_options& options) noexcept {
  return (options.frame_size == 2048 || options.frame_size == 4096) &&
         options.frame_count >= slice_granularity && options.frame_count <= (1u << 24);
}

}  // namespace

umem::umem(const umem_options& options) {
  if (const std::error_code ec = map(options)) throw_error(ec, describe_request(options));
}

umem::umem(const umem_options& options, std::error_code& ec) { ec = map(options); }

umem::~umem() {
  // A child may use the addresses for something else by now.
  if (memory_.base != nullptr && !born_.inherited()) ::munmap(memory_.base, size());
}

std::error_code umem::map(const umem_options& options) {
  if (!is_valid(options)) return error::invalid_argument;
  const std::size_t asked = std::size_t{options.frame_size} * options.frame_count;
  const std::size_t bytes = (asked + huge_page_bytes - 1) / huge_page_bytes * huge_page_bytes;
  constexpr int protection = PROT_READ | PROT_WRITE;
  constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;

  void* base = MAP_FAILED;
  if (!options.huge_pages) {
    pages_reason_ = "huge pages were not asked for";
  } else {
    base = ::mmap(nullptr, bytes, protection, flags | MAP_HUGETLB | MAP_HUGE_2MB, -1, 0);
    if (base != MAP_FAILED) {
      pages_ = page_kind::huge_2mib;
    } else {
      pages_reason_ = "no 2 MiB huge pages (" + errno_name(errno) + "); reserve " +
                      std::to_string(bytes / huge_page_bytes) + " more with sysctl vm.nr_hugepages";
    }
  }
  if (base == MAP_FAILED) base = ::mmap(nullptr, bytes, protection, flags, -1, 0);
  if (base == MAP_FAILED) return errno_code(errno);

  // Linux 4.14 wipes anonymous pages only: huge ones count as a file's (madvise_behavior_valid and
  // madvise_vma_behavior in mm/madvise.c), and copying them may fail the fork for want of others.
  if (::madvise(base, bytes, MADV_WIPEONFORK) != 0) ::madvise(base, bytes, MADV_DONTFORK);

  memory_.base = static_cast<std::byte*>(base);
  memory_.frame_size = options.frame_size;
  memory_.frame_count = static_cast<std::uint32_t>(bytes / options.frame_size);
  lent_.assign(memory_.frame_count / slice_granularity, false);
  return {};
}

std::optional<frame_slice> umem::allocate_slice(std::uint32_t count) {
  COWIRE_ASSERT(count > 0);
  const std::size_t blocks = (std::size_t{count} + slice_granularity - 1) / slice_granularity;
  const auto first = std::search_n(lent_.begin(), lent_.end(), blocks, false);
  if (first == lent_.end()) return std::nullopt;
  std::fill_n(first, blocks, true);
  const auto block = static_cast<std::uint32_t>(first - lent_.begin());
  return frame_slice{block * slice_granularity,
                     static_cast<std::uint32_t>(blocks) * slice_granularity};
}

void umem::release_slice(const frame_slice& slice) {
  COWIRE_ASSERT(slice.first % slice_granularity == 0 && slice.count % slice_granularity == 0);
  COWIRE_ASSERT(slice.first + slice.count <= memory_.frame_count);
  for (std::uint32_t i = 0; i < slice.count / slice_granularity; ++i) {
    const std::size_t block = slice.first / slice_granularity + i;
    COWIRE_ASSERT(lent_[block]);
    lent_[block] = false;
  }
}

std::uint32_t umem::free_frames() const noexcept {
  return static_cast<std::uint32_t>(std::count(lent_.begin(), lent_.end(), false)) *
         slice_granularity;
}

}  // namespace cowire

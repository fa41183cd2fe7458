// SPDX-License-Identifier: Apache-2.0
/// The blocks of an LPM trie: how an entry names one, and the memory that they lie in.
///
/// One writer at a time; readers read blocks that no writer touches any more (lpm.hpp).
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cowire::detail {

inline constexpr unsigned root_bits = 12;
inline constexpr std::uint32_t root_fan_out = 1u << root_bits;
inline constexpr unsigned stride = 6;
inline constexpr unsigned fan_out = 1u << stride;

/// An entry is a value, 0 for "the default", or this bit and the place of a block in the pool; the
/// entries of the root name plain blocks, the others packed ones.
inline constexpr std::uint32_t block_bit = 1u << 31;
inline constexpr std::uint32_t plain_bit = 1u << 30;  ///< Besides block_bit.
inline constexpr std::uint32_t place_mask = plain_bit - 1;

/// A plain block is one entry per child. A packed one: the bitmap of run starts in two words, then
/// one entry per run.
inline constexpr std::uint32_t header_words = 2;

[[nodiscard]] inline std::uint64_t load_bitmap(const std::uint32_t* block) noexcept {
  std::uint64_t bitmap;
  std::memcpy(&bitmap, block, sizeof bitmap);
  return bitmap;
}

/// Where the blocks of one trie lie. Places are 32-bit word offsets from a base that never moves:
/// the address space is reserved at once and made usable as it is needed. Freed blocks are kept by
/// size for reuse and not merged: the sizes that a table uses hardly change with its contents.
class lpm_pool {
 public:
  /// Throws std::bad_alloc where not even a small reservation is to be had; so do allocations.
  lpm_pool();
  lpm_pool(const lpm_pool&) = delete;
  lpm_pool& operator=(const lpm_pool&) = delete;
  ~lpm_pool();

  [[nodiscard]] std::uint32_t* at(std::uint32_t place) noexcept { return base_ + place; }

  [[nodiscard]] std::uint32_t allocate_root() { return allocate(root_class); }
  [[nodiscard]] std::uint32_t allocate_plain() { return allocate(plain_class); }
  /// Room for `entries` entries and the bitmap.
  [[nodiscard]] std::uint32_t allocate_packed(unsigned entries) {
    return allocate(class_of(entries));
  }

  /// An item is the place of a root, or the entry that names a block.
  void set_aside(std::uint32_t item) noexcept { waiting_bytes_ += bytes_of(item), ++waiting_; }
  void free(std::uint32_t item) noexcept;

  [[nodiscard]] std::size_t bytes_of(std::uint32_t item) noexcept {
    return words_of_class(class_of_item(item)) * sizeof(std::uint32_t);
  }
  [[nodiscard]] std::size_t bytes_live() const noexcept { return bytes_ - waiting_bytes_; }
  [[nodiscard]] std::size_t bytes_waiting() const noexcept { return waiting_bytes_; }
  [[nodiscard]] std::size_t blocks_live() const noexcept { return blocks_ - waiting_; }

 private:
  // 30 bits of words; it holds 25 million routes without anything in common.
  static constexpr std::size_t largest_reservation = std::size_t{4} << 30;
  static constexpr std::size_t smallest_reservation = std::size_t{64} << 20;
  static constexpr std::size_t growth = std::size_t{2} << 20;  // A huge page.

  /// Packed blocks of 2n - 1 and 2n entries share class n.
  static constexpr std::size_t plain_class = fan_out / 2 + 1, root_class = plain_class + 1;
  static constexpr std::uint32_t none = ~std::uint32_t{0};

  [[nodiscard]] static std::size_t class_of(unsigned entries) noexcept { return (entries + 1) / 2; }
  [[nodiscard]] std::size_t class_of_item(std::uint32_t item) noexcept {
    if ((item & block_bit) == 0) return root_class;
    if ((item & plain_bit) != 0) return plain_class;
    return class_of(static_cast<unsigned>(std::popcount(load_bitmap(at(item & place_mask)))));
  }
  [[nodiscard]] static std::size_t words_of_class(std::size_t size_class) noexcept {
    if (size_class == root_class) return root_fan_out;
    return size_class == plain_class ? fan_out : header_words + 2 * size_class;
  }

  std::uint32_t allocate(std::size_t size_class);
  std::uint32_t extend(std::size_t words);

  std::size_t reserved_ = largest_reservation;
  void* mapping_ = nullptr;
  std::uint32_t* base_ = nullptr;  ///< The first huge page boundary in the mapping.
  std::size_t room_ = 0;           ///< Bytes from there on.
  std::size_t usable_ = 0;
  std::size_t used_words_ = 0;
  std::size_t bytes_ = 0, waiting_bytes_ = 0;
  std::size_t blocks_ = 0, waiting_ = 0;
  std::array<std::uint32_t, root_class + 1> free_ = [] {
    std::array<std::uint32_t, root_class + 1> empty;
    empty.fill(none);
    return empty;
  }();
};

}  // namespace cowire::detail

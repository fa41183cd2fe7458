// SPDX-License-Identifier: Apache-2.0
/// The prefixes that a compiler tells apart, in order, and what is known of each.
///
/// Sorted by address, then length, so that the prefixes inside a prefix follow it directly. They
/// lie in chunks of some hundred: a walk over a million of them reads memory in order, an insertion
/// moves one chunk. Each chunk can carry a summary of its elements, by which a walk may pass it
/// over; any change of a chunk forgets its summary.
///
/// The compiler's thread only. Insertions and removals invalidate pointers and positions.
#pragma once

#include <cowire/base/address.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace cowire::detail {

/// What the route tables hold at a prefix; an id of situation_store.
using leaf_id = std::uint32_t;
/// All that the decisions for a region depend on; an id of situation_store.
using situation_id = std::uint32_t;
inline constexpr situation_id no_situation = 0xffffffff;

/// One prefix, without the longer ones inside it.
struct region {
  ip_prefix prefix;
  bool individual = false;  ///< Has paths of its own, not those of its situation.
  leaf_id leaf = 0;
  situation_id situation = no_situation;
};

class region_map {
 public:
  struct chunk {
    std::vector<region> items;  ///< Never empty.
    std::optional<std::uint64_t> summary;
  };
  /// An element's place; past the end if `chunk` is chunks().size().
  struct position {
    std::size_t chunk = 0, index = 0;
  };

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t bytes() const noexcept;
  [[nodiscard]] std::vector<chunk>& chunks() noexcept { return chunks_; }
  [[nodiscard]] region& at(position where) noexcept {
    return chunks_[where.chunk].items[where.index];
  }
  [[nodiscard]] bool is_end(position where) const noexcept { return where.chunk == chunks_.size(); }
  [[nodiscard]] position next(position where) const noexcept;

  /// The first element behind `prefix`.
  [[nodiscard]] position upper_bound(const ip_prefix& prefix) const noexcept;
  [[nodiscard]] region* find(const ip_prefix& prefix) noexcept;
  /// The longest prefix that contains `prefix` and is not the same; null if there is none.
  [[nodiscard]] region* parent(const ip_prefix& prefix) noexcept;
  /// The element with this prefix, a new one if there was none.
  region& insert(const ip_prefix& prefix);
  /// `prefix` is there.
  void erase(const ip_prefix& prefix);
  /// The chunk that holds, or would hold, `prefix`. There is at least one element.
  [[nodiscard]] chunk& chunk_with(const ip_prefix& prefix) noexcept {
    return chunks_[chunk_of(prefix)];
  }
  /// Replaces everything; `sorted` has no duplicates.
  void assign(const std::vector<region>& sorted);
  void clear() noexcept;

  template <class F>
  void for_each(F&& f) {
    for (chunk& part : chunks_)
      for (region& one : part.items) f(one);
  }
  void forget_summaries() noexcept {
    for (chunk& part : chunks_) part.summary.reset();
  }

 private:
  static constexpr std::size_t chunk_capacity = 256;

  [[nodiscard]] std::size_t chunk_of(const ip_prefix& prefix) const noexcept;

  std::vector<chunk> chunks_;
  std::vector<ip_prefix> firsts_;  ///< First prefix of each chunk: what a search looks at.
  std::size_t size_ = 0;
};

}  // namespace cowire::detail

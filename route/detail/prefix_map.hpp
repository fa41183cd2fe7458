// SPDX-License-Identifier: Apache-2.0
/// An ordered map by prefix for a million of them: items that carry their prefix, in chunks.
///
/// Sorted by address, then length, so that the prefixes inside a prefix follow it directly. A chunk
/// holds some hundred items: a search touches a few cache lines, a walk reads memory in order, an
/// insertion moves one chunk, and a dump, which comes in order, only appends. Each chunk can carry
/// a summary of its items, by which a walk may pass it over; insertions and removals forget it.
///
/// One thread at a time, reading included: a search begins where the last one was. Insertions and
/// removals invalidate pointers and positions.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/assert.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace cowire::detail {

/// `Prefix` is the item's member that it is ordered by.
template <class Item, ip_prefix Item::*Prefix>
class prefix_map {
 public:
  struct chunk {
    std::vector<Item> items;  ///< Never empty.
    std::optional<std::uint64_t> summary;
  };
  /// An item's place; past the end if `chunk` is chunks().size().
  struct position {
    std::size_t chunk = 0, index = 0;
    friend bool operator==(const position&, const position&) noexcept = default;
  };

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t bytes() const noexcept {
    return chunks_.capacity() * sizeof(chunk) + firsts_.capacity() * sizeof(ip_prefix) +
           chunks_.size() * chunk_capacity * sizeof(Item);
  }
  [[nodiscard]] std::vector<chunk>& chunks() noexcept { return chunks_; }
  [[nodiscard]] const std::vector<chunk>& chunks() const noexcept { return chunks_; }
  [[nodiscard]] Item& at(position where) noexcept {
    return chunks_[where.chunk].items[where.index];
  }
  [[nodiscard]] const Item& at(position where) const noexcept {
    return chunks_[where.chunk].items[where.index];
  }
  [[nodiscard]] position end() const noexcept { return {chunks_.size(), 0}; }
  [[nodiscard]] bool is_end(position where) const noexcept { return where.chunk == chunks_.size(); }
  [[nodiscard]] position next(position where) const noexcept {
    if (++where.index < chunks_[where.chunk].items.size()) return where;
    return {where.chunk + 1, 0};
  }
  /// There is an item before `where`.
  [[nodiscard]] position previous(position where) const noexcept {
    if (where.index > 0) return {where.chunk, where.index - 1};
    return {where.chunk - 1, chunks_[where.chunk - 1].items.size() - 1};
  }

  /// The first item behind `prefix`.
  [[nodiscard]] position upper_bound(const ip_prefix& prefix) const noexcept {
    if (chunks_.empty()) return {};
    const std::size_t number = chunk_of(prefix);
    const auto& items = chunks_[number].items;
    const auto found = std::ranges::upper_bound(items, prefix, {}, Prefix);
    if (found == items.end()) return {number + 1, 0};
    return {number, static_cast<std::size_t>(found - items.begin())};
  }
  [[nodiscard]] const Item* find(const ip_prefix& prefix) const noexcept {
    if (chunks_.empty()) return nullptr;
    const auto& items = chunks_[chunk_of(prefix)].items;
    const auto found = std::ranges::lower_bound(items, prefix, {}, Prefix);
    return found != items.end() && (*found).*Prefix == prefix ? &*found : nullptr;
  }
  [[nodiscard]] Item* find(const ip_prefix& prefix) noexcept {
    return const_cast<Item*>(std::as_const(*this).find(prefix));
  }
  /// The item with this prefix, a new one if there was none.
  Item& insert(const ip_prefix& prefix);
  /// `prefix` is there.
  void erase(const ip_prefix& prefix);
  /// Erases the items for which `gone(item)` is true, in order.
  template <class Predicate>
  void erase_if(Predicate&& gone);
  /// Erases the last `count` items, or all if there are fewer; gives their memory back.
  void drop_back(std::size_t count) noexcept;
  /// The chunk that holds, or would hold, `prefix`. There is at least one item.
  [[nodiscard]] chunk& chunk_with(const ip_prefix& prefix) noexcept {
    return chunks_[chunk_of(prefix)];
  }
  /// Replaces everything; `sorted` has no duplicates.
  void assign(const std::vector<Item>& sorted);
  void clear() noexcept {
    chunks_.clear();
    firsts_.clear();
    size_ = 0;
  }

  template <class F>
  void for_each(F&& f) {
    for (chunk& part : chunks_)
      for (Item& one : part.items) f(one);
  }

 private:
  static constexpr std::size_t chunk_capacity = 256;

  /// The last chunk that begins at or before `prefix`; the first one if none does.
  [[nodiscard]] std::size_t chunk_of(const ip_prefix& prefix) const noexcept {
    if (last_ < firsts_.size() && !(prefix < firsts_[last_]) &&
        (last_ + 1 == firsts_.size() || prefix < firsts_[last_ + 1]))
      return last_;
    const auto behind = std::ranges::upper_bound(firsts_, prefix);
    last_ = behind == firsts_.begin() ? 0 : static_cast<std::size_t>(behind - firsts_.begin()) - 1;
    return last_;
  }
  void split(std::size_t number, const ip_prefix& for_prefix);

  std::vector<chunk> chunks_;
  std::vector<ip_prefix> firsts_;  ///< First prefix of each chunk: what a search looks at.
  std::size_t size_ = 0;
  mutable std::size_t last_ = 0;  ///< Chunk of the last search.
};

/// Makes room in a full chunk. What belongs behind the last item of all gets a chunk of its own.
template <class Item, ip_prefix Item::*Prefix>
void prefix_map<Item, Prefix>::split(std::size_t number, const ip_prefix& for_prefix) {
  chunk upper;
  upper.items.reserve(chunk_capacity);
  auto& items = chunks_[number].items;
  const bool appends = number + 1 == chunks_.size() && items.back().*Prefix < for_prefix;
  const auto middle = appends ? items.end() : items.begin() + chunk_capacity / 2;
  upper.items.assign(std::make_move_iterator(middle), std::make_move_iterator(items.end()));
  items.erase(middle, items.end());
  const auto place = static_cast<std::ptrdiff_t>(number) + 1;
  firsts_.insert(firsts_.begin() + place, appends ? for_prefix : upper.items.front().*Prefix);
  chunks_.insert(chunks_.begin() + place, std::move(upper));
}

template <class Item, ip_prefix Item::*Prefix>
Item& prefix_map<Item, Prefix>::insert(const ip_prefix& prefix) {
  if (chunks_.empty()) {
    chunks_.emplace_back().items.reserve(chunk_capacity);
    firsts_.push_back(prefix);
  }
  std::size_t number = chunk_of(prefix);
  auto where = std::ranges::lower_bound(chunks_[number].items, prefix, {}, Prefix);
  if (where != chunks_[number].items.end() && (*where).*Prefix == prefix) return *where;
  if (chunks_[number].items.size() == chunk_capacity) {
    split(number, prefix);
    if (!(prefix < firsts_[number + 1])) ++number;
    where = std::ranges::lower_bound(chunks_[number].items, prefix, {}, Prefix);
  }
  chunk& part = chunks_[number];
  part.summary.reset();
  Item fresh;
  fresh.*Prefix = prefix;
  const auto made = part.items.insert(where, std::move(fresh));
  firsts_[number] = part.items.front().*Prefix;
  ++size_;
  return *made;
}

template <class Item, ip_prefix Item::*Prefix>
void prefix_map<Item, Prefix>::erase(const ip_prefix& prefix) {
  const std::size_t number = chunk_of(prefix);
  chunk& part = chunks_[number];
  const auto where = std::ranges::lower_bound(part.items, prefix, {}, Prefix);
  COWIRE_ASSERT(where != part.items.end() && (*where).*Prefix == prefix);
  part.items.erase(where);
  part.summary.reset();
  --size_;
  if (part.items.empty()) {
    chunks_.erase(chunks_.begin() + static_cast<std::ptrdiff_t>(number));
    firsts_.erase(firsts_.begin() + static_cast<std::ptrdiff_t>(number));
  } else {
    firsts_[number] = part.items.front().*Prefix;
  }
}

template <class Item, ip_prefix Item::*Prefix>
template <class Predicate>
void prefix_map<Item, Prefix>::erase_if(Predicate&& gone) {
  for (chunk& part : chunks_) {
    const std::size_t erased = std::erase_if(part.items, gone);
    if (erased > 0) part.summary.reset();
    size_ -= erased;
  }
  std::erase_if(chunks_, [](const chunk& part) { return part.items.empty(); });
  firsts_.clear();
  for (const chunk& part : chunks_) firsts_.push_back(part.items.front().*Prefix);
}

template <class Item, ip_prefix Item::*Prefix>
void prefix_map<Item, Prefix>::drop_back(std::size_t count) noexcept {
  for (; count > 0 && !chunks_.empty(); --count, --size_) {
    chunks_.back().items.pop_back();
    if (!chunks_.back().items.empty()) continue;
    chunks_.pop_back();
    firsts_.pop_back();
  }
}

template <class Item, ip_prefix Item::*Prefix>
void prefix_map<Item, Prefix>::assign(const std::vector<Item>& sorted) {
  clear();
  constexpr std::size_t filled = chunk_capacity * 3 / 4;  // Room for what comes later.
  for (std::size_t from = 0; from < sorted.size(); from += filled) {
    const auto begin = sorted.begin() + static_cast<std::ptrdiff_t>(from);
    const auto end =
        sorted.begin() + static_cast<std::ptrdiff_t>(std::min(sorted.size(), from + filled));
    chunk& part = chunks_.emplace_back();
    part.items.reserve(chunk_capacity);
    part.items.assign(begin, end);
    firsts_.push_back((*begin).*Prefix);
  }
  size_ = sorted.size();
}

}  // namespace cowire::detail

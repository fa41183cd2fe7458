// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/route/detail/cover.hpp>
#include <cowire/route/detail/region_map.hpp>

#include <algorithm>
#include <iterator>

namespace cowire::detail {

std::size_t region_map::bytes() const noexcept {
  return chunks_.capacity() * sizeof(chunk) + firsts_.capacity() * sizeof(ip_prefix) +
         chunks_.size() * chunk_capacity * sizeof(region);
}

region_map::position region_map::next(position where) const noexcept {
  if (++where.index < chunks_[where.chunk].items.size()) return where;
  return {where.chunk + 1, 0};
}

/// The last chunk that begins at or before `prefix`; the first one if none does.
std::size_t region_map::chunk_of(const ip_prefix& prefix) const noexcept {
  const auto behind = std::ranges::upper_bound(firsts_, prefix);
  return behind == firsts_.begin() ? 0 : static_cast<std::size_t>(behind - firsts_.begin()) - 1;
}

region_map::position region_map::upper_bound(const ip_prefix& prefix) const noexcept {
  if (chunks_.empty()) return {};
  const std::size_t number = chunk_of(prefix);
  const auto& items = chunks_[number].items;
  const auto found = std::ranges::upper_bound(items, prefix, {}, &region::prefix);
  if (found == items.end()) return {number + 1, 0};
  return {number, static_cast<std::size_t>(found - items.begin())};
}

region* region_map::find(const ip_prefix& prefix) noexcept {
  if (chunks_.empty()) return nullptr;
  auto& items = chunks_[chunk_of(prefix)].items;
  const auto found = std::ranges::lower_bound(items, prefix, {}, &region::prefix);
  return found != items.end() && found->prefix == prefix ? &*found : nullptr;
}

region* region_map::parent(const ip_prefix& prefix) noexcept {
  if (prefix.length() == 0) return nullptr;
  ip_prefix key(prefix.address(), prefix.length() - 1);
  for (;;) {
    position where = upper_bound(key);
    if (where.index == 0) {
      if (where.chunk == 0) return nullptr;
      --where.chunk;
      where.index = chunks_[where.chunk].items.size();
    }
    --where.index;
    region& before = at(where);
    if (before.prefix.contains(prefix)) return &before;
    // Nothing that contains `prefix` lies between `before` and `key`, so the next candidate is no
    // longer than what both share.
    key = ip_prefix(prefix.address(), common_length(before.prefix.address(), prefix.address()));
  }
}

region& region_map::insert(const ip_prefix& prefix) {
  if (chunks_.empty()) {
    chunks_.emplace_back();
    firsts_.push_back(prefix);
  }
  std::size_t number = chunk_of(prefix);
  if (chunks_[number].items.size() == chunk_capacity) {
    chunk upper;
    auto& items = chunks_[number].items;
    const auto middle = items.begin() + chunk_capacity / 2;
    upper.items.reserve(chunk_capacity);
    upper.items.assign(middle, items.end());
    items.erase(middle, items.end());
    const auto place = static_cast<std::ptrdiff_t>(number) + 1;
    firsts_.insert(firsts_.begin() + place, upper.items.front().prefix);
    chunks_.insert(chunks_.begin() + place, std::move(upper));
    if (!(prefix < firsts_[number + 1])) ++number;
  }
  chunk& part = chunks_[number];
  const auto where = std::ranges::lower_bound(part.items, prefix, {}, &region::prefix);
  if (where != part.items.end() && where->prefix == prefix) return *where;
  part.summary.reset();
  region fresh;
  fresh.prefix = prefix;
  const auto made = part.items.insert(where, fresh);
  firsts_[number] = part.items.front().prefix;
  ++size_;
  return *made;
}

void region_map::erase(const ip_prefix& prefix) {
  const std::size_t number = chunk_of(prefix);
  chunk& part = chunks_[number];
  const auto where = std::ranges::lower_bound(part.items, prefix, {}, &region::prefix);
  COWIRE_ASSERT(where != part.items.end() && where->prefix == prefix);
  part.items.erase(where);
  part.summary.reset();
  --size_;
  if (part.items.empty()) {
    chunks_.erase(chunks_.begin() + static_cast<std::ptrdiff_t>(number));
    firsts_.erase(firsts_.begin() + static_cast<std::ptrdiff_t>(number));
  } else {
    firsts_[number] = part.items.front().prefix;
  }
}

void region_map::assign(const std::vector<region>& sorted) {
  clear();
  constexpr std::size_t filled = chunk_capacity * 3 / 4;  // Room for what comes later.
  for (std::size_t from = 0; from < sorted.size(); from += filled) {
    const auto begin = sorted.begin() + static_cast<std::ptrdiff_t>(from);
    const auto end =
        sorted.begin() + static_cast<std::ptrdiff_t>(std::min(sorted.size(), from + filled));
    chunk& part = chunks_.emplace_back();
    part.items.reserve(chunk_capacity);
    part.items.assign(begin, end);
    firsts_.push_back(begin->prefix);
  }
  size_ = sorted.size();
}

void region_map::clear() noexcept {
  chunks_.clear();
  firsts_.clear();
  size_ = 0;
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// What is different between two sorted lists that share most of what they hold.
#pragma once

#include <cowire/base/shared_list.hpp>

#include <cstddef>
#include <unordered_set>
#include <vector>

namespace cowire::detail {

/// More is told by one element more than that.
inline constexpr std::size_t differing_max = 256;

/// What only one of two lists has, or both have differently: then it is there twice. Only chunks
/// that are not in both are looked into. Pointers are into the lists.
template <class List, class Before>
[[nodiscard]] std::vector<const typename List::value_type*> differing(const List& before,
                                                                      const List& now,
                                                                      const Before& is_before) {
  using value = typename List::value_type;
  const auto listed = [](const List& of, const List& beside) {
    std::unordered_set<const void*> shared;
    for (const auto& chunk : beside.chunks()) shared.insert(chunk.get());
    std::vector<const value*> all;
    for (const auto& chunk : of.chunks())
      if (!shared.contains(chunk.get()))
        for (const value& one : *chunk) all.push_back(&one);
    return all;
  };
  const auto old = listed(before, now), fresh = listed(now, before);
  std::vector<const value*> out;
  auto a = old.begin(), b = fresh.begin();
  while ((a != old.end() || b != fresh.end()) && out.size() <= differing_max) {
    if (b == fresh.end() || (a != old.end() && is_before(**a, **b))) {
      out.push_back(*a++);
    } else if (a == old.end() || is_before(**b, **a)) {
      out.push_back(*b++);
    } else {
      if (!(**a == **b)) out.insert(out.end(), {*a, *b});
      ++a, ++b;
    }
  }
  return out;
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// The shortest story that still shows a failure.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace cowire::testing {

/// The lines without which `fails(lines)` no longer holds: ever smaller pieces are left out as long
/// as the rest still fails.
template <class Predicate>
std::vector<std::string> reduced(std::vector<std::string> lines, Predicate&& fails) {
  for (std::size_t piece = std::max<std::size_t>(lines.size() / 2, 1);;) {
    bool smaller = false;
    for (std::size_t end = lines.size(); end > 0; end -= std::min(end, piece)) {
      const std::size_t begin = end - std::min(end, piece);
      std::vector<std::string> rest(lines.begin(),
                                    lines.begin() + static_cast<std::ptrdiff_t>(begin));
      rest.insert(rest.end(), lines.begin() + static_cast<std::ptrdiff_t>(end), lines.end());
      if (!fails(rest)) continue;
      lines = std::move(rest);
      smaller = true;
    }
    if (piece == 1 && !smaller) return lines;
    piece = std::max<std::size_t>(piece / 2, 1);
  }
}

}  // namespace cowire::testing

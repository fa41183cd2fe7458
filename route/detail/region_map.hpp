// SPDX-License-Identifier: Apache-2.0
/// The prefixes that a compiler tells apart, in order, and what is known of each.
///
/// The compiler's thread only.
#pragma once

#include <cowire/route/detail/prefix_map.hpp>

#include <cstdint>

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

class region_map : public prefix_map<region, &region::prefix> {
 public:
  /// The longest prefix that contains `prefix` and is not the same; null if there is none.
  [[nodiscard]] region* parent(const ip_prefix& prefix) noexcept;
  void forget_summaries() noexcept {
    for (chunk& part : chunks()) part.summary.reset();
  }
};

}  // namespace cowire::detail

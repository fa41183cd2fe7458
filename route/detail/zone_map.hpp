// SPDX-License-Identifier: Apache-2.0
/// Destinations that the output path treats alike, as prefixes: the boundaries that it adds to the
/// compiler's regions.
///
/// A *zone* is a set of destinations for which every question that the compiler has asked about the
/// output path has the same answer. A hundred thousand addresses of one set are one zone.
///
/// Values and pure functions.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/route/detail/address_set.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace cowire::detail {

/// 0 = the output path tells nothing apart.
using zone_id = std::uint32_t;

/// Destinations inside the prefix, and inside none of the longer ones, are of the zone.
struct zone_prefix {
  ip_prefix prefix;
  zone_id zone = 0;
  friend auto operator<=>(const zone_prefix&, const zone_prefix&) = default;
  friend bool operator==(const zone_prefix&, const zone_prefix&) = default;
};

/// From here to the next one's beginning.
struct zone_piece {
  address_number first = 0;
  zone_id zone = 0;
};

/// Few prefixes that say the same, sorted; the shortest is the whole address space. `pieces` cover
/// all of it, in order. Empty where there is only one zone.
[[nodiscard]] std::vector<zone_prefix> prefixes_of(ip_family family,
                                                   std::span<const zone_piece> pieces);

/// Of a prefix of which `pieces` cover all, the first beginning where it does: what is said inside
/// it where `inherited` is said around it. Sorted.
[[nodiscard]] std::vector<zone_prefix> prefixes_within(const ip_prefix& whole, zone_id inherited,
                                                       std::span<const zone_piece> pieces);

/// Among prefixes as prefixes_of() returns them, the longest that contains this one and is shorter
/// than `below`; null if there is none.
[[nodiscard]] const zone_prefix* find_around(std::span<const zone_prefix> prefixes,
                                             const ip_prefix& inner, unsigned below);

/// The fewest prefixes that together are an interval; in order.
[[nodiscard]] std::vector<ip_prefix> prefixes_in(ip_family family,
                                                 const address_set::interval& interval);

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// Which prefixes of a route table contain a given prefix: the one thing that the reference
/// resolver and the compiler do differently (a walk over everything, and a search).
#pragma once

#include <cowire/route/mirror.hpp>

#include <functional>
#include <vector>

namespace cowire::detail {

using cover = const route_table::value_type*;

/// The longest prefix of `table` that contains `region`, or null.
[[nodiscard]] cover longest_cover(const route_table& table, const ip_prefix& region) noexcept;

/// All prefixes of `table` that contain `region`, longest first, appended to nothing: `out` is
/// overwritten.
using cover_search =
    std::function<void(const route_table& table, const ip_prefix& region, std::vector<cover>& out)>;

/// Looks at every prefix of the table.
void covers_by_walk(const route_table& table, const ip_prefix& region, std::vector<cover>& out);
/// A few searches in the ordered map.
void covers_by_search(const route_table& table, const ip_prefix& region, std::vector<cover>& out);

/// Number of leading bits that two addresses of one family have in common.
[[nodiscard]] unsigned common_length(const ip_address& a, const ip_address& b) noexcept;

/// What the kernel calls netif_carrier_ok, as far as a link message shows it.
[[nodiscard]] inline bool has_carrier(const netlink::link& link) noexcept { return link.carrier; }

}  // namespace cowire::detail

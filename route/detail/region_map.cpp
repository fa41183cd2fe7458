// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/cover.hpp>
#include <cowire/route/detail/region_map.hpp>

namespace cowire::detail {

region* region_map::parent(const ip_prefix& prefix) noexcept {
  if (prefix.length() == 0) return nullptr;
  ip_prefix key(prefix.address(), prefix.length() - 1);
  for (;;) {
    const position behind = upper_bound(key);
    if (behind == position{}) return nullptr;
    region& before = at(previous(behind));
    if (before.prefix.contains(prefix)) return &before;
    // Nothing that contains `prefix` lies between `before` and `key`, so the next candidate is no
    // longer than what both share.
    key = ip_prefix(prefix.address(), common_length(before.prefix.address(), prefix.address()));
  }
}

}  // namespace cowire::detail

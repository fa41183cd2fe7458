// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/cover.hpp>

#include <algorithm>
#include <bit>

namespace cowire::detail {
namespace {

/// The first prefix at or before `key` in `table` that contains `region`, or null. `key` covers
/// `region`.
cover search_from(const route_table& table, ip_prefix key, const ip_prefix& region) noexcept {
  for (;;) {
    auto at = table.upper_bound(key);
    if (at == table.begin()) return nullptr;
    --at;
    if (at->first.family() != region.family()) return nullptr;
    if (at->first.contains(region)) return &*at;
    // No cover lies between the one found and `key`, so the next candidate is no longer than what
    // both share.
    key = ip_prefix(region.address(), common_length(at->first.address(), region.address()));
  }
}

}  // namespace

unsigned common_length(const ip_address& a, const ip_address& b) noexcept {
  for (unsigned i = 0; i < a.size(); ++i) {
    const auto differing = static_cast<std::uint8_t>(a.bytes()[i] ^ b.bytes()[i]);
    if (differing != 0) return i * 8 + static_cast<unsigned>(std::countl_zero(differing));
  }
  return a.bits();
}

cover longest_cover(const route_table& table, const ip_prefix& region) noexcept {
  return search_from(table, region, region);
}

void covers_by_walk(const route_table& table, const ip_prefix& region, std::vector<cover>& out) {
  out.clear();
  for (const auto& item : table)
    if (item.first.contains(region)) out.push_back(&item);
  std::ranges::sort(out, std::ranges::greater{}, [](cover c) { return c->first.length(); });
}

void covers_by_search(const route_table& table, const ip_prefix& region, std::vector<cover>& out) {
  out.clear();
  cover found = longest_cover(table, region);
  while (found != nullptr) {
    out.push_back(found);
    if (found->first.length() == 0) return;
    found = search_from(table, ip_prefix(region.address(), found->first.length() - 1), region);
  }
}

}  // namespace cowire::detail

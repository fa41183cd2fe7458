// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/route_table.hpp>

#include <cowire/route/detail/hasher.hpp>

#include <linux/rtnetlink.h>

#include <algorithm>
#include <utility>

namespace cowire {

bool may_be_left_out(const route_entry& entry, const std::vector<route_entry>& beside) noexcept {
  const netlink::route& route = entry.route;
  const bool siblings = route.nexthop_id == 0 && route.next_hops.size() > 1;
  if (route.destination.family() == ip_family::v4 || siblings) return false;
  return std::ranges::any_of(beside, [&](const route_entry& other) {
    return other.route.nexthop_id == 0 && other.route.next_hops.size() > 1 &&
           other.route.priority == route.priority && other.route.source == route.source;
  });
}
namespace {

/// Of what tells lists apart in practice; equal lists have equal hashes.
std::size_t hash_of(const route_entries::list& entries) noexcept {
  detail::hasher h;
  for (const route_entry& entry : entries) {
    const netlink::route& r = entry.route;
    h.add(std::uint64_t{r.table} << 32 | std::uint64_t{r.tos} << 24 | std::uint64_t{r.scope} << 16 |
          std::uint64_t{r.type} << 8 | r.protocol);
    detail::add_ways(h, r);
    h.add(std::uint64_t{r.metrics.mtu} << 32 | r.metrics.advmss);
    h.add(std::hash<ip_address>{}(r.source.address()) ^ r.source.length());
    if (entry.expires) h.add(static_cast<std::uint64_t>(entry.expires->time_since_epoch().count()));
  }
  return h.result();
}

}  // namespace

bool is_reject(std::uint8_t route_type) noexcept {
  return route_type == RTN_BLACKHOLE || route_type == RTN_UNREACHABLE ||
         route_type == RTN_PROHIBIT || route_type == RTN_THROW;
}

const route_entries::list& route_entries::none() noexcept {
  static const list empty;
  return empty;
}

route_entries route_entries_pool::intern(route_entries::list&& entries) {
  route_entries made;
  if (entries.empty()) return made;
  if (!last_ || *last_ != entries) {
    const std::size_t hash = hash_of(entries);
    const auto [first, last] = known_.equal_range(hash);
    const auto known =
        std::find_if(first, last, [&](const auto& item) { return *item.second == entries; });
    if (known != last) {
      last_ = known->second;
    } else {
      if (known_.size() >= forget_at_) forget_unused();
      last_ = std::make_shared<const route_entries::list>(std::move(entries));
      known_.emplace(hash, last_);
    }
  }
  made.list_ = last_;
  return made;
}

void route_entries_pool::forget_unused() {
  last_.reset();
  std::erase_if(known_, [](const auto& item) { return item.second.use_count() == 1; });
  forget_at_ = 1024 + 2 * known_.size();
}

}  // namespace cowire

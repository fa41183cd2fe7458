// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/mirror_changes.hpp>

namespace cowire {

void mirror_changes::merge(mirror_changes&& other) {
  const auto append = [](auto& to, auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  append(routes, other.routes);
  append(links, other.links);
  append(neighbours, other.neighbours);
  append(path_mtus, other.path_mtus);
  append(nexthops, other.nexthops);
  append(groups, other.groups);
  decisions_v4 |= other.decisions_v4;
  decisions_v6 |= other.decisions_v6;
  refresh_advised |= other.refresh_advised;
  buckets_advised |= other.buckets_advised;
  addresses_advised |= other.addresses_advised;
  netconf_advised |= other.netconf_advised;
  other = {};
}

std::vector<netlink::dump_scope> mirror_changes::advised() const {
  std::vector<netlink::dump_scope> scopes;
  if (addresses_advised) scopes.push_back({object_kind::address, {}});
  if (netconf_advised) scopes.push_back({object_kind::netconf, {ip_family::v4, 0, 0}});
  if (refresh_advised) scopes.push_back({object_kind::nexthop, {}});
  if (buckets_advised) scopes.push_back({object_kind::nexthop_bucket, {}});
  if (refresh_advised) scopes.push_back({object_kind::route, {}});
  return scopes;
}

}  // namespace cowire

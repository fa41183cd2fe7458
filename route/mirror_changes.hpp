// SPDX-License-Identifier: Apache-2.0
/// What messages from the kernel have changed in a mirror.
///
/// Plain values; any thread.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/netlink/message.hpp>
#include <cowire/netlink/request.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cowire {

struct neighbour_key {
  std::uint32_t index = 0;  ///< ifindex.
  ip_address destination;
  friend bool operator==(const neighbour_key&, const neighbour_key&) noexcept = default;
};

/// What one or many apply() calls changed; what the compiler needs to know to redo no more than
/// necessary.
struct mirror_changes {
  struct prefix {
    std::uint32_t table = 0;
    ip_prefix destination;
  };
  std::vector<prefix> routes;
  std::vector<std::uint32_t> links;       ///< MAC, MTU or state of these devices changed.
  std::vector<neighbour_key> neighbours;  ///< State or MAC changed, or it came or went.
  std::vector<ip_address> path_mtus;      ///< Path exceptions learned, changed or gone.
  std::vector<std::uint32_t> nexthops;    ///< Objects that mean something else now.
  std::vector<ip_address> groups;         ///< Multicast groups that gained or lost a membership.
  bool decisions_v4 = false;  ///< Any IPv4 decision may differ: rules, addresses, settings.
  bool decisions_v6 = false;
  /// The kernel may have changed more than it said; re-dump routes and nexthop objects (mark and
  /// sweep).
  bool refresh_advised = false;
  /// It may have dealt the buckets of a resilient group anew; re-dump those.
  bool buckets_advised = false;
  /// It may keep addresses in another order than that in which it announced them; re-dump those.
  bool addresses_advised = false;
  /// It may have given devices another setting; re-dump the IPv4 ones.
  bool netconf_advised = false;

  [[nodiscard]] bool empty() const noexcept {
    return routes.empty() && links.empty() && neighbours.empty() && path_mtus.empty() &&
           nexthops.empty() && groups.empty() && !decisions_v4 && !decisions_v6;
  }
  /// Number of noted changes, for reports.
  [[nodiscard]] std::size_t count() const noexcept {
    return routes.size() + links.size() + neighbours.size() + path_mtus.size() + nexthops.size() +
           groups.size() + decisions_v4 + decisions_v6;
  }
  /// The re-dumps that are advised, in the order in which to make them.
  [[nodiscard]] std::vector<netlink::dump_scope> advised() const;
  void merge(mirror_changes&& other);
};

/// The kinds of object that can be re-dumped on their own.
using object_kind = netlink::object_kind;

/// Where a message came from; a dump lists things in order, a notification names one.
enum class message_origin : std::uint8_t { dump, notification };

}  // namespace cowire

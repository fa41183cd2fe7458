// SPDX-License-Identifier: Apache-2.0
/// All that a mirror is made of, in the order in which it is dumped: by the monitor, by tools that
/// read the kernel once, and by tests.
#pragma once

#include <cowire/netlink/request.hpp>

#include <array>

namespace cowire::netlink {

/// What refers to something comes after it. Routes last: their dump is the long one, and by then
/// everything that they are resolved with is known.
inline constexpr std::array dump_plan = {
    dump_scope{object_kind::link, {}},
    dump_scope{object_kind::address, {}},
    dump_scope{object_kind::netconf, {ip_family::v4, 0, 0}},
    dump_scope{object_kind::netconf, {ip_family::v6, 0, 0}},
    dump_scope{object_kind::membership, {ip_family::v4, 0, 0}},
    dump_scope{object_kind::membership, {ip_family::v6, 0, 0}},
    dump_scope{object_kind::neighbour, {}},
    dump_scope{object_kind::nexthop, {}},
    dump_scope{object_kind::nexthop_bucket, {}},
    dump_scope{object_kind::rule, {ip_family::v4, 0, 0}},
    dump_scope{object_kind::rule, {ip_family::v6, 0, 0}},
    dump_scope{object_kind::route, {ip_family::v4, 0, 0}},
    dump_scope{object_kind::route, {ip_family::v6, 0, 0}},
};

}  // namespace cowire::netlink

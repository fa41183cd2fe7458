// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/bond_reader.hpp>
#include <cowire/follow/detail/device_order.hpp>
#include <cowire/follow/detail/output_reader.hpp>
#include <cowire/follow/detail/rule_question.hpp>
#include <cowire/follow/detail/sysctls.hpp>
#include <cowire/follow/kernel_snapshot.hpp>
#include <cowire/netlink/request_socket.hpp>

#include <chrono>

namespace cowire {

mirror read_mirror() {
  using netlink::object_kind;
  netlink::request_socket socket;
  mirror state;
  mirror_changes changes;
  const auto read = [&](object_kind kind, const netlink::dump_filter& filter = {}) {
    for (const auto& message : socket.dump(kind, filter))
      state.apply(message, changes, message_origin::dump);
  };
  read(object_kind::link);
  for (const auto family : ip_families)
    for (const auto kind : {object_kind::netconf, object_kind::membership})
      read(kind, {.family = family});
  read(object_kind::address);
  read(object_kind::nexthop);  // Before the routes, which name them.
  read(object_kind::nexthop_bucket);
  read(object_kind::route);
  read(object_kind::rule);
  read(object_kind::neighbour);
  detail::bond_reader().settle(state, changes);
  detail::device_order_reader().settle(state, std::chrono::steady_clock::now(), changes);
  state.set_settings(detail::read_mirror_settings(state), changes);
  detail::rule_question rules;
  for (int twice = 0; twice < 2; ++twice) rules.settle(state, changes);
  return state;
}

output_snapshot read_output_path() { return detail::output_reader().read(); }

}  // namespace cowire

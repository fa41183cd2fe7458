// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/kernel_state.hpp>

#include <cowire/follow/detail/output_reader.hpp>
#include <cowire/follow/detail/route_service.hpp>
#include <cowire/netlink/request_socket.hpp>

#include <linux/if_arp.h>

namespace cowire::cli {
namespace {

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
  for (const auto family : {ip_family::v4, ip_family::v6})
    read(object_kind::netconf, {.family = family});
  read(object_kind::address);
  read(object_kind::nexthop);  // Before the routes, which name them.
  read(object_kind::nexthop_bucket);
  read(object_kind::route);
  read(object_kind::rule);
  read(object_kind::neighbour);
  state.set_settings(detail::read_mirror_settings(state), changes);
  return state;
}

}  // namespace

kernel_state::kernel_state() : mirror_(read_mirror()), compiler_(mirror_, epoch_, publisher_) {
  egress_slot slot = divert_slot;
  for (const auto& [index, device] : mirror_.devices())
    if (device.link.hardware_type == ARPHRD_ETHER && device.up())
      compiler_.set_egress(index, ++slot);
  compiler_.set_output(std::make_shared<output_snapshot>(detail::output_reader().read()));
}

}  // namespace cowire::cli

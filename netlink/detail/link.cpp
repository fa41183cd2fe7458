// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/detail/constants.hpp>
#include <cowire/netlink/detail/link_info.hpp>
#include <cowire/netlink/detail/objects.hpp>

#include <linux/if_link.h>
#include <linux/rtnetlink.h>

namespace cowire::netlink::detail {

std::optional<message> decode_link(body in, std::error_code& ec) {
  ifinfomsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  if (header.ifi_family != AF_UNSPEC) return std::nullopt;  // A bridge's or IPv6's partial view.

  link to;
  to.action = in.action(RTM_DELLINK);
  to.index = static_cast<std::uint32_t>(header.ifi_index);
  to.hardware_type = header.ifi_type;
  to.flags = header.ifi_flags;
  bool wireless_event = false;
  for_each_attribute(in.bytes, ec, [&](const attribute& a) {
    switch (a.type) {
      case IFLA_IFNAME:
        return read(a, to.name, ec);
      case IFLA_IFALIAS:
        return read(a, to.alias, ec);
      case IFLA_MTU:
        return read(a, to.mtu, ec);
      case IFLA_ADDRESS:
        return read(a, to.address, ec);
      case IFLA_BROADCAST:
        return read(a, to.broadcast, ec);
      case IFLA_MASTER:
        return read(a, to.master, ec);
      case IFLA_LINK:
        return read(a, to.lower, ec);
      case IFLA_LINK_NETNSID:
        to.lower_in_other_namespace = true;
        return;
      case IFLA_GROUP:
        return read(a, to.group, ec);
      case IFLA_NUM_TX_QUEUES:
        return read(a, to.transmit_queues, ec);
      case IFLA_OPERSTATE:
        return read(a, to.operational_state, ec);
      case IFLA_CARRIER:
        return read_flag<std::uint8_t>(a, to.carrier, ec);
      case IFLA_LINKINFO:
        return read_link_info(a.payload, to, ec);
      case IFLA_WIRELESS:
        wireless_event = true;
        return;
      default:  // Statistics, XDP, ...: no bearing on what a sender does.
        if (a.type > ifla_tailroom) to.unknown.push_back(a.type);
        return;
    }
  });
  if (ec || wireless_event) return std::nullopt;  // The latter lacks everything but the name.
  return to;
}

std::vector<std::byte> encode_object(const link& from) {
  ifinfomsg header{};
  header.ifi_type = from.hardware_type;
  header.ifi_index = static_cast<int>(from.index);
  header.ifi_flags = from.flags;
  message_builder to(type_for(from.action, RTM_NEWLINK, RTM_DELLINK), 0, 0, header);
  put_if_set(to, IFLA_IFNAME, from.name);
  put_if_set(to, IFLA_IFALIAS, from.alias);
  to.put(IFLA_MTU, from.mtu);
  to.put(IFLA_OPERSTATE, from.operational_state);
  to.put(IFLA_GROUP, from.group);
  to.put(IFLA_CARRIER, std::uint8_t{from.carrier});
  put_if_set(to, IFLA_MASTER, from.master);
  put_if_set(to, IFLA_LINK, from.lower);
  if (from.lower_in_other_namespace) to.put(IFLA_LINK_NETNSID, std::int32_t{0});
  put_if_set(to, IFLA_ADDRESS, from.address);
  put_if_set(to, IFLA_BROADCAST, from.broadcast);
  to.put(IFLA_NUM_TX_QUEUES, from.transmit_queues);
  put_link_info(to, from);
  return std::move(to).finish();
}

}  // namespace cowire::netlink::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/detail/objects.hpp>

#include <linux/netconf.h>
#include <linux/rtnetlink.h>

namespace cowire::netlink::detail {

std::optional<message> decode_netconf(body in, std::error_code& ec) {
  netconfmsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  const auto family = family_from(header.ncm_family);
  if (!family) return std::nullopt;

  netconf to;
  to.action = in.action(RTM_DELNETCONF);
  to.family = *family;
  std::optional<std::int32_t> index;
  for_each_attribute(in.bytes, ec, [&](const attribute& a) {
    bool value = false;
    switch (a.type) {
      case NETCONFA_IFINDEX:
        return read(a, index, ec);
      case NETCONFA_FORWARDING:
        read_flag<std::uint32_t>(a, value, ec);
        to.forwarding = value;
        return;
      case NETCONFA_IGNORE_ROUTES_WITH_LINKDOWN:
        read_flag<std::uint32_t>(a, value, ec);
        to.ignore_routes_with_linkdown = value;
        return;
      case NETCONFA_MC_FORWARDING:
        read_flag<std::uint32_t>(a, value, ec);
        to.multicast_forwarding = value;
        return;
      default:
        return;
    }
  });
  if (!ec && !index) ec = error::malformed;
  if (ec) return std::nullopt;
  to.index = *index;
  return to;
}

std::vector<std::byte> encode_object(const netconf& from) {
  const netconfmsg header{family_number(from.family)};
  message_builder to(type_for(from.action, RTM_NEWNETCONF, RTM_DELNETCONF), 0, 0, header);
  to.put(NETCONFA_IFINDEX, from.index);
  if (from.forwarding) to.put(NETCONFA_FORWARDING, std::int32_t{*from.forwarding});
  if (from.ignore_routes_with_linkdown)
    to.put(NETCONFA_IGNORE_ROUTES_WITH_LINKDOWN, std::int32_t{*from.ignore_routes_with_linkdown});
  if (from.multicast_forwarding)
    to.put(NETCONFA_MC_FORWARDING, std::int32_t{*from.multicast_forwarding});
  return std::move(to).finish();
}

}  // namespace cowire::netlink::detail

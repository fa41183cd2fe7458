// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/detail/objects.hpp>

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

namespace cowire::netlink::detail {

std::optional<message> decode_neighbour(body in, std::error_code& ec) {
  ndmsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  const auto family = family_from(header.ndm_family);
  if (!family) return std::nullopt;  // Bridge forwarding entries share the message type.

  neighbour to;
  to.action = in.action(RTM_DELNEIGH);
  to.index = static_cast<std::uint32_t>(header.ndm_ifindex);
  to.state = header.ndm_state;
  to.flags = header.ndm_flags;
  to.type = header.ndm_type;
  std::optional<ip_address> destination;
  for_each_attribute(in.bytes, ec, [&](const attribute& a) {
    switch (a.type) {
      case NDA_DST:
        return read(a, *family, destination, ec);
      case NDA_LLADDR:
        return read(a, to.link_address, ec);
      case NDA_FLAGS_EXT:
        return read(a, to.extended_flags, ec);
      default:  // Ages, probe counts, who made it.
        if (a.type > NDA_NDM_FLAGS_MASK) to.unknown.push_back(a.type);
        return;
    }
  });
  if (!ec && !destination) ec = error::malformed;
  if (ec) return std::nullopt;
  to.destination = *destination;
  return to;
}

std::vector<std::byte> encode_object(const neighbour& from) {
  ndmsg header{};
  header.ndm_family = family_number(from.destination.family());
  header.ndm_ifindex = static_cast<int>(from.index);
  header.ndm_state = from.state;
  header.ndm_flags = from.flags;
  header.ndm_type = from.type;
  message_builder to(type_for(from.action, RTM_NEWNEIGH, RTM_DELNEIGH), 0, 0, header);
  to.put(NDA_DST, from.destination);
  put_if_set(to, NDA_LLADDR, from.link_address);
  put_if_set(to, NDA_FLAGS_EXT, from.extended_flags);
  return std::move(to).finish();
}

}  // namespace cowire::netlink::detail

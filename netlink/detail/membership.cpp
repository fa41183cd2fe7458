// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/detail/constants.hpp>
#include <cowire/netlink/detail/objects.hpp>

#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

namespace cowire::netlink::detail {

std::optional<message> decode_membership(body in, std::error_code& ec) {
  ifaddrmsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  const auto family = family_from(header.ifa_family);
  if (!family) return std::nullopt;

  membership to;
  to.action = in.action(rtm_delmulticast);
  to.index = header.ifa_index;
  std::optional<ip_address> group;
  for_each_attribute(in.bytes, ec, [&](const attribute& a) {
    if (a.type == IFA_MULTICAST) read(a, *family, group, ec);
  });
  if (!ec && !group) ec = error::malformed;
  if (ec) return std::nullopt;
  to.group = *group;
  return to;
}

std::vector<std::byte> encode_object(const membership& from) {
  ifaddrmsg header{};
  header.ifa_family = family_number(from.group.family());
  header.ifa_prefixlen = static_cast<std::uint8_t>(from.group.bits());
  header.ifa_flags = IFA_F_PERMANENT;
  header.ifa_index = from.index;
  message_builder to(type_for(from.action, rtm_newmulticast, rtm_delmulticast), 0, 0, header);
  to.put(IFA_MULTICAST, from.group);
  return std::move(to).finish();
}

}  // namespace cowire::netlink::detail

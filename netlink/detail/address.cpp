// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/detail/objects.hpp>

#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

namespace cowire::netlink::detail {

std::optional<message> decode_address(body in, std::error_code& ec) {
  ifaddrmsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  const auto family = family_from(header.ifa_family);
  if (!family) return std::nullopt;

  address to;
  to.action = in.action(RTM_DELADDR);
  to.index = header.ifa_index;
  to.prefix_length = header.ifa_prefixlen;
  to.flags = header.ifa_flags;
  to.scope = header.ifa_scope;
  std::optional<ip_address> local, subnet;
  for_each_attribute(in.bytes, ec, [&](const attribute& a) {
    switch (a.type) {
      case IFA_ADDRESS:
        return read(a, *family, subnet, ec);
      case IFA_LOCAL:
        return read(a, *family, local, ec);
      case IFA_LABEL:
        return read(a, to.label, ec);
      case IFA_FLAGS:
        return read(a, to.flags, ec);
      case IFA_CACHEINFO: {
        ifa_cacheinfo info{};
        read(a, info, ec);
        to.preferred_s = info.ifa_prefered;
        to.valid_s = info.ifa_valid;
        return;
      }
      default:
        if (a.type > IFA_PROTO) to.unknown.push_back(a.type);
        return;
    }
  });
  if (ec) return std::nullopt;
  if ((!local && !subnet) || to.prefix_length > ip_address::any(*family).bits()) {
    ec = error::malformed;
    return std::nullopt;
  }
  to.local = local ? *local : *subnet;
  to.peer = subnet ? *subnet : *local;
  return to;
}

std::vector<std::byte> encode_object(const address& from) {
  ifaddrmsg header{};
  header.ifa_family = family_number(from.local.family());
  header.ifa_prefixlen = from.prefix_length;
  header.ifa_flags = static_cast<std::uint8_t>(from.flags);
  header.ifa_scope = from.scope;
  header.ifa_index = from.index;
  message_builder to(type_for(from.action, RTM_NEWADDR, RTM_DELADDR), 0, 0, header);
  to.put(IFA_ADDRESS, from.peer);
  to.put(IFA_LOCAL, from.local);
  put_if_set(to, IFA_LABEL, from.label);
  to.put(IFA_FLAGS, from.flags);
  to.put(IFA_CACHEINFO, ifa_cacheinfo{from.preferred_s, from.valid_s, 0, 0});
  return std::move(to).finish();
}

}  // namespace cowire::netlink::detail

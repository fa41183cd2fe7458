// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/tunnel_kind.hpp>

#include <algorithm>
#include <array>

namespace cowire::netlink {
namespace {

constexpr std::array<tunnel_kind, 8> kinds = {{
    {"gre", ip_family::v4, true, false, true, "ip_gre", "CONFIG_NET_IPGRE"},
    {"gretap", ip_family::v4, true, true, true, "ip_gre", "CONFIG_NET_IPGRE"},
    {"erspan", ip_family::v4, true, true, false, "ip_gre", "CONFIG_NET_IPGRE"},
    {"ip6gre", ip_family::v6, true, false, true, "ip6_gre", "CONFIG_IPV6_GRE"},
    {"ip6gretap", ip_family::v6, true, true, true, "ip6_gre", "CONFIG_IPV6_GRE"},
    {"ipip", ip_family::v4, false, false, true, "ipip", "CONFIG_NET_IPIP"},
    {"sit", ip_family::v4, false, false, true, "sit", "CONFIG_IPV6_SIT"},
    {"ip6tnl", ip_family::v6, false, false, true, "ip6_tunnel", "CONFIG_IPV6_TUNNEL"},
}};

}  // namespace

const tunnel_kind* find_tunnel_kind(std::string_view name) noexcept {
  const auto found = std::ranges::find(kinds, name, &tunnel_kind::name);
  return found == kinds.end() ? nullptr : &*found;
}

}  // namespace cowire::netlink

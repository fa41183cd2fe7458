// SPDX-License-Identifier: Apache-2.0
/// What the kernel keeps of a tunnel device, as plain data.
#pragma once

#include <cowire/base/address.hpp>

#include <cstdint>

namespace cowire::netlink {

/// IFLA_INFO_DATA of the kinds that find_tunnel_kind() knows (tunnel_kind.hpp).
/// Defaults are what an absent attribute means to the kernel (iproute2's own defaults differ).
struct tunnel_info {
  std::uint32_t link = 0;                 ///< ifindex the outer route is bound to, 0 = any.
  std::uint16_t input_flags = 0;          ///< Of base/gre_flag.hpp.
  std::uint16_t output_flags = 0;         ///< As input_flags, for what is sent.
  be32 input_key, output_key;             ///< On the wire only if the flags say so.
  ip_address local, remote;               ///< Unspecified = any.
  std::uint8_t ttl = 0;                   ///< 0 = inherit.
  std::uint8_t tos = 0;                   ///< Bit 0 = inherit.
  bool pmtu_discovery = true;             ///< DF in the outer header.
  bool ignore_df = false;                 ///< Whatever the inner header's DF is.
  std::uint32_t fwmark = 0;               ///< Of the outer datagrams; 0 = none.
  std::uint16_t encapsulation_type = 0;   ///< TUNNEL_ENCAP_*: 0 none, 1 FOU, 2 GUE.
  std::uint16_t encapsulation_flags = 0;  ///< TUNNEL_ENCAP_FLAG_*.
  be16 encapsulation_source_port, encapsulation_destination_port;  ///< UDP.
  bool collect_metadata = false;  ///< Each route has its own outer header (`external`).
  std::uint8_t encap_limit = 0;   ///< IPv6 tunnels.
  be32 flow_info;                 ///< IPv6 tunnels: traffic class << 20 | flow label.
  std::uint32_t flags = 0;        ///< IPv6 tunnels: IP6_TNL_F_*; sit: SIT flags.
  std::uint8_t protocol = 0;      ///< ipip, sit, ip6tnl: IFLA_IPTUN_PROTO.
  friend bool operator==(const tunnel_info&, const tunnel_info&) = default;
};

}  // namespace cowire::netlink

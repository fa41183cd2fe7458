// SPDX-License-Identifier: Apache-2.0
/// IPsec policies for output as NETLINK_XFRM tells them: whom one is for, and whether it does
/// anything.
///
/// Plain values; numbers are in host order. Source: include/uapi/linux/xfrm.h; what a selector
/// matches is in net/xfrm/xfrm_policy.c, xfrm_policy_match() and xfrm_selector_match().
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/shared_list.hpp>

#include <cstdint>

namespace cowire::netlink {

struct xfrm_policy {
  /// The kernel's number of it, which sockets that were cloned (accept()) share (clone_policy() in
  /// net/xfrm/xfrm_policy.c), and no two others of a namespace.
  std::uint32_t index = 0;
  bool of_a_socket = false;  ///< Set with IP_XFRM_POLICY; these are not announced.
  /// It lets datagrams pass as they are: it allows, and has no template of a transformation.
  bool harmless = false;
  bool blocks = false;
  ip_prefix source, destination;  ///< Both of the family that it is for.
  /// Bits that a port must have; a mask of 0 is any port.
  std::uint16_t source_port = 0, source_port_mask = 0;
  std::uint16_t destination_port = 0, destination_port_mask = 0;
  std::uint8_t protocol = 0;  ///< 0 = any.
  std::uint32_t mark = 0, mark_mask = 0;
  std::uint32_t if_id = 0;  ///< Not 0: of what passes such an xfrm device only.
  friend bool operator==(const xfrm_policy&, const xfrm_policy&) = default;
};

/// By ascending index. Copies share what is the same.
using xfrm_policies = shared_list<xfrm_policy>;

}  // namespace cowire::netlink

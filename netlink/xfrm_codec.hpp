// SPDX-License-Identifier: Apache-2.0
/// What NETLINK_XFRM tells of IPsec policies: each of them, how many there are, and the default.
///
/// As codec.hpp: no I/O, no state, no trust. Any thread.
/// Source: include/uapi/linux/xfrm.h, net/xfrm/xfrm_user.c.
#pragma once

#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/xfrm_message.hpp>

#include <cstdint>
#include <optional>
#include <vector>

namespace cowire::netlink {

/// XFRMNLGRP_POLICY: policies made, removed and flushed, and changes of the default.
inline constexpr int xfrm_policy_group = 4;

struct xfrm_policy_counts {
  std::uint32_t output = 0;      ///< Of the namespace.
  std::uint32_t of_sockets = 0;  ///< For output, of all sockets of the namespace.
  friend bool operator==(const xfrm_policy_counts&, const xfrm_policy_counts&) = default;
};

[[nodiscard]] std::vector<std::byte> xfrm_counts_request(std::uint32_t sequence);
/// A dump of all policies, whatever their direction.
[[nodiscard]] std::vector<std::byte> xfrm_policies_request(std::uint32_t sequence);
/// Since 5.15; older kernels answer EINVAL and have no default but to accept.
[[nodiscard]] std::vector<std::byte> xfrm_default_request(std::uint32_t sequence);

/// Empty without error: another message.
[[nodiscard]] std::optional<xfrm_policy_counts> decode_xfrm_counts(const envelope& answer,
                                                                   std::error_code& ec);
/// What a dump or a notification says of one policy.
struct xfrm_policy_change {
  bool removed = false;
  bool output = false;  ///< Or it is for another direction; then nothing else is told.
  xfrm_policy policy;
};
/// Empty without error: another message, such as a flush.
[[nodiscard]] std::optional<xfrm_policy_change> decode_xfrm_change(const envelope& answer,
                                                                   std::error_code& ec);
/// Whether output without a policy is blocked.
[[nodiscard]] std::optional<bool> decode_xfrm_default_blocks(const envelope& answer,
                                                             std::error_code& ec);

}  // namespace cowire::netlink

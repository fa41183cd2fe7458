// SPDX-License-Identifier: Apache-2.0
/// What NETLINK_XFRM tells of IPsec policies as a whole: how many there are, and the default.
///
/// As codec.hpp: no I/O, no state, no trust. Any thread.
/// Source: include/uapi/linux/xfrm.h, net/xfrm/xfrm_user.c.
#pragma once

#include <cowire/netlink/codec.hpp>

#include <cstdint>
#include <optional>
#include <vector>

namespace cowire::netlink {

/// XFRMNLGRP_POLICY: policies made, removed and flushed, and changes of the default.
inline constexpr int xfrm_policy_group = 4;

struct xfrm_policy_counts {
  std::uint32_t output = 0;  ///< Of the namespace and of its sockets.
  friend bool operator==(const xfrm_policy_counts&, const xfrm_policy_counts&) = default;
};

[[nodiscard]] std::vector<std::byte> xfrm_counts_request(std::uint32_t sequence);
/// Since 5.15; older kernels answer EINVAL and have no default but to accept.
[[nodiscard]] std::vector<std::byte> xfrm_default_request(std::uint32_t sequence);

/// Empty without error: another message.
[[nodiscard]] std::optional<xfrm_policy_counts> decode_xfrm_counts(const envelope& answer,
                                                                   std::error_code& ec);
/// Whether output without a policy is blocked.
[[nodiscard]] std::optional<bool> decode_xfrm_default_blocks(const envelope& answer,
                                                             std::error_code& ec);

}  // namespace cowire::netlink

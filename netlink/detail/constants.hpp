// SPDX-License-Identifier: Apache-2.0
/// Attribute numbers that the kernel speaks and the oldest supported build headers (6.1) lack.
///
/// Source: the kernel's include/uapi/linux headers named in each group; netlink attribute numbers
/// are ABI and never change. Constants of ours and not macros, so that a newer header, which
/// declares enumerators of the original names, does not clash with them.
#pragma once

#include <cstdint>

namespace cowire::netlink::detail {

// fib_rules.h: DSCP since 6.12, flow label since 6.14, masks since 6.15.
inline constexpr std::uint16_t fra_dscp = 25;
inline constexpr std::uint16_t fra_flowlabel = 26;
inline constexpr std::uint16_t fra_flowlabel_mask = 27;
inline constexpr std::uint16_t fra_sport_mask = 28;
inline constexpr std::uint16_t fra_dport_mask = 29;
inline constexpr std::uint16_t fra_dscp_mask = 30;

// nexthop.h: statistics since 6.9. NHA_OP_FLAGS comes with every group since 6.13.
inline constexpr std::uint16_t nha_op_flags = 14;
inline constexpr std::uint16_t nha_hw_stats_used = 17;

// if_link.h, 6.19: IFLA_TAILROOM, the last attribute whose meaning is known to this code.
inline constexpr std::uint16_t ifla_tailroom = 69;

// rtnetlink.h: memberships are told since 6.14, IPv4 ones dumped since 6.15 (kernel_quirks.hpp).
inline constexpr std::uint16_t rtm_newmulticast = 56;
inline constexpr std::uint16_t rtm_delmulticast = 57;

/// nexthop.h: struct nexthop_grp as it is since 6.13; before, `weight_high` was reserved and zero.
struct nexthop_group_entry {
  std::uint32_t id;
  std::uint8_t weight_low;  ///< With weight_high: the weight less one.
  std::uint8_t weight_high;
  std::uint16_t reserved;
};
static_assert(sizeof(nexthop_group_entry) == 8);

/// The kernel's USER_HZ: the unit of clock_t in messages on every architecture served here.
inline constexpr int clock_ticks_per_s = 100;

}  // namespace cowire::netlink::detail

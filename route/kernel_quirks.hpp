// SPDX-License-Identifier: Apache-2.0
/// The kernel versions, as mirror_settings::kernel_version has them (major * 1000 + minor), from
/// which on a decision is another one. Seen on running kernels, not taken from release notes: what
/// was not seen is a range of versions that the code using it leaves to the kernel.
#pragma once

#include <cstdint>

namespace cowire::kernel_quirks {

/// Removing an IPv4 rule before any was added neither parts the tables local and main nor makes
/// the kernel consult the list (fib4_rule_delete in net/ipv4/fib_rules.c). Seen on 7.3, not on
/// 6.18; the change is of 7.2.
inline constexpr std::uint32_t removed_rules_do_not_count = 7002;

/// IPv4 multipath prefers a next hop whose source is the requested one (fib_select_multipath in
/// net/ipv4/fib_semantics.c); which hops those are is certain from the second version on.
inline constexpr std::uint32_t source_steers_multipath = 6016, source_steers_as_seen = 6018;

/// IPv6 multipath with a bound device: ignores the device up to the first version, takes the first
/// usable member on it from the second on.
inline constexpr std::uint32_t bound_multipath_ignored = 6018, bound_multipath_taken = 7003;

/// Rules `oif VRF`: no flow is theirs up to the first version, those that are bound to the VRF or
/// to a device in it are from the second on (l3mdev_fib_rule_oif_match in net/l3mdev/l3mdev.c).
inline constexpr std::uint32_t vrf_rules_ignored = 6001, vrf_rules_match = 6018;

/// Memberships of multicast groups are announced (RTNLGRP_IPV4_MCADDR, RTNLGRP_IPV6_MCADDR) and
/// dumped for both families. Seen on 6.18 and 7.3, neither on 6.1 nor on 6.12.
inline constexpr std::uint32_t memberships_announced = 6018;

}  // namespace cowire::kernel_quirks

// SPDX-License-Identifier: Apache-2.0
/// IPv6 source address selection (RFC 6724 as net/ipv6/addrconf.c does it, with the default policy
/// table).
#pragma once

#include <cowire/route/address_label.hpp>
#include <cowire/route/mirror.hpp>

#include <cstdint>
#include <optional>
#include <span>

namespace cowire::detail {

struct source_choice {
  std::optional<ip_address> address;
  bool certain = true;  ///< False: a tie that the kernel decides by something not announced.
};

/// For all destinations of a region without the longer prefixes inside it that the own addresses
/// make; a host prefix for one. `index` is the output device, or 0 for none.
[[nodiscard]] source_choice select_source_v6(const mirror& state, std::uint32_t index,
                                             const ip_prefix& destinations);

/// Prefixes at which labels or scopes of destinations change.
[[nodiscard]] std::span<const ip_prefix> source_policy_prefixes();

}  // namespace cowire::detail

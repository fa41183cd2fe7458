// SPDX-License-Identifier: Apache-2.0
/// What a decision and its output device say about the datagram itself: largest size, TTL,
/// fragmentation.
#pragma once

#include <cowire/route/detail/decision.hpp>
#include <cowire/route/detail/header_template.hpp>

#include <cstdint>
#include <optional>

namespace cowire::detail {

struct path_facts {
  std::uint32_t mtu = 0;  ///< Effective, the device's included.
  std::uint32_t route_mtu =
      0;  ///< Route metric or learned path MTU; 0 = the device's alone counts.
  std::uint8_t hop_limit = 0;
  bool needs_identification =
      false;  ///< DF would be off: the kernel chooses the IP identification.
};

[[nodiscard]] path_facts path_facts_of(const mirror& state, const decision& decided,
                                       std::uint32_t interface_index, const ip_prefix& region,
                                       const flow_class& cls);

/// The hop that carries `member`'s share of a decision without error or divert; unset where it has
/// no source address.
[[nodiscard]] std::optional<hop_key> hop_key_of(const mirror& state, const decision& decided,
                                                const path_member& member, const flow_class& cls,
                                                const ip_prefix& region);

}  // namespace cowire::detail

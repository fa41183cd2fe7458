// SPDX-License-Identifier: Apache-2.0
/// Matches of x_tables, which iptables-nft leaves in nf_tables rules as raw structs.
///
/// Source: include/uapi/linux/netfilter/xt_*.h for the layouts, net/netfilter/xt_*.c for what they
/// mean.
#pragma once

#include <cowire/netlink/nft_message.hpp>
#include <cowire/route/detail/partial_bytes.hpp>

#include <cstdint>
#include <optional>
#include <string_view>

namespace cowire::detail {

/// What matches look at.
struct xt_subject {
  struct number {
    std::uint32_t value = 0, known = 0;
  };
  number mark, tracking;
  std::optional<std::uint32_t> uid, gid, destination_type;
  std::optional<std::uint16_t> source_port, destination_port;  ///< Host order.
};

/// `maybe` for a match, a revision or a flag that is not known.
[[nodiscard]] ternary matches(const netlink::nft::expressions::xt_match& match,
                              const xt_subject& subject);

/// Whether asking it changes what it, or something else, answers later (limit, recent, ...). True
/// for all that is not known to keep nothing.
[[nodiscard]] bool changes_state(const netlink::nft::expressions::xt_match& match);

/// Whether the kernel tracks connections as long as such a match, or a target of this name
/// ("MASQUERADE"), is in any rule (nf_ct_netns_get() of its checkentry). True for all that is not
/// known not to have it so.
[[nodiscard]] bool uses_tracking(const netlink::nft::expressions::xt_match& match);
[[nodiscard]] bool target_uses_tracking(std::string_view name);

}  // namespace cowire::detail

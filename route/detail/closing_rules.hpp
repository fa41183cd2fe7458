// SPDX-License-Identifier: Apache-2.0
/// Rules that only close ports, kept apart from all others: so that one more or one less is no
/// reason to evaluate a hundred thousand elements anew.
///
/// A *closing rule* looks at nothing of a datagram but what the questions of a compiler fix and the
/// destination port, ends in an obstacle for those that match, and leaves all others as they were.
/// Where besides nothing in front of it in its base chain lets new datagrams leave the chain, every
/// one that meets no obstacle elsewhere comes by it. So a datagram is untouched by a ruleset
/// exactly where it is untouched by the closing rules alone and by the rules without them, each
/// walked for itself: what the first say is the same for all destinations, and what the others say
/// is not changed by them.
///
/// Pure; any thread.
#pragma once

#include <cowire/netlink/nft_message.hpp>

#include <optional>

namespace cowire::detail {

struct divided_ruleset {
  netlink::nft::ruleset closing;  ///< Their chains, and the sets that they look into.
  netlink::nft::ruleset others;
};

/// Unset: it has no closing rules.
[[nodiscard]] std::optional<divided_ruleset> without_closing_rules(
    const netlink::nft::ruleset& rules);

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// What IPsec policies do to the flows of a region.
///
/// Policies that would change, hold or drop a datagram are obstacles to all that they may match,
/// whatever their priority: that another one, which lets it pass, comes first is not looked at.
#pragma once

#include <cowire/route/detail/destination_verdicts.hpp>
#include <cowire/route/detail/output_walk.hpp>
#include <cowire/route/output_path.hpp>

namespace cowire::detail {

/// Tells `into` of all destinations that it has as untouched. `ports` as in output_walk.
void judge_policies(const ipsec_state& state, const output_flow& region, destination_verdicts& into,
                    asked_ports* ports);

/// The destinations that the policy may be an obstacle to, whatever the port.
[[nodiscard]] address_set concerned_by(const netlink::xfrm_policy& policy,
                                       const output_flow& region);

/// Policies that only one of the two has. Looks at what the lists do not share.
[[nodiscard]] std::vector<const netlink::xfrm_policy*> differing_policies(
    const netlink::xfrm_policies& before, const netlink::xfrm_policies& now);

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// What the kernel can be asked about the outer datagrams of tunnels.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/mirror.hpp>

#include <optional>
#include <vector>

namespace cowire {

/// What RTM_GETROUTE can be asked about the datagrams that carry those of a flow; unset where it
/// goes through no tunnel that the fast path builds, or cannot be asked so.
[[nodiscard]] std::optional<flow> outer_question_below(const mirror& state, const flow& inner);

/// The classes of such questions for all tunnels to this address.
[[nodiscard]] std::vector<flow_class> outer_classes_to(const mirror& state,
                                                       const ip_address& remote);

}  // namespace cowire

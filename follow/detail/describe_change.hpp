// SPDX-License-Identifier: Apache-2.0
/// Netlink messages in the words of route_change.
#pragma once

#include <cowire/follow/route_events.hpp>
#include <cowire/netlink/message.hpp>
#include <cowire/route/mirror.hpp>

namespace cowire::detail {

/// What a message says, as route_change has it. `state` tells the names of devices.
[[nodiscard]] route_change describe(const netlink::message& message, const mirror& state);

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// What is in force on the kernel's output path, in the words of route_change.
#pragma once

#include <cowire/follow/route_events.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/output_path.hpp>

#include <vector>

namespace cowire::detail {

/// A change for each layer that is another than before; of traffic control for each device.
/// `state` tells the names of devices.
[[nodiscard]] std::vector<route_change> describe_output(const output_snapshot& before,
                                                        const output_snapshot& after,
                                                        const mirror& state);

}  // namespace cowire::detail

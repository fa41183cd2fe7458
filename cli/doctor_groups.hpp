// SPDX-License-Identifier: Apache-2.0
/// What `cowire doctor` says of multicast.
#pragma once

#include <cowire/cli/doctor.hpp>
#include <cowire/route/mirror.hpp>

#include <vector>

namespace cowire::cli {

/// What keeps datagrams to groups off the fast path, and IPv4 routes of groups that share what the
/// kernel remembers with routes to hosts.
[[nodiscard]] std::vector<finding> examine_groups(const mirror& state);

}  // namespace cowire::cli

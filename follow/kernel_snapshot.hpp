// SPDX-License-Identifier: Apache-2.0
/// The kernel's state as it is now, read once: for tools that ask a question and end.
///
/// Blocking; of the calling thread's network namespace. Not for following what changes: the
/// transmitter and route_watcher (route_events.hpp) do that.
#pragma once

#include <cowire/route/mirror.hpp>
#include <cowire/route/output_path.hpp>

namespace cowire {

/// Routing state and the sysctls that decisions depend on, by dumps. Throws std::system_error.
[[nodiscard]] mirror read_mirror();

/// What happens after routing. Does not throw: what cannot be read is an obstacle in the snapshot.
[[nodiscard]] output_snapshot read_output_path();

}  // namespace cowire

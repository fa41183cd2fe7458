// SPDX-License-Identifier: Apache-2.0
/// The command's log lines: standard error, through spdlog.
#pragma once

#include <cowire/follow/route_events.hpp>

namespace cowire::cli {

/// 0 = warnings and errors, 1 = also what happens, 2 = everything. Call once, before threads are
/// made.
[[nodiscard]] log_callback make_log(int verbosity);

}  // namespace cowire::cli

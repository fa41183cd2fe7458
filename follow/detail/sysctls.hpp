// SPDX-License-Identifier: Apache-2.0
/// What decisions depend on and no netlink message carries: sysctls, and which kernel this is.
///
/// Nothing announces a change of them: whoever follows the kernel reads them again and again.
#pragma once

#include <cowire/route/mirror.hpp>

namespace cowire::detail {

/// All that mirror_settings holds, of the calling thread's network namespace; `state` tells which
/// devices there are. What cannot be read is as the kernel has it by default.
[[nodiscard]] mirror_settings read_mirror_settings(const mirror& state);

}  // namespace cowire::detail

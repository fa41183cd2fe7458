// SPDX-License-Identifier: Apache-2.0
/// What this process may do, and what sending needs of it.
#pragma once

#include <cowire/cli/arguments.hpp>

namespace cowire::cli {

/// Whether a capability (CAP_* of linux/capability.h) is effective.
[[nodiscard]] bool has_capability(unsigned capability);

/// Throws usage_error when the plan needs AF_XDP sockets and this process may not open them. A user
/// who did not ask for the kernel path should not get it silently for want of a privilege.
void require_privilege(const transmit_plan& plan);

}  // namespace cowire::cli

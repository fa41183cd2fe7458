// SPDX-License-Identifier: Apache-2.0
/// What this process may do, and what sending needs of it.
#pragma once

#include <cowire/cli/arguments.hpp>

#include <string_view>
#include <vector>

namespace cowire::cli {

/// Whether a capability (CAP_* of linux/capability.h) is effective.
[[nodiscard]] bool has_capability(unsigned capability);

/// Throws usage_error when the plan needs AF_XDP sockets and this process may not open them. A user
/// who did not ask for the kernel path should not get it silently for want of a privilege.
void require_privilege(const transmit_plan& plan);

/// Throws usage_error when a rung of AF_XDP was asked for and no interface has it: nor should it be
/// the kernel path silently then.
void require_mode(const transmit_plan& plan, const std::vector<interface_stats>& interfaces);

/// What sets the command up to run without root.
inline constexpr std::string_view setcap_remedy =
    "setcap cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock,cap_dac_read_search+ep "
    "\"$(command -v cowire)\"";

}  // namespace cowire::cli

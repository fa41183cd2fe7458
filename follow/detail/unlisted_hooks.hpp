// SPDX-License-Identifier: Apache-2.0
/// Netfilter hooks of a kernel that does not list them (no nfnetlink_hook), as far as they show
/// elsewhere.
///
/// Blocking, though the kernel answers at once. Of the calling thread's network namespace, but for
/// BPF programs, of which the kernel does not say where they are. Any thread.
#pragma once

#include <cowire/route/output_path.hpp>

#include <cstdint>
#include <vector>

namespace cowire::detail {

/// A BPF program at a netfilter hook of some network namespace.
struct netfilter_link {
  std::uint32_t id = 0;      ///< Of the BPF link.
  std::uint32_t family = 0;  ///< NFPROTO_*.
  std::uint32_t hook = 0;    ///< NF_INET_*.
};
/// Empty also where they may not be asked for (CAP_SYS_ADMIN).
[[nodiscard]] std::vector<netfilter_link> netfilter_links();

/// IPVS with services, SELinux with a policy, Smack, and BPF programs at LOCAL_OUT or POST_ROUTING.
[[nodiscard]] std::vector<output_hook> unlisted_hooks();

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// Tunnels as iproute2 shows them: the keys of `ip -d -s -j link`, and text in the words of
/// `ip tunnel`, with what cowire knows of their way out.
#pragma once

#include <cowire/cli/kernel_state.hpp>
#include <cowire/cli/route_view.hpp>
#include <cowire/netlink/message.hpp>

#include <cstdint>
#include <map>
#include <string>

namespace cowire::cli {

/// What the kernel itself sent through an interface.
struct sent_traffic {
  std::uint64_t bytes = 0, packets = 0, errors = 0, dropped = 0, carrier_errors = 0, collisions = 0;
};
/// Of all interfaces of this thread's network namespace, by name.
[[nodiscard]] std::map<std::string, sent_traffic> read_sent_traffic();

/// A tunnel, with the object "cowire": its underlay, and whether the fast path serves it.
[[nodiscard]] json tunnel_json(const kernel_state& kernel, const netlink::link& tunnel,
                               const sent_traffic& sent);

/// Some lines about `tunnel`, whose tunnel_json() is `shown`.
[[nodiscard]] std::string tunnel_text(const netlink::link& tunnel, const json& shown);

}  // namespace cowire::cli

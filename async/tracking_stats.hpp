// SPDX-License-Identifier: Apache-2.0
/// What became of flows that the kernel's connection tracking has to know of.
#pragma once

#include <cstdint>

namespace cowire {

/// Sizes of now, and counters that only rise.
struct tracking_stats {
  std::uint32_t flows = 0;       ///< Known: on the fast path, or on the kernel path for now.
  std::uint32_t fast = 0;        ///< Those on the fast path.
  std::uint32_t capacity = 0;    ///< transmitter_config::tracked_flows.
  std::uint64_t asked = 0;       ///< Questions about flows of which the kernel saw a datagram.
  std::uint64_t checked = 0;     ///< Looks at entries of flows in use.
  std::uint64_t refreshed = 0;   ///< Timers of entries set.
  std::uint64_t begun_anew = 0;  ///< Fast flows whose entry was gone or another, or the rules were.
  /// Answers that kept a flow on the kernel path: no entry, one that is translated or has a helper,
  /// or the kernel refused the datagram.
  std::uint64_t refused = 0;
  std::uint64_t without_room = 0;  ///< Datagrams of flows that found no room: in table or queue.
};

}  // namespace cowire

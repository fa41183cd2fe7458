// SPDX-License-Identifier: Apache-2.0
/// What a TX core does when there is nothing to do.
#pragma once

#include <cstdint>

namespace cowire {

enum class idle_policy : std::uint8_t {
  spin,   ///< Polls: for a CPU that belongs to the core alone.
  yield,  ///< Polls, offering the CPU to others each time.
  /// Polls for a while, then yields, then sleeps. Producers then send lone datagrams themselves,
  /// and wake it for more (xdp/work_bell.hpp).
  adaptive,
};

}  // namespace cowire

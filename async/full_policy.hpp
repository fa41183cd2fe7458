// SPDX-License-Identifier: Apache-2.0
/// What becomes of a datagram when its producer has no frame for it.
#pragma once

#include <cstdint>

namespace cowire {

enum class full_policy : std::uint8_t {
  /// async_send() and async_acquire() wait for one; try_send() and try_acquire() fail.
  wait,
  /// All of them fail: with would_block.
  fail,
  /// The oldest datagram of this producer's senders with this policy that no TX core has got yet
  /// gives way. Where there is none, as `wait`. Cores get no more than half the producer's frames
  /// of such senders, so that there nearly always is one, unless frames are leased.
  shed_oldest,
};

}  // namespace cowire

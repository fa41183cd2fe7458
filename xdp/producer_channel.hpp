// SPDX-License-Identifier: Apache-2.0
/// The rings between one producer and one TX core. Nothing else is shared between those threads. A
/// producer has a channel for each core, all of them over the same frames.
///
///     producer --requests--> TX core --diverted (tx_core)--> kernel path
///        ^---- returned ------'                                   |
///        ^---- a ring of the producer's own ----------------------'
///
/// A producer owns a slice of the frames: every frame of it is in exactly one place: free at the
/// producer, in `requests`, in flight, diverted, or in a ring on its way back. Every ring holds the
/// whole slice, so no push can fail, and back-pressure is simply "no free frame".
#pragma once

#include <cowire/base/spsc_ring.hpp>
#include <cowire/xdp/tx_request.hpp>

#include <atomic>
#include <cstdint>

namespace cowire {

struct producer_channel {
  producer_channel(std::uint32_t id_, frame_index first_frame_, std::uint32_t frame_count_)
      : id(id_),
        first_frame(first_frame_),
        frame_count(frame_count_),
        requests(frame_count_),
        returned(frame_count_) {}

  const std::uint32_t id;
  const frame_index first_frame;
  const std::uint32_t frame_count;
  spsc_ring<tx_request> requests;   ///< Producer to TX core.
  spsc_ring<frame_index> returned;  ///< TX core to producer.
  /// Set by a producer that waits for frames, cleared by whoever wakes it. Having returned frames
  /// the core reads it after a full fence (the producer sets it, fences, and looks at the return
  /// rings again: Dekker, as base/doorbell.hpp).
  alignas(64) std::atomic<bool> waiting{false};
};

}  // namespace cowire

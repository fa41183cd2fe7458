// SPDX-License-Identifier: Apache-2.0
/// The two rings that an AF_XDP socket shares with the kernel for sending, as raw memory.
///
/// The TX core works on this view and nothing else, so that it runs as well on rings in plain
/// memory with a fake device behind them (tests, benchmarks, simulation). Indices run freely and
/// are masked by size - 1; sizes are powers of two. Memory order as the kernel has it: who advances
/// an index stores it with release, the other side loads it with acquire.
#pragma once

#include <cstdint>

namespace cowire {

/// struct xdp_desc.
struct tx_descriptor {
  std::uint64_t address = 0;  ///< Of the first byte to send, from the start of the umem.
  std::uint32_t length = 0;
  std::uint32_t options = 0;
};
static_assert(sizeof(tx_descriptor) == 16);

struct tx_queue {
  std::uint32_t* producer = nullptr;  ///< Written by the TX core.
  std::uint32_t* consumer = nullptr;  ///< Written by the device.
  std::uint32_t* flags = nullptr;     ///< Bit 0, XDP_RING_NEED_WAKEUP: written by the device.
  tx_descriptor* descriptors = nullptr;
  std::uint32_t size = 0;

  std::uint32_t* completion_producer = nullptr;  ///< Written by the device.
  std::uint32_t* completion_consumer = nullptr;  ///< Written by the TX core.
  std::uint64_t* completions = nullptr;          ///< Addresses, each anywhere in its frame.
  std::uint32_t completion_size = 0;

  /// The device works only within kicks: it is kicked as long as it has frames.
  bool busy_polled = false;
  /// Asks the device to look at the ring. Returns 0 or an errno; never blocks.
  int (*kick)(void* context) noexcept = nullptr;
  void* kick_context = nullptr;
};

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// The two rings that an AF_XDP socket shares with the kernel for sending, as raw memory.
///
/// The TX core works on this view and nothing else, so that it runs as well on rings in plain
/// memory with a fake device behind them (tests, benchmarks, simulation). Indices run freely and
/// are masked by size - 1; sizes are powers of two. Memory order as the kernel has it: who advances
/// an index stores it with release, the other side loads it with acquire.
///
/// What sendto() on an AF_XDP socket answers, read in net/xdp/xsk.c (xsk_sendmsg, xsk_generic_xmit)
/// and __dev_direct_xmit() of net/core/dev.c, in 5.10, 6.2 and 6.18. One call stops at the first
/// descriptor that it cannot send; those before it are sent whatever the answer is. "Later" = that
/// descriptor and those behind it are still in the ring.
/// | errno   | copy mode                                       | zero-copy                        |
/// |---------|-------------------------------------------------|----------------------------------|
/// | 0       | all sent; or later: the completion ring is full | the driver was woken, or need    |
/// |         | (6.2; EAGAIN in 6.18), or the queue is not      | not be. Nothing is read yet      |
/// |         | among the device's any more (`ethtool -L`)      |                                  |
/// | EAGAIN  | later: the budget of a call is used up (32, or  | later: the driver is being       |
/// |         | XDP_MAX_TX_SKB_BUDGET), the driver's queue is   | reconfigured                     |
/// |         | stopped (NETDEV_TX_BUSY, since 5.9: before, it  |                                  |
/// |         | was dropped with EBUSY), the completion ring or |                                  |
/// |         | the socket's send buffer is full                |                                  |
/// | EBUSY   | one frame was dropped, and completed as if sent | later                            |
/// |         | (NET_XMIT_DROP): the device has no carrier, as  |                                  |
/// |         | while `ethtool -L` works, or its driver said so |                                  |
/// |         | (veth whose peer has no room). The device       |                                  |
/// |         | counts it in tx_dropped                         |                                  |
/// | ENOBUFS | later: no memory for an skb                     | later                            |
/// | ENETDOWN| later, for good until the device is up again    | the same                         |
/// | ENXIO   | the socket is not bound (any more)              | the same, or the driver has      |
/// |         |                                                 | stopped its queue                |
/// | others  | a driver's own: later                           | the same                         |
///
/// So EBUSY of copy mode is the only answer that says that a frame is lost, and it says of one. No
/// answer says which: completions of other frames may come at the same time, and the consumer index
/// in the ring is published some calls later. Hence such frames are counted, not sent again.
/// Descriptors that the kernel finds invalid are skipped without completion and counted in
/// XDP_STATISTICS (tx_invalid_descs); cowire makes none.
///
/// Completions are the addresses of the descriptors, unchanged. In which order, read in
/// net/xdp/xsk.c and xsk_queue.h:
/// | mode      | order                                                                            |
/// |-----------|----------------------------------------------------------------------------------|
/// | zero-copy | that of the TX ring, with every driver: the kernel writes an address in the      |
/// |           | completion ring when the driver takes the descriptor (xsk_tx_peek_desc,          |
/// |           | xsk_tx_peek_release_desc_batch), and the driver says how many are done           |
/// |           | (xsk_tx_completed), not which                                                    |
/// | copy      | where xsk_cq_reserve_addr_locked() is (from multi-buffer support, 6.6, until     |
/// |           | 30f241fcf52a of 2025, which stable kernels have, too): that of the TX ring, as   |
/// |           | the address is written before the skb is sent, and its destructor only counts.   |
/// |           | In all others that in which the skbs are freed, whose destructor writes the      |
/// |           | address: a driver's one TX queue frees in order; veth's skbs are freed by        |
/// |           | whoever receives them, and dropped ones before earlier ones on their way           |
///
/// So order is what to expect, and never to rely on: the first completion out of order, or of a
/// frame that was not submitted, makes the core look frames up one by one until the device holds
/// nothing.
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
  /// Copy mode: a kick that answers EBUSY has dropped a frame, which is completed like the others.
  bool copies = false;
  /// Asks the device to look at the ring. Returns 0 or an errno; never blocks.
  int (*kick)(void* context) noexcept = nullptr;
  void* kick_context = nullptr;
};

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// The two rings that an AF_XDP socket shares with the kernel for sending, as raw memory.
///
/// The TX core works on this view and nothing else, so that it runs as well on rings in plain
/// memory with a fake device behind them (tests, benchmarks, simulation). Indices run freely and
/// are masked by size - 1; sizes are powers of two. Memory order as the kernel has it: who advances
/// an index stores it with release, the other side loads it with acquire.
///
/// What a sendto() that must not wait answers on an AF_XDP socket, read in net/xdp/xsk.c
/// (xsk_check_common, __xsk_sendmsg, __xsk_generic_xmit, xsk_build_skb) and __dev_direct_xmit() of
/// net/core/dev.c, in 6.1, 6.12 and 6.18; with zero-copy it is the driver's ndo_xsk_wakeup (below)
/// that answers. In copy mode one call stops at the first descriptor that it cannot send; those
/// before it are sent whatever the answer is. "Later" = that descriptor and those behind it are
/// still in the ring, as with zero-copy all are: there no answer tells what became of a frame.
/// | errno   | copy mode                                       | zero-copy                        |
/// |---------|-------------------------------------------------|----------------------------------|
/// | 0       | all sent; or later: the completion ring is full | the driver was woken, or need    |
/// |         | (6.1, 6.12; EAGAIN in 6.18), or the queue is    | not be (mlx5: it restarts the    |
/// |         | not among the device's any more (`ethtool -L`)  | queue, and looks then)           |
/// | EAGAIN  | later: the budget of a call is used up (32, or  | later: i40e is being             |
/// |         | XDP_MAX_TX_SKB_BUDGET), the driver's queue is   | reconfigured                     |
/// |         | stopped (NETDEV_TX_BUSY, since 5.9: before, it  |                                  |
/// |         | was dropped with EBUSY), the completion ring or |                                  |
/// |         | the socket's send buffer is full                |                                  |
/// | EBUSY   | one frame was dropped, and completed as if sent | later: idpf is being             |
/// |         | (NET_XMIT_DROP): the device has no carrier, as  | reconfigured                     |
/// |         | while `ethtool -L` works, or its driver said so |                                  |
/// |         | (veth whose peer has no room). The device       |                                  |
/// |         | counts it in tx_dropped                         |                                  |
/// | ENOBUFS | later: no memory for an skb                     | none: said of a socket without a |
/// |         |                                                 | transmit ring, in both modes     |
/// | ENETDOWN| later, for good until the device is up again    | the same; or later: the driver   |
/// |         |                                                 | is reset, has no carrier, or     |
/// |         |                                                 | sets up another socket's queue   |
/// | EINVAL  | none: said of metadata, which cowire has not    | later, for good until it has     |
/// |         |                                                 | again what it lacks: the native  |
/// |         |                                                 | program, that queue, the umem    |
/// | ENXIO   | the socket is not bound any more (its device is | the same; of igc and idpf what   |
/// |         | gone: xsk_notifier)                             | EINVAL says of others            |
/// | others  | a driver's own, of the last frame: completed,   | none                             |
/// |         | and sent or not as ndo_start_xmit has it        |                                  |
///
/// The drivers, read in 6.18, and in 6.1 and 6.12 where they have it there, with the same answers:
/// drivers/net/virtio_net.c (6.12) and, in drivers/net/ethernet, i40e, ice, ixgbe and igc of intel
/// (all three), igb and idpf (6.18), mellanox/mlx5/core/en/xsk/tx.c and netronome/nfp (6.1),
/// freescale/dpaa2 (6.12), google/gve, marvell/octeontx2, stmicro/stmmac and engleder (6.18). veth
/// has none: always copy mode.
///
/// So ENETDOWN, ENXIO and, with zero-copy, EINVAL say that the device takes nothing until somebody
/// changes something: nothing is added to its ring then.
///
/// EBUSY of copy mode is the only answer that says that a frame is lost, and it says of one. No
/// answer says which: completions of other frames may come at the same time, and the consumer index
/// in the ring is published some calls later. Hence such frames are counted, not sent again.
/// Descriptors that the kernel finds invalid are skipped and counted in XDP_STATISTICS
/// (tx_invalid_descs), and not completed (but by late 6.12, read in 6.12.117); cowire makes none.
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
/// |           | whoever receives them, and dropped ones before earlier ones on their way         |
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

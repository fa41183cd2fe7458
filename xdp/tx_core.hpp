// SPDX-License-Identifier: Apache-2.0
/// The thread that turns requests into frames on the wire.
///
/// Once per batch of up to 64 requests, from all channels in turn: enter the epoch, take the
/// forwarding table, find the hop of each flow where it is remembered of this very table and look
/// it up otherwise (grouped by flow class), write the headers in front of the payloads and
/// descriptors in the rings of the egress sockets with one commit each, kick the devices that ask
/// for it, and collect what they have completed. Completed frames go back to the producer that owns
/// them; requests that the table does not send go to diverted(), for the kernel path. Requests are
/// read where the producers put them.
///
/// Nothing is lost: a request is held by the core (`held` in the counters) until its frame is
/// returned or diverted. A full device ring makes requests wait in the core, in order; one that
/// stays full past tx_core_options::stall_deadline diverts them as device_busy, and one whose
/// device says that it takes nothing, as when it is down, does so at once. A removed port gives
/// back the frames that its device never completed, counted as lost_in_device, as are those of
/// which the kernel says that it dropped them (tx_queue.hpp).
///
/// | call                                     | control thread    | core thread | anyone |
/// |------------------------------------------|-------------------|-------------|--------|
/// | attach, begin_detach, detached,          | yes               |             |        |
/// | add_port, begin_remove_port,             |                   |             |        |
/// | port_removed, remove_port, start, stop   |                   |             |        |
/// | diverted(), samples() as consumer        | one thread each   |             |        |
/// | run_once                                 | while not started |             |        |
/// | snapshot, work_bell().ring()             |                   |             | yes    |
///
/// While the core thread sleeps, whoever rings work_bell() is the core for a batch.
///
/// The core takes no lock, allocates nothing, logs nothing; its system calls are the kick, and the
/// eventfd writes and waits of the doorbells while somebody sleeps. Control calls allocate, and
/// wait for at most one batch of the core where they must.
#pragma once

#include <cowire/base/doorbell.hpp>
#include <cowire/base/spsc_ring.hpp>
#include <cowire/route/epoch.hpp>
#include <cowire/route/publisher.hpp>
#include <cowire/xdp/idle_policy.hpp>
#include <cowire/xdp/producer_channel.hpp>
#include <cowire/xdp/tracked_flows.hpp>
#include <cowire/xdp/tx_counters.hpp>
#include <cowire/xdp/tx_queue.hpp>
#include <cowire/xdp/umem.hpp>
#include <cowire/xdp/work_bell.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

namespace cowire {

/// Requests handled between two looks at the clock, the configuration and the epoch.
inline constexpr std::size_t tx_batch = 64;

/// A request that the fast path does not serve. Its frame belongs to the kernel path until that
/// gives it back to the producer.
struct diverted_request {
  tx_request request;
  divert_reason reason;
  /// It would have gone out, this way, had its flow been known (tracked_flows.hpp).
  bool tracked = false;
  tracked_way way{};
};

/// A flow in use, as its datagrams name it.
struct flow_sample {
  ip_address destination;
  be16 destination_port;
  flow_class_id flow_class = 0;
};

struct tx_core_options {
  unsigned number = 0;  ///< Tells several cores apart: the thread is `cowire-tx-<number>`.
  std::optional<unsigned> cpu = std::nullopt;  ///< Pin the thread here.
  /// Unset = spin where `cpu` is set and the machine has more than two CPUs, otherwise adaptive.
  std::optional<idle_policy> idle = std::nullopt;
  /// A device that completes nothing for this long while it holds frames is stalled: what waits for
  /// it is diverted.
  std::chrono::milliseconds stall_deadline{250};
  /// For what the core remembers of flows, 32 bytes each. 0 = nothing; unset = half of the
  /// processor's second-level cache.
  std::optional<std::size_t> flow_cache_bytes = std::nullopt;
  /// At most one flow in use is noted in samples() in this time. 0 = none ever.
  std::chrono::nanoseconds sample_interval{0};
  /// Flows that may leave by tracked hops; outlives the core. Null = none may.
  const tracked_flows* tracked = nullptr;
};

class tx_core {
 public:
  /// `tables` and `epochs` belong together. `control` wakes who serves it: rung when there is
  /// something in diverted(), when frames came back to a channel whose `waiting` is set, and when a
  /// control call has completed. All four must outlive the core. Throws std::system_error when no
  /// doorbell can be made.
  tx_core(const frame_memory& memory, const publisher& tables, epoch_domain& epochs,
          doorbell& control, const tx_core_options& options = {});
  /// Stops the thread. Frames that are still in a device stay there: remove the ports first.
  ~tx_core();
  tx_core(const tx_core&) = delete;
  tx_core& operator=(const tx_core&) = delete;

  /// Starts the thread. Throws std::system_error: no thread, or the CPU does not exist.
  void start();
  /// Ends the thread after its current batch. It can be started again.
  void stop();

  /// One batch, for tests, benchmarks and simulation; the thread must not be running. Returns
  /// whether there was anything to do.
  bool run_once();

  /// From now on requests of this channel are served. It must outlive its detachment; its slice
  /// belongs to `memory` and to no other channel, and begins and ends at multiples of
  /// slice_granularity.
  void attach(producer_channel& channel);
  /// Begins to let go of a channel whose producer has stopped for good: its last requests are
  /// served, its frames come home.
  void begin_detach(producer_channel& channel);
  /// Whether that is done. Once true the core does not know the channel any more. Does not wait for
  /// devices.
  [[nodiscard]] bool detached(producer_channel& channel);

  /// Opens a slot for an AF_XDP socket. The slot is free: never used, or port_removed() has said
  /// so. Counters of a slot go on counting, so a slot that is used again should serve the same
  /// interface.
  void add_port(egress_slot slot, std::uint32_t interface_index, const tx_queue& queue);
  /// Begins to close a slot. Nothing more is handed to its device; what waits for it is diverted as
  /// no_egress_socket; frames in it have `grace` to complete and are then lost_in_device and
  /// returned.
  void begin_remove_port(egress_slot slot, std::chrono::milliseconds grace);
  /// Whether that is done. Once true the core does not touch the queue any more and the socket can
  /// be closed.
  [[nodiscard]] bool port_removed(egress_slot slot);
  /// Both, waiting for the end: at most `grace` and a batch.
  void remove_port(egress_slot slot, std::chrono::milliseconds grace);

  /// Where one thread takes diverted requests from. Holds every frame there is: it cannot
  /// be full.
  [[nodiscard]] spsc_ring<diverted_request>& diverted() noexcept;
  /// What the truth audit is to look at: one request of a batch now and then. While it is full
  /// nothing is added. Its consumer is the control thread.
  [[nodiscard]] spsc_ring<flow_sample>& samples() noexcept;
  /// Producers ring it after they have pushed requests.
  [[nodiscard]] cowire::work_bell& work_bell() noexcept;

  [[nodiscard]] tx_snapshot snapshot() const noexcept;

 private:
  class control_side;
  std::unique_ptr<control_side> side_;
};

}  // namespace cowire

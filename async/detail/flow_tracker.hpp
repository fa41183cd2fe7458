// SPDX-License-Identifier: Apache-2.0
/// Lets flows pass connection tracking by, and does for their entries what their datagrams would.
///
/// The first datagram of a flow takes the kernel path, and makes the entry, and those of its outer
/// headers if a tunnel carries it. Then the kernel is asked for them. Where they are ordinary ones
/// (confirmed, not translated, without helper and zone), the TX cores are told
/// (xdp/tracked_flows.hpp), and the flow is fast:
///
///          kernel datagram            asked: ordinary              checked in time
///     unknown ---------> asking --------------------> tracked <--------------------+
///                          ^  |                         |  |                       |
///            next datagram |  | none, translated,       |  +-----------------------+
///                          |  v refused by sendmsg()    | entry gone, changed; ruleset changed
///                        refused (for a while) <--------+-----> asking
///
/// While a flow sends fast, its entry's timer is set as the kernel would have set it: to the
/// policy's time after the last datagram. That is done before the entry could expire, and before
/// the flow stops being good, for which there is a margin: so the entry of every datagram that left
/// is there when its answer comes, as late as the kernel would have let it in. Each time the entry
/// is looked at first: it may be gone (`conntrack -F`), or another, of a peer that spoke meanwhile.
///
/// An outer header's entry is looked after in the same way, for all flows that have it together: no
/// flow is good for longer than the entries of its outer headers are.
///
/// A flow that was idle is not good any more before its entry goes, so that the kernel has its next
/// datagram. Nothing is good for longer than this thread is there to see to it. What a flow sent
/// fast before it begins anew, or before the transmitter ends, its entry is told all the same.
///
/// Control thread, but what is marked. The kernel path has a thread of its own and tells of its
/// datagrams through a queue. The ruleset obeyed by then may be a later one than such a datagram
/// has passed: rules() is a number for what was obeyed before the kernel had it, and of an earlier
/// one than today's nothing is believed.
/// Source: net/netfilter/nf_conntrack_proto_udp.c (nf_conntrack_udp_packet: which timeout when),
/// nf_conntrack_netlink.c.
#pragma once

#include <cowire/async/detail/tracked_entry.hpp>
#include <cowire/async/tracking_stats.hpp>
#include <cowire/base/error.hpp>
#include <cowire/base/spsc_ring.hpp>
#include <cowire/follow/route_events.hpp>
#include <cowire/netlink/conntrack_socket.hpp>
#include <cowire/ring/ring_context.hpp>
#include <cowire/ring/ring_timer.hpp>
#include <cowire/route/epoch.hpp>
#include <cowire/route/outer_flows.hpp>
#include <cowire/xdp/tracked_flows.hpp>
#include <cowire/xdp/tx_counters.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace cowire::detail {

class flow_tracker {
 public:
  using time_ms = tracked_flows::time_ms;

  /// Makes the table. Without ctnetlink no flow ever becomes good, which is logged once.
  /// `numbers` are what hops name their outer headers by.
  flow_tracker(ring_context& ring, epoch_domain& epochs, const outer_flows& numbers,
               std::uint32_t capacity, log_callback log);
  flow_tracker(const flow_tracker&) = delete;
  flow_tracker& operator=(const flow_tracker&) = delete;

  /// What the cores read.
  [[nodiscard]] const tracked_flows& flows() const noexcept { return flows_; }

  /// The kernel path's thread: to be read before the kernel is given a datagram.
  [[nodiscard]] std::uint32_t rules() const noexcept {
    return rules_.load(std::memory_order_acquire);  // Pairs with begin_anew().
  }
  /// The kernel path's thread: has on_kernel_datagram() called, and settle(). What there is no room
  /// for is counted; the flow's next datagram tells the same.
  void tell(const tx_request& request, const tracked_way& way, int number, std::uint32_t rules);

  /// The kernel path is done with a datagram of a tracked hop: 0, or the errno that it got.
  void on_kernel_datagram(const tx_request& request, const tracked_way& way, int number);
  /// Asks for the flows of which the kernel has seen datagrams since. Once for many of them.
  void settle();
  /// Rules or hooks are others: every flow is to show itself to the kernel again.
  void begin_anew();
  /// What is due at this time; the timer does it otherwise. Returns when there is more to do.
  time_ms serve(time_ms now);
  /// Tells the entries what was sent last; the cores have stopped.
  void stop();

  /// Any thread.
  /// False: the kernel cannot be asked for its entries, so no flow is ever fast.
  [[nodiscard]] bool available() const noexcept { return !unavailable_; }
  [[nodiscard]] tracking_stats stats() const noexcept;

 private:
  using index = tracked_flows::index;
  enum class phase : std::uint8_t { asking, tracked, refused };
  struct told_datagram {
    tx_request request;
    tracked_way way;
    int number = 0;
    std::uint32_t rules = 0;
  };
  /// Of the flow of this number.
  struct state {
    time_ms look_at = 0;     ///< When there may be something to do.
    time_ms checked = 0;     ///< When the entry was looked at last; 0 = there is none.
    time_ms expires = 0;     ///< When it goes if nothing happens.
    time_ms seen_since = 0;  ///< Since when the entry of this number has been there, at least.
    std::uint32_t entry_id = 0;
    time_ms datagram = 0;  ///< The kernel's last one.
    time_ms retry_at = 0;  ///< A refused one is not asked for before.
    std::uint32_t pause_ms = 0;
    std::uint32_t life_s = 0;  ///< After a datagram.
    entry_clock clock;
    phase at = phase::asking;
    bool live = false, queued = false;
  };
  /// Of the outer headers of one number.
  struct outer_state {
    std::vector<netlink::conntrack_tuple> tuples;
    std::array<entry_clock, outer_headers_max> clocks;
    time_ms looked_at = 0;
    time_ms last_sent = 0;   ///< Of all its flows, as far as was looked.
    time_ms good_until = 0;  ///< 0 = not at all.
    divert_reason reason = divert_reason::conntrack_new;  ///< Why not.
  };

  void take_told();
  void judge(index at, const netlink::conntrack_answer& answer, time_ms now);
  void meet(index at, const netlink::conntrack_entry& entry, time_ms since);
  void refuse(index at, divert_reason reason, std::uint32_t first_pause_ms, time_ms now);
  void begin_anew(index at, time_ms now);
  void lose(index at, time_ms now);
  [[nodiscard]] bool owes(index at);
  void become(index at, phase next);
  /// Looks at one flow; whether its entry is to be checked now.
  [[nodiscard]] bool is_due(index at, time_ms now);
  void check(std::span<const index> some, time_ms now);
  [[nodiscard]] std::uint32_t wanted_left(index at, const netlink::conntrack_entry& entry,
                                          time_ms now);
  void keep(index at, std::uint32_t left_s, time_ms now);
  [[nodiscard]] outer_state* outer_of(index at);
  void look_at_outer(outer_state& outer, bool kernel_sent, time_ms now);
  [[nodiscard]] time_ms keep_outer(const outer_state& outer, std::size_t which,
                                   const netlink::conntrack_entry& entry, time_ms now);
  void drop(index at);
  void ask(std::span<const index> some);
  void ask(std::span<const netlink::conntrack_tuple> tuples,
           std::span<netlink::conntrack_answer> answers);
  [[nodiscard]] time_ms check_interval() const noexcept;
  [[nodiscard]] netlink::conntrack_tuple tuple_of(index at);
  void say_why(int number);
  void read_timeouts(time_ms now);
  void arm(time_ms due);

  ring_context& ring_;
  epoch_domain& epochs_;
  const log_callback log_;
  std::error_code unavailable_;  ///< Of `kernel_`, which is not used then.
  netlink::conntrack_socket kernel_;
  tracked_flows flows_;
  const outer_flows& numbers_;
  std::vector<state> states_;
  std::vector<outer_state> outers_;  ///< By number.
  std::vector<index> queue_;         ///< To be asked for.
  netlink::conntrack_batch batch_;
  std::vector<netlink::conntrack_answer> answers_;  ///< By place in the batch.
  std::uint32_t first_sequence_ = 0;                ///< Of the batch.
  udp_timeouts timeouts_;
  outer_timeouts outer_timeouts_;
  time_ms timeouts_read_ = 0;
  index cursor_ = 0;  ///< Where serve() goes on.
  ring_timer timer_;
  time_ms wakes_at_ = 0;  ///< 0 = it does not.
  bool said_why_ = false, stopped_ = false;
  std::atomic<std::uint32_t> rules_{0};
  spsc_ring<told_datagram> told_;
  std::atomic<bool> taking_{false};  ///< take_told() is on its way.
  single_writer_counter fast_, asked_, checked_, refreshed_, begun_anew_, refused_;
  /// The table had none, the queue had none.
  single_writer_counter without_room_, untold_;
};

}  // namespace cowire::detail

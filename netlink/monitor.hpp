// SPDX-License-Identifier: Apache-2.0
/// Keeps a copy of the kernel's routing state up to date: the state machine, without any I/O.
///
/// The owner has two netlink sockets (request_socket.hpp opens them): one that receives events, one
/// for dumps. It feeds the monitor with what arrives and with the time, writes what next_request()
/// gives, and applies what next_event() gives:
///
///     event socket ----> on_event_datagram()            next_event() ----> the owner's worlds
///                  ----> on_overrun()      +---------+
///     dump socket  ----> on_reply_datagram | monitor |  next_request() --> dump socket
///     clock        ----> on_timer() at     +---------+
///                        deadline()
///
/// The consumer of events has up to two worlds:
/// - the *live* one, which decides traffic. events::change belongs to it.
/// - a *shadow*, from sync_started to sync_complete. events::object belongs to it, and
///   sync_complete makes it the live one, in one publication. sync_abandoned throws it away.
/// A refresh renews one kind of object within the live world, mark and sweep: between
/// refresh_started and refresh_complete every object of that kind and filter that still exists is
/// delivered, as it is read, with changes in between; what was not is gone. An object may be older
/// than a change that came before it: what it says may be believed at refresh_complete, after the
/// changes were delivered again. Until then it only tells that something is still there.
///
/// Why the copy is right at sync_complete and after refresh_complete: the subscription is older
/// than the dumps, events that arrive meanwhile are held and come again after the dumps (marked
/// from_event), and applying an event twice changes nothing. An event that the kernel could not
/// deliver (overrun), or that cannot be decoded, makes the live world doubtful: a new sync begins,
/// at once the first time, then after a back-off that doubles, so that a storm costs bounded work.
/// The old world stays until the new one is whole.
///
/// What the kernel does not announce at all is not found here: whoever applies the events derives
/// it and asks for a refresh.
///
/// Serialised use, by any one thread at a time. Drain next_event() after each call: the queue grows
/// by what one datagram holds.
#pragma once

#include <cowire/netlink/message.hpp>
#include <cowire/netlink/request.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <system_error>
#include <variant>
#include <vector>

namespace cowire::netlink {

namespace events {

/// A shadow world begins, empty. One that was open is void, and so is an open refresh.
struct sync_started {};
/// For the shadow world, or for the running refresh.
struct object {
  message value;
  bool from_event = false;  ///< An event that arrived during the dumps; may be a removal.
};
/// The shadow's objects of this scope that were delivered so far are void and come again.
struct dump_restarted {
  dump_scope scope;
};
/// The shadow world is whole: it replaces the live one.
struct sync_complete {};
/// The shadow world or refresh, if one is open, is void; another attempt follows. error::overrun,
/// error::interrupted_dump, error::malformed, error::truncated or the kernel's errno. The live
/// world may be wrong from here to the next sync_complete.
struct sync_abandoned {
  std::error_code reason;
};
/// For the live world.
struct change {
  message value;
  std::chrono::steady_clock::time_point received_at;
};
/// One that was open is void.
struct refresh_started {
  dump_scope scope;
};
struct refresh_complete {
  dump_scope scope;
};

}  // namespace events

using monitor_event = std::variant<events::sync_started, events::object, events::dump_restarted,
                                   events::sync_complete, events::sync_abandoned, events::change,
                                   events::refresh_started, events::refresh_complete>;

struct monitor_options {
  /// How often an interrupted dump is repeated before the whole sync is given up.
  int dump_attempts_max = 8;
  /// Events held during dumps; one more is an overrun. About 300 bytes each.
  std::size_t held_events_max = std::size_t{1} << 18;
  /// Refreshes waiting; beyond, those of one kind are merged into one without interface.
  std::size_t pending_refreshes_max = 64;
  std::chrono::milliseconds back_off_min{50}, back_off_max{5000};
  /// Silence of the dump socket after which a dump is given up.
  std::chrono::milliseconds reply_timeout{5000};
};

struct monitor_counters {
  std::uint64_t datagrams = 0;          ///< Of both sockets.
  std::uint64_t events = 0;             ///< Decoded and concerning us.
  std::uint64_t dumped_objects = 0;     ///< Decoded and concerning us.
  std::uint64_t overruns = 0;           ///< Lost events: ENOBUFS, or held_events_max reached.
  std::uint64_t malformed = 0;          ///< Messages that could not be decoded.
  std::uint64_t unrelated_replies = 0;  ///< Of given-up dumps or of somebody else; ignored.
  std::uint64_t interrupted_dumps = 0;
  std::uint64_t syncs_started = 0;
  std::uint64_t syncs_completed = 0;
  std::uint64_t syncs_abandoned = 0;
  std::uint64_t refreshes_completed = 0;
};

class monitor {
 public:
  using time_point = std::chrono::steady_clock::time_point;

  explicit monitor(const monitor_options& options = {});

  /// Begins the first sync, or begins anew after the owner has reopened its sockets (an answer that
  /// was awaited is not any more). The event socket is subscribed before this call.
  void start();

  /// Bytes to write on the dump socket, as one datagram; empty = nothing to ask now. Call again
  /// after each on_reply_datagram() and on_timer().
  [[nodiscard]] std::optional<std::vector<std::byte>> next_request(time_point now);

  /// One whole datagram of the event socket. The owner has checked that the kernel sent it (port 0)
  /// and that it was not cut (MSG_TRUNC: call on_overrun() instead).
  void on_event_datagram(std::span<const std::byte> datagram, time_point now);
  /// One whole datagram of the dump socket, or some of its messages; checked likewise (cut: call
  /// on_reply_loss()).
  void on_reply_datagram(std::span<const std::byte> datagram, time_point now);
  /// The event socket has lost something: its read failed with ENOBUFS.
  void on_overrun(time_point now);
  /// The dump socket has lost something.
  void on_reply_loss();
  /// Call at deadline() or later; earlier is harmless.
  void on_timer(time_point now);
  /// When on_timer() has something to do; empty = not before another call.
  [[nodiscard]] std::optional<time_point> deadline() const noexcept;

  /// Has the objects of a scope dumped again, after a change that the kernel does not announce. No
  /// effect where a sync is due, as that reads everything. netconf needs a family.
  void request_refresh(const dump_scope& scope);
  /// Has everything dumped again: the re-dump check. No effect where a sync runs or is due.
  void request_sync();

  /// The next event to apply, in order; empty = drained.
  [[nodiscard]] std::optional<monitor_event> next_event();

  /// Whether the live world is believed to follow the kernel; false before the first sync_complete
  /// and from sync_abandoned to the next sync_complete.
  [[nodiscard]] bool in_sync() const noexcept { return in_sync_; }
  /// Whether a refresh was asked for and is not complete: what the kernel changed without a word is
  /// not in the live world yet.
  [[nodiscard]] bool refreshing() const noexcept { return !refreshes_.empty(); }
  [[nodiscard]] const monitor_counters& counters() const noexcept { return counters_; }

 private:
  enum class phase : std::uint8_t { stopped, backing_off, syncing, live };

  // The dump whose answer is awaited. There is one at most: the kernel refuses a second (EBUSY).
  struct outstanding_dump {
    dump_scope scope;
    std::uint32_t sequence = 0;
    time_point give_up_at;
    bool abandoned = false;    // Its answer is read to the end and ignored.
    bool interrupted = false;  // NLM_F_DUMP_INTR was seen.
    std::error_code failure;
  };

  void begin_sync();
  void give_up(time_point now, std::error_code reason);
  [[nodiscard]] const dump_scope* next_scope();
  void on_dumped_object(message&& value);
  void finish_dump(time_point now, int error_number);
  void repeat_dump(time_point now, const dump_scope& scope);
  void complete_sync(time_point now);
  void complete_refresh();
  void replay_held_events();
  void on_event(message value, time_point now);
  [[nodiscard]] bool must_hold(const message& value) const;

  const monitor_options options_;
  phase phase_ = phase::stopped;
  bool has_live_world_ = false;
  bool in_sync_ = false;
  std::size_t step_ = 0;   // Of the dump plan.
  int attempts_ = 0;       // At the dump of this step or refresh that were interrupted.
  unsigned setbacks_ = 0;  // Syncs begun in a row that were soon given up; the back-off's exponent.
  time_point live_since_;
  time_point resume_at_;  // In backing_off.
  std::uint32_t sequence_ = 0;
  std::optional<outstanding_dump> outstanding_;
  std::deque<dump_scope> refreshes_;  // The first one may be running.
  bool refresh_running_ = false;
  std::vector<message> held_events_;
  std::deque<monitor_event> events_;
  monitor_counters counters_;
};

}  // namespace cowire::netlink

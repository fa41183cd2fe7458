// SPDX-License-Identifier: Apache-2.0
/// What is behind producer, sender and payload: a slice of the frames, the rings to the TX cores,
/// and those who wait for frames.
///
/// Serialised use ("the producer's thread"), but for what is marked; the kernel path's thread is
/// told of in engine.hpp. The rings hold the whole slice, so a push cannot fail, and an operation
/// waits for nothing but a frame.
///
/// How a waiter is woken: the producer stores `somebody_waits_`, and `waiting` in its channels,
/// fences, and looks at the return rings once more (pairs with the fence of whoever returns
/// frames). A core that finds `waiting` set rings the kernel path's thread, which clears both and
/// posts serve() to the executor of the first waiter: where the producer is used.
///
/// A waiter goes with its executor's context (ring/detail/waiting_place.hpp): then the next in line
/// is served. Destroying such a context is a use of the producer, as it destroys payloads.
///
/// Senders that shed have their datagrams go through held_back.hpp.
///
/// Where a shared_producer (shared_producer.hpp) has it, "the producer's thread" is whoever holds
/// its lock, nobody waits here, and frames that come back have its waiters served instead.
#pragma once

#include <cowire/async/datagram_options.hpp>
#include <cowire/async/detail/backing_socket.hpp>
#include <cowire/async/detail/chosen_classes.hpp>
#include <cowire/async/detail/core_links.hpp>
#include <cowire/async/detail/flush_generations.hpp>
#include <cowire/async/detail/held_back.hpp>
#include <cowire/async/detail/path_watches.hpp>
#include <cowire/async/full_policy.hpp>
#include <cowire/async/message.hpp>
#include <cowire/async/payload.hpp>
#include <cowire/async/send_error.hpp>
#include <cowire/base/error.hpp>
#include <cowire/base/forked.hpp>
#include <cowire/ring/asio.hpp>
#include <cowire/ring/direct_completion.hpp>
#include <cowire/ring/event_queue.hpp>
#include <cowire/ring/ring_context.hpp>
#include <cowire/xdp/frame_pool.hpp>
#include <cowire/xdp/producer_channel.hpp>
#include <cowire/xdp/tx_counters.hpp>
#include <cowire/xdp/tx_request.hpp>
#include <cowire/xdp/work_bell.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace cowire::detail {

class core_set;
class engine;
class producer;
class shared_producer;

/// One sender as the producer (hot fields) and the kernel path (the rest) see it.
struct sender_state {
  std::uint32_t id = 0;
  /// By ip_family: an adopted socket of both may have a TOS and a TTL for each.
  std::array<flow_class_id, 2> flow_class{};
  be16 source_port;
  full_policy when_full = full_policy::wait;
  std::array<bool, 2> family_served{};  ///< By ip_family: whether a backing socket exists.
  bool adopted = false;                 ///< Its socket is the application's, too.
  /// Of datagrams that choose for themselves.
  std::shared_ptr<chosen_classes> chosen;
  producer* via = nullptr;  ///< Lives as long as the engine, lent out or idle.
  std::shared_ptr<backing_socket> socket;
  /// By ip_family; to groups the other, as `ttl` does not concern those.
  std::array<send_control, 2> control, group_control;
  std::array<std::uint8_t, 2> tos{};  ///< By ip_family, whoever tells the kernel.
  std::uint32_t scope = 0;  ///< Interface of destinations that name no scope id, 0 = none.
  std::shared_ptr<event_queue<send_error>> errors;
  /// False: what comes from the network is told to another one with the same `errors`.
  bool hears_network = true;

  /// Whether there is a backing socket for a destination, which may be IPv4-mapped.
  [[nodiscard]] bool serves(const endpoint& to) const noexcept {
    return family_served[static_cast<std::size_t>(to.address.unmapped().family())];
  }
};

/// Told which frames of a producer go and which come back; the intake counts them by client. The
/// producer's thread.
class frame_ledger {
 public:
  virtual void note_submitted(std::span<const tx_request> requests) = 0;
  /// `number`: 0, or the errno that the kernel path was refused with.
  virtual void note_returned(frame_index frame, int number) noexcept = 0;

 protected:
  ~frame_ledger() = default;
};

class producer final : public cancellable {
 public:
  using executor_type = ring_context::executor_type;

  /// `cores` outlives it.
  producer(std::uint32_t id, const frame_memory& memory, const frame_slice& slice, core_set& cores);
  producer(const producer&) = delete;
  producer& operator=(const producer&) = delete;
  ~producer();

  // The producer's thread.
  // -------------------------------------------------------------------------

  [[nodiscard]] payload try_acquire(const sender_state& for_whom) noexcept;
  [[nodiscard]] std::error_code try_send(const sender_state& from, std::span<const std::byte> bytes,
                                         const endpoint& to) noexcept;
  [[nodiscard]] std::error_code send(const sender_state& from, payload&& what,
                                     const endpoint& to) noexcept;
  /// The same for a datagram that chooses for itself. Its payload is lost with an error.
  [[nodiscard]] std::error_code try_send(const sender_state& from, std::span<const std::byte> bytes,
                                         const endpoint& to,
                                         const datagram_options& options) noexcept;
  [[nodiscard]] std::error_code send(const sender_state& from, payload&& what, const endpoint& to,
                                     const datagram_options& options) noexcept;
  /// What decides about datagrams like these; as the first of them would, it has their class
  /// compiled where that is new.
  [[nodiscard]] std::error_code ask_about(const sender_state& from, const endpoint& to,
                                          const datagram_options& options, path_question& out);
  [[nodiscard]] path_events watch_path(path_question what);
  void resolve_path(path_question what, direct_completion<std::error_code, path_state> done);
  /// Kernel path's thread: what the datagram in a frame chose, of whose request chosen_bit is set.
  [[nodiscard]] const datagram_options& options_of(frame_index frame) const noexcept {
    return options_[frame - pool_.slice().first];
  }
  /// Gives a leased frame back, by way of the shared_producer if there is one.
  void release(frame_index frame) noexcept;
  [[nodiscard]] std::size_t payload_capacity() const noexcept { return pool_.payload_capacity(); }
  [[nodiscard]] const frame_slice& slice() const noexcept { return pool_.slice(); }
  /// Frames without a payload around them, for the intake, whose frames the kernel fills: taken
  /// from the pool, made a payload, made a bare frame again.
  [[nodiscard]] bool take(frame_index& frame) noexcept;
  [[nodiscard]] payload lease(frame_index frame, std::size_t size) noexcept;
  [[nodiscard]] frame_index detach(payload&& what) noexcept;

  /// Has the ledger told of what operations (begin_send) submit and of all that comes back; whoever
  /// sends a payload of its own knows the frame. Null: nobody is told.
  void keep_ledger(frame_ledger* ledger) noexcept { ledger_ = ledger; }

  /// Datagrams on their way: a batch of messages; or one payload or some bytes, to one destination
  /// or many, or cut into segments for one.
  struct send_operation {
    std::shared_ptr<sender_state> from;
    payload own{};                       ///< What to send ...
    std::span<const std::byte> bytes{};  ///< ... or what to copy, where `own` is empty.
    std::span<const endpoint> many{};    ///< To whom ...
    std::optional<endpoint> one{};       ///< ... or to whom alone.
    std::size_t segment_size = 0;        ///< What `bytes` are cut into for `one`; 0 = not at all.
    datagram_options options{};          ///< For all of them.
    std::span<const message> batch{};    ///< Instead of all of these.
    std::error_code then{};              ///< What comes of it when all is sent.
    /// Of the datagram before; where all are alike also of the next, taken once for all of them.
    std::optional<std::uint16_t> sum{};
    std::size_t sent = 0;
    direct_completion<std::error_code, std::size_t> done{};

    /// How many datagrams; a number below that is asked for below.
    [[nodiscard]] std::size_t count() const noexcept {
      if (!batch.empty()) return batch.size();
      if (!one) return many.size();
      if (segment_size == 0 || bytes.empty()) return 1;
      return (bytes.size() + segment_size - 1) / segment_size;
    }
    [[nodiscard]] const endpoint& destination(std::size_t i) const noexcept {
      if (!batch.empty()) return batch[i].destination;
      return one ? *one : many[i];
    }
    [[nodiscard]] std::span<const std::byte> content(std::size_t i) const noexcept {
      if (!batch.empty()) return batch[i].bytes.span();
      if (own) return own.content();
      if (segment_size == 0 || bytes.empty()) return bytes;
      const std::size_t begin = i * segment_size;
      return bytes.subspan(begin, std::min(segment_size, bytes.size() - begin));
    }
    [[nodiscard]] const datagram_options& options_of(std::size_t i) const noexcept {
      return batch.empty() ? options : batch[i].options;
    }
    /// Whether all datagrams have the same content.
    [[nodiscard]] bool alike() const noexcept { return batch.empty() && segment_size == 0; }
  };
  /// Why an operation cannot begin. Cuts a batch off before what cannot be sent.
  [[nodiscard]] std::error_code check(send_operation& op) const noexcept;
  /// Submits as much as there are frames for; true when the operation is over.
  [[nodiscard]] bool advance(send_operation& op) noexcept;
  /// The same for an operation that begins and ends now: would_block if not all. Checked.
  [[nodiscard]] std::error_code try_send(send_operation& op) noexcept;
  /// sender's asynchronous operations, their handlers made completions with fallback().
  void begin_acquire(const sender_state& for_whom,
                     direct_completion<std::error_code, payload> done);
  void begin_send(send_operation op);
  void begin_flush(direct_completion<std::error_code> done);
  /// What handlers without an executor of their own run on.
  [[nodiscard]] executor_type fallback() const;

  /// Calls `then`, now or in a later call of the producer's thread, when everything submitted so
  /// far has come back.
  void when_drained(std::function<void()> then);

  /// Whether this is the copy of a forked child: all calls but begin_acquire() and the like,
  /// try_send(), send(), release() and retire() are the parent's only.
  [[nodiscard]] bool inherited() const noexcept { return born_.inherited(); }

  /// A sender's handle is gone.
  void retire(const sender_state& sender);

  // A shared_producer, under its lock. ------------------------------------------------------------

  /// Whose frame a payload is; nullptr = no shared one's.
  [[nodiscard]] static shared_producer* sharer_of(const payload& what) noexcept;
  /// Before and after anybody uses it.
  void set_sharer(shared_producer* sharer);
  /// Nobody may take frames out of turn while somebody waits there.
  void keep_turns(bool somebody_waits) noexcept { others_wait_ = somebody_waits; }
  /// Has shared_producer::serve() called when frames come back. True if some have already.
  [[nodiscard]] bool ask_for_frames() noexcept;
  /// For who is first in line.
  [[nodiscard]] bool take_for(payload& first) noexcept;
  /// Whether who asks for a frame now is the next to get one.
  [[nodiscard]] bool in_turn() const noexcept { return waiters_.empty() && !others_wait_; }
  void ask_no_more() noexcept { nobody_waits(); }
  /// release(), under the lock.
  void put_back(frame_index frame) noexcept { pool_.release(frame); }
  [[nodiscard]] bool stopped() const noexcept;

  // The engine. -----------------------------------------------------------------------------------

  /// Hands the producer out: to a new owner, whose handles end in a call of `recycle`.
  void lend(std::shared_ptr<engine> owner, const std::shared_ptr<producer>& self);
  /// Nobody uses it any more; frames on the way come back to the next owner.
  void take_back();
  /// While nobody has it: takes home what came back, and lets retired senders go.
  void settle() { static_cast<void>(collect()); }
  /// Before the first sender that sheds. Allocates. Any thread.
  void allow_shedding();

  /// Has the waiters served. Any thread.
  void wake();
  /// Kernel path's thread: whether frames that have come back let somebody go on.
  [[nodiscard]] bool has_news() noexcept;
  /// Kernel path's thread: has them go on.
  void on_news();
  /// Kernel path's thread: it is done with a frame; 0, or the errno it was refused with.
  void return_by_kernel(frame_index frame, int number);
  /// The rings to a TX core.
  [[nodiscard]] producer_channel& channel(std::uint32_t core) noexcept {
    return links_.channel(core);
  }
  /// Datagrams submitted, and those of them that gave way. Any thread.
  [[nodiscard]] std::uint64_t submitted() const noexcept { return submitted_.get(); }
  [[nodiscard]] std::uint64_t shed() const noexcept { return held_back_.shed(); }

 private:
  /// advance(), with so many requests on the stack, which have their price even unused.
  template <std::size_t batch>
  [[nodiscard]] bool advance_by(send_operation& op, std::size_t all) noexcept;

  struct waiter {
    std::uint64_t ticket = 0;
    direct_completion<std::error_code, payload> acquire;  ///< Either this ...
    send_operation send;  ///< ... or this one's `done`, then `from` is set.
    payload got;
    std::error_code result;
    [[nodiscard]] bool acquires() const noexcept { return !send.from; }
    std::shared_ptr<producer> keep;  ///< A handle: who waits still uses the producer.
  };
  struct drain_waiter {
    std::uint64_t ticket = 0;
    std::uint64_t generation = 0;  ///< Done when all of this and older generations came back.
    direct_completion<std::error_code> done;
    std::error_code result;
    std::shared_ptr<producer> keep;
  };
  /// serve() on its way to a waiter's executor.
  class serve_call;
  /// What is due to complete; delivered after the state is consistent, as the last thing.
  struct deliveries;

  void cancel(std::uint64_t ticket) override;
  void context_gone(std::uint64_t ticket) override;

  /// The number of the core that takes what goes there.
  [[nodiscard]] std::uint32_t core_for(const endpoint& to) const noexcept;
  /// Requests of the operation's datagrams from the one that is next.
  void submit(const send_operation& op, std::span<const tx_request> requests) noexcept;
  void submit_guarded(const sender_state& from, std::uint32_t core,
                      const tx_request& request) noexcept;
  /// Takes a frame from a datagram that is held back.
  [[nodiscard]] bool take_from_oldest(const sender_state& for_whom, frame_index& frame) noexcept;
  /// Why a lone datagram of so many bytes cannot be sent, whatever it chooses.
  [[nodiscard]] std::error_code refusal_of(const sender_state& from, std::size_t size,
                                           const endpoint& to) const noexcept;
  void submit_one(const sender_state& from, frame_index frame, std::size_t length,
                  std::uint16_t sum, const endpoint& to) noexcept;
  void submit_one(const sender_state& from, const endpoint& to, const tx_request& request) noexcept;
  [[nodiscard]] tx_request request_from(const sender_state& from, frame_index frame,
                                        std::size_t length, std::uint16_t sum,
                                        const endpoint& to) const noexcept;
  [[nodiscard]] tx_request request_from(const sender_state& from, frame_index frame,
                                        std::size_t length, std::uint16_t sum, const endpoint& to,
                                        const datagram_options& options) noexcept;
  [[nodiscard]] flow_class_id class_for(const sender_state& from, ip_family family,
                                        const datagram_options& options) noexcept;
  [[nodiscard]] chosen_classes::found chosen_for(const sender_state& from, ip_family family,
                                                 const datagram_options& options) noexcept;
  /// Takes home what came back; true if anything did.
  bool collect() noexcept;
  void came_back(frame_index frame) noexcept;
  /// Whether the first of those who wait for a flush is done.
  [[nodiscard]] bool drain_is_due() const noexcept {
    return !drains_.empty() && flushes_.is_over(drains_.front().generation);
  }
  void serve();
  void serve_frames(deliveries& out);
  void serve_drains(deliveries& out);
  void nobody_waits() noexcept;
  /// Has serve() posted when frames come back, or at once if they did, while somebody waits. The
  /// last thing to do with the state.
  void ask_for_wake();
  [[nodiscard]] std::shared_ptr<producer> self() const noexcept { return self_.lock(); }

  const fork_mark born_;
  const core_set& cores_;
  std::atomic<bool> somebody_waits_{false};
  frame_pool pool_;
  single_writer_counter submitted_;
  core_links links_;
  held_back held_back_;
  /// By frame, once any datagram needs it. The rings order what both threads do with it.
  std::unique_ptr<datagram_options[]> options_;
  std::shared_ptr<engine> owner_;

  std::list<waiter> waiters_;
  std::list<drain_waiter> drains_;
  std::uint64_t ticket_ = 0;
  flush_generations flushes_;
  frame_ledger* ledger_ = nullptr;
  bool others_wait_ = false;
  shared_producer* sharer_ = nullptr;

  /// Guards the two below against other threads, which read them in wake().
  std::mutex wake_mutex_;
  std::shared_ptr<waiting_place> wake_place_;
  std::weak_ptr<producer> self_;
};

}  // namespace cowire::detail

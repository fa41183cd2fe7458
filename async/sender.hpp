// SPDX-License-Identifier: Apache-2.0
/// Sends UDP datagrams: a light handle on a producer.
///
///     sender (options, source port) --> producer (frames, rings) --> TX core
///
/// A *producer* owns a slice of the frames and the rings to the TX core. A *sender* adds what its
/// datagrams have in common: source address and port, mark, TOS, TTL, bound device. A thousand
/// senders on one thread share that thread's producer; the TX core polls one ring for all of them.
/// Senders are made by transmitter::make_sender().
///
/// Threads. All calls on senders (and payloads) of one producer must be serialised: one thread, or
/// one strand with a producer of its own (transmitter::make_producer()). By default every thread
/// that makes a sender gets a producer, and the rule is "use a sender on the thread that made it".
///
/// Suspension. An operation waits for nothing but frames, if at all (sender_options::when_full);
/// waiters are served in turn, and try_send() fails while somebody waits. A waiter continues in its
/// handler's associated executor, which must run where the producer is used (for a coroutine:
/// the executor that it was spawned on). A waiter without an executor of its own (a bare callback,
/// use_future) is served on the transmitter's control thread: until it has completed, make no other
/// call on the producer.
///
/// A waiter goes with its executor's context: destroyed with it, uncalled, and the next in line is
/// served. (Of an asio::any_completion_handler's executor the context is known if it is an
/// io_context's, a ring_context's or an any_io_executor; with others the context must stay until
/// the operation has completed.) Destroying a context counts as a call on the producers that its
/// handlers wait for, and on the payloads that they hold.
///
/// Completion. Handlers never run inside the initiating call; they run on their associated
/// executor, with their associated allocator. Per-operation cancellation: total, partial and
/// terminal, emitted where the producer is used; a cancelled operation completes with
/// operation_aborted and the number of datagrams submitted until then.
///
/// Errors. Success means "submitted". What the kernel or the network said later (no route, port
/// unreachable, packet too big) comes through async_next_error() and is counted in
/// transmitter::stats().
///
/// Bytes. A payload is written in place, in the memory that the NIC reads. Bytes that are the
/// application's, in a reference-counted block or an arena, are copied once, into a frame, by the
/// call that takes them; their checksum is summed on the way, and nothing is allocated for them.
/// cowire keeps no reference: they are the application's again when try_send() and the like return,
/// or the operation completes, so that an owner need not be handed over. What a copy costs beside
/// writing in place: docs/performance.md.
///
/// Destinations are what they are to a socket. An IPv4-mapped IPv6 address is the IPv4 host. A
/// scope id (endpoint::scope_id) chooses the device of that one datagram; where it is not the
/// sender's own bound device, the kernel path sends it (divert_reason::scoped_destination), so bind
/// a sender to the device where speed matters.
///
/// In a child of fork() an inherited sender fails at once with error::forked (transmitter.hpp); an
/// operation whose handler has no executor of its own throws it, as no thread could run the
/// handler.
///
/// Not for TCP, not for receiving (port.hpp), and a plain socket is simpler below some ten thousand
/// datagrams a second.
#pragma once

#include <cowire/async/datagram_bytes.hpp>
#include <cowire/async/datagram_options.hpp>
#include <cowire/async/full_policy.hpp>
#include <cowire/async/message.hpp>
#include <cowire/async/path_events.hpp>
#include <cowire/async/payload.hpp>
#include <cowire/async/send_error.hpp>
#include <cowire/base/address.hpp>
#include <cowire/base/error.hpp>
#include <cowire/ring/asio.hpp>
#include <cowire/ring/direct_completion.hpp>
#include <cowire/ring/ring_context.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>

namespace cowire {

namespace detail {
struct sender_state;
}

/// Handle on a producer made by transmitter::make_producer(). Copies share the producer; it goes
/// back to its transmitter with the last handle, sender and payload.
class producer {
 public:
  producer() noexcept = default;
  /// How many frames it owns: what can be on the way at once.
  [[nodiscard]] std::size_t frame_count() const noexcept;

 private:
  friend class transmitter;
  friend class intake;
  explicit producer(std::shared_ptr<detail::producer> state) noexcept : state_(std::move(state)) {}
  std::shared_ptr<detail::producer> state_;
};

template <class Executor>
class basic_sender;

/// What a sender is made with.
struct sender_options {
  /// Host order. 0 = one that the kernel picks, shared by the transmitter's senders that do not
  /// name one and have the same source addresses.
  std::uint16_t source_port = 0;
  /// Fixed source addresses, one per family; unset = as the routes say, per destination. An
  /// IPv4-mapped address is no IPv6 source: error::family_mismatch.
  std::optional<ip_address> source_v4{}, source_v6{};
  std::uint32_t mark = 0;  ///< As SO_MARK.
  std::uint8_t tos = 0;    ///< As IP_TOS and IPV6_TCLASS: the whole byte.
  std::uint8_t ttl = 0;  ///< As IP_TTL and IPV6_UNICAST_HOPS; 0 = the route's or system's default.
  /// To groups, which `ttl` does not concern: as IP_MULTICAST_TTL and IPV6_MULTICAST_HOPS. Senders
  /// of one port agree in this, the next two and `broadcast`: error::port_in_use.
  std::uint8_t multicast_ttl = 1;
  /// As IP_MULTICAST_IF and IPV6_MULTICAST_IF; "" = as the routes say. It must exist now.
  std::string multicast_interface{};
  /// As IP_MULTICAST_LOOP and IPV6_MULTICAST_LOOP, without which no socket on this host hears what
  /// it sends.
  bool multicast_loop = true;
  /// As SO_BROADCAST: without it the kernel refuses broadcast with EACCES.
  bool broadcast = false;
  std::string bound_device{};  ///< As SO_BINDTODEVICE; "" = any. It must exist now.
  /// The user (uid) whose datagrams they are: the backing socket is theirs, so that policy rules
  /// and firewalls take them for that user's own. Unset = this process's. For another user's,
  /// CAP_SETUID is needed, and operation_not_permitted the answer without it.
  std::optional<std::uint32_t> owner{};
  /// A bound UDP socket of the application whose port, source address, owner, mark, TOS, TTL and
  /// device are used instead of the options above; -1 = none. It is duplicated: the application may
  /// close its own descriptor. IP_RECVERR is switched on and its error queue is read by cowire. An
  /// IPv6 socket without IPV6_V6ONLY serves IPv4 too, as it does for the application. Its options
  /// are read now, those for multicast too; IP_MULTICAST_IF cannot be read, so that
  /// `multicast_interface` is set on it if given, and otherwise IPv4 groups of a socket without
  /// device are left to the kernel. error::unsupported where one is set that only the kernel can
  /// follow: SO_DONTROUTE, SO_PRIORITY, IP_UNICAST_IF, IP_OPTIONS, IPv6 extension headers,
  /// UDP_SEGMENT and the like (docs/limits.md); the exception names it.
  int adopt_socket = -1;
  /// Newer errors than this many unread ones are dropped and counted (errors_dropped()).
  std::size_t error_queue_limit = 64;
  /// Where there is no frame for a datagram. Datagrams that give way are transmitter_stats::shed.
  full_policy when_full = full_policy::wait;
  /// The producer to send through; default = the calling thread's own.
  producer via{};
};

class sender {
 public:
  using executor_type = ring_context::executor_type;
  /// What handlers are called with.
  using acquire_signature = void(std::error_code, payload);
  using send_signature = void(std::error_code, std::size_t);
  using flush_signature = void(std::error_code);
  using error_signature = void(std::error_code, send_error);
  using resolve_signature = void(std::error_code, path_state);
  /// For as_default_on() of completion tokens (basic_sender.hpp).
  template <class Executor>
  struct rebind_executor {
    using other = basic_sender<Executor>;
  };

  /// Without a producer: every call but assignment and destruction is an assertion.
  sender() noexcept = default;
  sender(sender&&) noexcept = default;
  sender& operator=(sender&& other) noexcept;
  /// Datagrams on the way are not affected; a waiting async_next_error completes with
  /// error::closed.
  ~sender();

  /// Host order; never 0.
  [[nodiscard]] std::uint16_t source_port() const noexcept;
  /// Source address (unspecified if not fixed) and port for a family.
  [[nodiscard]] endpoint local_endpoint(ip_family family) const noexcept;
  /// The longest payload; longer ones are error::too_long.
  [[nodiscard]] std::size_t payload_capacity() const noexcept;
  /// What handlers without an executor of their own run on: the transmitter's control thread.
  [[nodiscard]] executor_type get_executor() const noexcept;

  /// A frame to write into, or an empty payload when there is none now (or others wait). Neither
  /// blocks nor allocates.
  [[nodiscard]] payload try_acquire() noexcept;
  /// The same, waiting for a frame. Errors: closed, operation_aborted, and would_block instead of a
  /// wait if that is the sender's policy.
  template <asio::completion_token_for<acquire_signature> Token>
  auto async_acquire(Token&& token) {
    return asio::async_initiate<Token, acquire_signature>(acquire_initiation{this}, token);
  }

  /// Copies `bytes` into a frame and submits it. False when there is no frame now
  /// (error::would_block in the twin), when it is too long, or after stop(). Neither blocks nor
  /// allocates.
  [[nodiscard]] bool try_send(datagram_bytes bytes, const endpoint& destination) noexcept;
  void try_send(datagram_bytes bytes, const endpoint& destination, std::error_code& ec) noexcept;
  /// With choices of this datagram's own, as all calls with `options` (datagram_options.hpp, which
  /// says what may then be refused).
  [[nodiscard]] bool try_send(datagram_bytes bytes, const endpoint& destination,
                              const datagram_options& options) noexcept;
  void try_send(datagram_bytes bytes, const endpoint& destination, const datagram_options& options,
                std::error_code& ec) noexcept;
  /// Submits a payload as it is. Needs no further frame: fails only after stop() (error::closed).
  void send(payload what, const endpoint& destination, std::error_code& ec) noexcept;
  void send(payload what, const endpoint& destination, const datagram_options& options,
            std::error_code& ec) noexcept;

  /// Submits one payload to every destination, in order: the last uses the frame itself, the others
  /// are copies in frames of their own. Completes with how many datagrams were submitted: all,
  /// unless an error says otherwise. `destinations` must stay valid until then. The payload is this
  /// producer's. Errors: no_destination, closed, operation_aborted, would_block (as above), and
  /// family_mismatch (no backing socket of a destination's family; where an adopted socket has none
  /// itself, it would hear ENETUNREACH or EAFNOSUPPORT).
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(payload what, std::span<const endpoint> destinations, Token&& token) {
    return async_send(std::move(what), destinations, datagram_options{},
                      std::forward<Token>(token));
  }
  /// One destination, which is copied.
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(payload what, const endpoint& destination, Token&& token) {
    return async_send(std::move(what), destination, datagram_options{}, std::forward<Token>(token));
  }
  /// Copies `bytes` into as many frames as there are destinations. The bytes and the span must stay
  /// valid until completion. Errors: as above, and too_long.
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(datagram_bytes bytes, std::span<const endpoint> destinations, Token&& token) {
    return async_send(bytes, destinations, datagram_options{}, std::forward<Token>(token));
  }
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(datagram_bytes bytes, const endpoint& destination, Token&& token) {
    return asio::async_initiate<Token, send_signature>(send_initiation{this}, token, bytes.span(),
                                                       destination);
  }

  /// The same with options, which are copied.
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(payload what, std::span<const endpoint> destinations,
                  const datagram_options& options, Token&& token) {
    return asio::async_initiate<Token, send_signature>(
        [this](auto handler, payload moved, std::span<const endpoint> to,
               const datagram_options& chosen) {
          begin_send(std::move(moved), to, {std::move(handler), get_executor()}, chosen);
        },
        token, std::move(what), destinations, options);
  }
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(payload what, const endpoint& destination, const datagram_options& options,
                  Token&& token) {
    return asio::async_initiate<Token, send_signature>(
        [this](auto handler, payload moved, const endpoint& to, const datagram_options& chosen) {
          begin_send(std::move(moved), to, {std::move(handler), get_executor()}, chosen);
        },
        token, std::move(what), destination, options);
  }
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(datagram_bytes bytes, std::span<const endpoint> destinations,
                  const datagram_options& options, Token&& token) {
    return asio::async_initiate<Token, send_signature>(
        [this](auto handler, std::span<const std::byte> from, std::span<const endpoint> to,
               const datagram_options& chosen) {
          begin_send(from, to, {std::move(handler), get_executor()}, chosen);
        },
        token, bytes.span(), destinations, options);
  }
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(datagram_bytes bytes, const endpoint& destination,
                  const datagram_options& options, Token&& token) {
    return asio::async_initiate<Token, send_signature>(send_initiation{this}, token, bytes.span(),
                                                       destination, options);
  }
  template <asio::completion_token_for<send_signature> Token>
  auto async_send_segments(datagram_bytes bytes, std::size_t segment_size,
                           const endpoint& destination, const datagram_options& options,
                           Token&& token) {
    return asio::async_initiate<Token, send_signature>(
        [this](auto handler, std::span<const std::byte> from, std::size_t size, const endpoint& to,
               const datagram_options& chosen) {
          begin_send_segments(from, size, to, {std::move(handler), get_executor()}, chosen);
        },
        token, bytes.span(), segment_size, destination, options);
  }

  /// Several datagrams, 64 at a time with one publication to the TX core (where there are several
  /// cores each datagram has its own, and each core one wake-up); the bytes are copied, and each
  /// may have options of its own. Returns how many were submitted, which are the first ones; where
  /// it is not all of them `ec` says why not the next: would_block (no frame now), too_long,
  /// family_mismatch, closed, and what datagram_options.hpp says of options. None is no error.
  [[nodiscard]] std::size_t try_send_batch(std::span<const message> messages,
                                           std::error_code& ec) noexcept;
  /// Cuts `bytes` into datagrams of `segment_size` bytes, the last of which may be shorter, as
  /// UDP_SEGMENT does, but any number of them; 0 = one datagram. Returns how many were submitted:
  /// what is left begins at that many times `segment_size`. Errors as above.
  [[nodiscard]] std::size_t try_send_segments(datagram_bytes bytes, std::size_t segment_size,
                                              const endpoint& destination,
                                              std::error_code& ec) noexcept;
  [[nodiscard]] std::size_t try_send_segments(datagram_bytes bytes, std::size_t segment_size,
                                              const endpoint& destination,
                                              const datagram_options& options,
                                              std::error_code& ec) noexcept;
  /// The same, waiting for frames: completes with how many were submitted, and why not all.
  /// Messages and bytes must stay valid until then; the destination is copied. Errors: as above,
  /// operation_aborted, and would_block only if that is the sender's policy.
  template <asio::completion_token_for<send_signature> Token>
  auto async_send_batch(std::span<const message> messages, Token&& token) {
    return asio::async_initiate<Token, send_signature>(
        [this](auto handler, std::span<const message> what) {
          begin_send_batch(what, {std::move(handler), get_executor()});
        },
        token, messages);
  }
  /// As try_send_segments(), waiting for frames like async_send_batch().
  template <asio::completion_token_for<send_signature> Token>
  auto async_send_segments(datagram_bytes bytes, std::size_t segment_size,
                           const endpoint& destination, Token&& token) {
    return async_send_segments(bytes, segment_size, destination, datagram_options{},
                               std::forward<Token>(token));
  }

  /// Completes when everything submitted on this sender's *producer* before the call has left the
  /// host or is counted as refused, lost or shed. Errors: operation_aborted.
  template <asio::completion_token_for<flush_signature> Token>
  auto async_flush(Token&& token) {
    return asio::async_initiate<Token, flush_signature>(
        [this](auto handler) {
          begin_flush({std::move(handler), get_executor()});
        },
        token);
  }

  /// What serves datagrams to `destination`, with these options: now, and after each change
  /// (path_events.hpp). Throws std::system_error where a call with such a datagram would fail
  /// (family_mismatch, closed, forked, and what datagram_options.hpp says); the twin does not.
  [[nodiscard]] path_events watch_path(const endpoint& destination,
                                       const datagram_options& options = {});
  [[nodiscard]] path_events watch_path(const endpoint& destination, const datagram_options& options,
                                       std::error_code& ec);
  /// Completes when the fast path serves `destination`: a datagram with these options that is sent
  /// then goes past the kernel. Or at once, without an error, with why it will not (path_state): a
  /// reason that lasts, as is_transient() in base/reason.hpp tells. What passes is waited for: a
  /// flow class is compiled, the kernel is asked to resolve the next hop, which it tries as long as
  /// somebody waits (with CAP_NET_ADMIN). No datagram is sent, so that a flow that connection
  /// tracking must see first is path_service::tracked: its first datagram takes the kernel path.
  /// A ruleset that is being read is waited for, too. Not waited for: a cable, an interface that is
  /// being set up, the end of a redirect (divert_reason::path_exception).
  ///
  /// For a time-out, emit a cancellation, or race it with a timer. Errors: operation_aborted;
  /// closed (stop(), the sender's end); forked; those of watch_path().
  template <asio::completion_token_for<resolve_signature> Token>
  auto async_resolve(const endpoint& destination, Token&& token) {
    return async_resolve(destination, datagram_options{}, std::forward<Token>(token));
  }
  template <asio::completion_token_for<resolve_signature> Token>
  auto async_resolve(const endpoint& destination, const datagram_options& options, Token&& token) {
    return asio::async_initiate<Token, resolve_signature>(
        [this](auto handler, const endpoint& to, const datagram_options& chosen) {
          begin_resolve(to, chosen, {std::move(handler), get_executor()});
        },
        token, destination, options);
  }

  /// The next error report, oldest first. What this host refused is reported to the sender that
  /// submitted it; what came back from the network, to every sender with that source port. One call
  /// at a time. Errors: closed, operation_aborted.
  template <asio::completion_token_for<error_signature> Token>
  auto async_next_error(Token&& token) {
    return asio::async_initiate<Token, error_signature>(
        [this](auto handler) {
          begin_next_error({std::move(handler), get_executor()});
        },
        token);
  }
  /// Error reports dropped because nobody read them in time.
  [[nodiscard]] std::uint64_t errors_dropped() const noexcept;

 private:
  friend class transmitter;
  friend class intake;
  sender(std::shared_ptr<detail::producer> via,
         std::shared_ptr<detail::sender_state> state) noexcept
      : via_(std::move(via)), state_(std::move(state)) {}
  // What await_frames_t may do without waiting is at_once().
  struct acquire_initiation {
    sender* self;

    template <class Handler>
    void operator()(Handler handler) const {
      self->begin_acquire({std::move(handler), self->get_executor()});
    }
    [[nodiscard]] std::optional<payload> at_once() const noexcept {
      payload now = self->try_acquire();
      if (!now) return std::nullopt;
      return now;
    }
  };
  struct send_initiation {
    sender* self;

    /// With options, or without.
    template <class Handler, class... Options>
    void operator()(Handler handler, std::span<const std::byte> from, const endpoint& to,
                    const Options&... options) const {
      self->begin_send(from, to, {std::move(handler), self->get_executor()}, {options...});
    }
    template <class... Options>
    [[nodiscard]] std::optional<std::size_t> at_once(std::span<const std::byte> from,
                                                     const endpoint& to,
                                                     const Options&... options) const noexcept {
      if (!self->try_send(from, to, options...)) return std::nullopt;
      return 1;
    }
  };

  void retire() noexcept;
  void begin_acquire(direct_completion<std::error_code, payload> done);
  void begin_send(payload what, std::span<const endpoint> to,
                  direct_completion<std::error_code, std::size_t> done,
                  const datagram_options& options);
  void begin_send(payload what, const endpoint& to,
                  direct_completion<std::error_code, std::size_t> done,
                  const datagram_options& options);
  void begin_send(std::span<const std::byte> bytes, std::span<const endpoint> to,
                  direct_completion<std::error_code, std::size_t> done,
                  const datagram_options& options);
  void begin_send(std::span<const std::byte> bytes, const endpoint& to,
                  direct_completion<std::error_code, std::size_t> done,
                  const datagram_options& options);
  void begin_send_batch(std::span<const message> messages,
                        direct_completion<std::error_code, std::size_t> done);
  void begin_send_segments(std::span<const std::byte> bytes, std::size_t segment_size,
                           const endpoint& to, direct_completion<std::error_code, std::size_t> done,
                           const datagram_options& options);
  void begin_flush(direct_completion<std::error_code> done);
  void begin_next_error(direct_completion<std::error_code, send_error> done);
  void begin_resolve(const endpoint& to, const datagram_options& options,
                     direct_completion<std::error_code, path_state> done);
  /// These assert that it has a producer.
  [[nodiscard]] const std::shared_ptr<detail::producer>& shared_producer() const noexcept;
  [[nodiscard]] const std::shared_ptr<detail::sender_state>& shared_state() const noexcept;

  std::shared_ptr<detail::producer> via_;
  std::shared_ptr<detail::sender_state> state_;
};

}  // namespace cowire

#include <cowire/async/basic_sender.hpp>  // Its users need no other header.

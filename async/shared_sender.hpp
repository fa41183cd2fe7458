// SPDX-License-Identifier: Apache-2.0
/// A sender for all threads: copied freely, called from any of them, without a producer of one's
/// own.
///
///     shared_sender s = tx.make_shared_sender({.source_port = 8001});
///     std::thread([s] { while (!s.try_send(bytes, there)) std::this_thread::yield(); });
///
/// Behind it are a few producers that all shared senders of a transmitter have in common
/// (transmitter_config::shared_producers), each under a lock that is held for a datagram, or for
/// the datagrams of one fan-out. Any number of threads may call any member of the same object, or
/// of copies, at once; max_producers does not count them. A thread that calls alone pays two
/// uncontended atomic operations more than a `sender`'s, so where each thread can have a sender of
/// its own, that is still the fastest.
///
/// Order. What one thread sends to one destination leaves in the order of its calls. What several
/// threads send (or a coroutine that moves between threads) does so only with shared_producers = 1,
/// or where they send payloads of the same producer.
///
/// Room. A thread's datagrams go through one of the producers, and it is that one's frames that
/// must suffice: frames_per_producer / shared_producers. Those who wait for frames are served in
/// turn, and meanwhile the try_ calls of threads with the same producer fail. A lock is not taken
/// in turn, but nobody waits for it for ever (base/short_lock.hpp). Calls block for no longer than
/// the lock is held, which is as long as the copies of a fan-out take; a holder that is preempted
/// holds up those with the same producer.
///
/// Completion, errors, destinations, fork: as sender.hpp says, but that a waiter is served on a
/// thread of ours or in another thread's call, so that no rule ties its executor to a thread, and
/// `bytes` may be read there until it has completed. A cancellation signal may be emitted from
/// wherever the handler's slot may be used.
///
/// Not from signal handlers. A payload may be used, sent and dropped on any thread, one at a time.
#pragma once

#include <cowire/async/datagram_bytes.hpp>
#include <cowire/async/datagram_options.hpp>
#include <cowire/async/message.hpp>
#include <cowire/async/payload.hpp>
#include <cowire/async/send_error.hpp>
#include <cowire/async/sender.hpp>
#include <cowire/base/address.hpp>
#include <cowire/ring/asio.hpp>
#include <cowire/ring/direct_completion.hpp>
#include <cowire/ring/ring_context.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

namespace cowire {

namespace detail {
struct shared_sender_state;
}

template <class Executor>
class basic_shared_sender;

class shared_sender {
 public:
  using executor_type = ring_context::executor_type;
  /// What handlers are called with.
  using acquire_signature = sender::acquire_signature;
  using send_signature = sender::send_signature;
  using error_signature = sender::error_signature;
  using resolve_signature = sender::resolve_signature;
  /// For as_default_on() of completion tokens.
  template <class Executor>
  struct rebind_executor {
    using other = basic_shared_sender<Executor>;
  };

  /// Refers to nothing: every call but assignment, copying and destruction is an assertion. The
  /// last copy ends the sender: datagrams on the way, and waiting sends, are not affected, and a
  /// waiting async_next_error completes with error::closed.
  shared_sender() noexcept = default;
  /// Whether it refers to a sender.
  [[nodiscard]] explicit operator bool() const noexcept { return state_ != nullptr; }

  /// Host order; never 0.
  [[nodiscard]] std::uint16_t source_port() const noexcept;
  /// Source address (unspecified if not fixed) and port for a family.
  [[nodiscard]] endpoint local_endpoint(ip_family family) const noexcept;
  /// The longest payload; longer ones are error::too_long.
  [[nodiscard]] std::size_t payload_capacity() const noexcept;
  /// Which of the shared producers serves the calling thread: a number below
  /// transmitter_config::shared_producers, always the same one. For who waits on behalf of threads.
  [[nodiscard]] std::size_t place() const noexcept;
  /// Whose frame a payload is, which is where the copies come from that a fan-out of it needs.
  [[nodiscard]] std::size_t place(const payload& what) const noexcept;
  /// What handlers without an executor of their own run on: the transmitter's control thread.
  [[nodiscard]] executor_type get_executor() const noexcept;

  /// A frame to write into, or an empty payload when there is none now (or others wait), and after
  /// stop(). Does not allocate.
  [[nodiscard]] payload try_acquire() const noexcept;
  /// The same, and `ec` says why it is empty: would_block, closed, or forked.
  [[nodiscard]] payload try_acquire(std::error_code& ec) const noexcept;
  /// The same, waiting for a frame. Errors: closed, operation_aborted, and would_block instead of a
  /// wait if that is the sender's policy.
  template <asio::completion_token_for<acquire_signature> Token>
  auto async_acquire(Token&& token) const {
    return asio::async_initiate<Token, acquire_signature>(acquire_initiation{}, token, *this);
  }
  /// The same of a certain shared producer, by its place().
  template <asio::completion_token_for<acquire_signature> Token>
  auto async_acquire_at(std::size_t place, Token&& token) const {
    return asio::async_initiate<Token, acquire_signature>(
        [](auto handler, const shared_sender& self, std::size_t where) {
          self.begin_acquire(where, {std::move(handler), self.get_executor()});
        },
        token, *this, place);
  }

  /// Copies `bytes` into a frame and submits it. False when there is no frame now
  /// (error::would_block in the twin), when it is too long, or after stop(). Does not allocate.
  [[nodiscard]] bool try_send(datagram_bytes bytes, const endpoint& destination) const noexcept;
  void try_send(datagram_bytes bytes, const endpoint& destination,
                std::error_code& ec) const noexcept;
  /// With choices of this datagram's own, as all calls with `options` (datagram_options.hpp, which
  /// says what may then be refused).
  [[nodiscard]] bool try_send(datagram_bytes bytes, const endpoint& destination,
                              const datagram_options& options) const noexcept;
  void try_send(datagram_bytes bytes, const endpoint& destination, const datagram_options& options,
                std::error_code& ec) const noexcept;
  /// Fan-out: the same to every destination, in order. Returns how many were accepted, which are
  /// the first ones: a retry goes on with the rest, and nobody gets it twice. `ec` says why not
  /// all: would_block when frames ran out; with any other error (no_destination, too_long,
  /// family_mismatch, closed, forked) none was accepted. Does not allocate.
  [[nodiscard]] std::size_t try_send(datagram_bytes bytes, std::span<const endpoint> destinations,
                                     std::error_code& ec) const noexcept;
  /// The same for a payload, which goes to the last destination itself: it is the caller's as long
  /// as not all have got it.
  [[nodiscard]] std::size_t try_send(payload& what, std::span<const endpoint> destinations,
                                     std::error_code& ec) const noexcept;
  [[nodiscard]] std::size_t try_send(datagram_bytes bytes, std::span<const endpoint> destinations,
                                     const datagram_options& options,
                                     std::error_code& ec) const noexcept;
  [[nodiscard]] std::size_t try_send(payload& what, std::span<const endpoint> destinations,
                                     const datagram_options& options,
                                     std::error_code& ec) const noexcept;
  /// Submits a payload as it is; of any shared sender of the transmitter. Needs no further frame:
  /// fails only after stop() (error::closed), and for a family without a socket (family_mismatch).
  void send(payload what, const endpoint& destination, std::error_code& ec) const noexcept;
  void send(payload what, const endpoint& destination, const datagram_options& options,
            std::error_code& ec) const noexcept;

  /// As sender::async_send(), one form after the other. Completes with how many datagrams were
  /// submitted, which are those to the first destinations, whatever the error is.
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(payload what, std::span<const endpoint> destinations, Token&& token) const {
    return async_send(std::move(what), destinations, datagram_options{},
                      std::forward<Token>(token));
  }
  /// One destination, which is copied.
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(payload what, const endpoint& destination, Token&& token) const {
    return async_send(std::move(what), destination, datagram_options{}, std::forward<Token>(token));
  }
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(datagram_bytes bytes, std::span<const endpoint> destinations,
                  Token&& token) const {
    return async_send(bytes, destinations, datagram_options{}, std::forward<Token>(token));
  }
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(datagram_bytes bytes, const endpoint& destination, Token&& token) const {
    return asio::async_initiate<Token, send_signature>(send_initiation{}, token, *this,
                                                       bytes.span(), destination);
  }

  /// The same with options, which are copied.
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(payload what, std::span<const endpoint> destinations,
                  const datagram_options& options, Token&& token) const {
    return asio::async_initiate<Token, send_signature>(
        [](auto handler, const shared_sender& self, payload moved, std::span<const endpoint> to,
           const datagram_options& chosen) {
          self.begin_send(std::move(moved), to, {std::move(handler), self.get_executor()}, chosen);
        },
        token, *this, std::move(what), destinations, options);
  }
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(payload what, const endpoint& destination, const datagram_options& options,
                  Token&& token) const {
    return asio::async_initiate<Token, send_signature>(
        [](auto handler, const shared_sender& self, payload moved, const endpoint& to,
           const datagram_options& chosen) {
          self.begin_send(std::move(moved), to, {std::move(handler), self.get_executor()}, chosen);
        },
        token, *this, std::move(what), destination, options);
  }
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(datagram_bytes bytes, std::span<const endpoint> destinations,
                  const datagram_options& options, Token&& token) const {
    return asio::async_initiate<Token, send_signature>(
        [](auto handler, const shared_sender& self, std::span<const std::byte> from,
           std::span<const endpoint> to, const datagram_options& chosen) {
          self.begin_send(from, to, {std::move(handler), self.get_executor()}, chosen);
        },
        token, *this, bytes.span(), destinations, options);
  }
  template <asio::completion_token_for<send_signature> Token>
  auto async_send(datagram_bytes bytes, const endpoint& destination,
                  const datagram_options& options, Token&& token) const {
    return asio::async_initiate<Token, send_signature>(send_initiation{}, token, *this,
                                                       bytes.span(), destination, options);
  }
  template <asio::completion_token_for<send_signature> Token>
  auto async_send_segments(datagram_bytes bytes, std::size_t segment_size,
                           const endpoint& destination, const datagram_options& options,
                           Token&& token) const {
    return asio::async_initiate<Token, send_signature>(
        [](auto handler, const shared_sender& self, std::span<const std::byte> from,
           std::size_t size, const endpoint& to, const datagram_options& chosen) {
          self.begin_send_segments(from, size, to, {std::move(handler), self.get_executor()},
                                   chosen);
        },
        token, *this, bytes.span(), segment_size, destination, options);
  }

  /// Several datagrams, 64 at a time with one publication to the TX core (where there are several
  /// cores each datagram has its own, and each core one wake-up); the bytes are copied, and each
  /// may have options of its own. Returns how many were submitted, which are the first ones; where
  /// it is not all of them `ec` says why not the next: would_block (no frame now), too_long,
  /// family_mismatch, closed, and what datagram_options.hpp says of options. None is no error.
  [[nodiscard]] std::size_t try_send_batch(std::span<const message> messages,
                                           std::error_code& ec) const noexcept;
  /// Cuts `bytes` into datagrams of `segment_size` bytes, the last of which may be shorter, as
  /// UDP_SEGMENT does, but any number of them; 0 = one datagram. Returns how many were submitted:
  /// what is left begins at that many times `segment_size`. Errors as above.
  [[nodiscard]] std::size_t try_send_segments(datagram_bytes bytes, std::size_t segment_size,
                                              const endpoint& destination,
                                              std::error_code& ec) const noexcept;
  [[nodiscard]] std::size_t try_send_segments(datagram_bytes bytes, std::size_t segment_size,
                                              const endpoint& destination,
                                              const datagram_options& options,
                                              std::error_code& ec) const noexcept;
  /// The same, waiting for frames: completes with how many were submitted, and why not all.
  /// Messages and bytes must stay valid until then; the destination is copied. Errors: as above,
  /// operation_aborted, and would_block only if that is the sender's policy.
  template <asio::completion_token_for<send_signature> Token>
  auto async_send_batch(std::span<const message> messages, Token&& token) const {
    return asio::async_initiate<Token, send_signature>(
        [](auto handler, const shared_sender& self, std::span<const message> what) {
          self.begin_send_batch(what, {std::move(handler), self.get_executor()});
        },
        token, *this, messages);
  }
  /// As try_send_segments(), waiting for frames like async_send_batch().
  template <asio::completion_token_for<send_signature> Token>
  auto async_send_segments(datagram_bytes bytes, std::size_t segment_size,
                           const endpoint& destination, Token&& token) const {
    return async_send_segments(bytes, segment_size, destination, datagram_options{},
                               std::forward<Token>(token));
  }

  /// As sender::watch_path(). What is to be compiled for options is so for the calling thread's
  /// shared producer: others have theirs compiled by their datagrams.
  [[nodiscard]] path_events watch_path(const endpoint& destination,
                                       const datagram_options& options = {}) const;
  [[nodiscard]] path_events watch_path(const endpoint& destination, const datagram_options& options,
                                       std::error_code& ec) const;
  /// As sender::async_resolve(), and with options as watch_path().
  template <asio::completion_token_for<resolve_signature> Token>
  auto async_resolve(const endpoint& destination, Token&& token) const {
    return async_resolve(destination, datagram_options{}, std::forward<Token>(token));
  }
  template <asio::completion_token_for<resolve_signature> Token>
  auto async_resolve(const endpoint& destination, const datagram_options& options,
                     Token&& token) const {
    return asio::async_initiate<Token, resolve_signature>(
        [](auto handler, const shared_sender& self, const endpoint& to,
           const datagram_options& chosen) {
          self.begin_resolve(to, chosen, {std::move(handler), self.get_executor()});
        },
        token, *this, destination, options);
  }

  /// The next error report of all copies, oldest first; as sender::async_next_error(). One call at
  /// a time. Errors: closed, operation_aborted.
  template <asio::completion_token_for<error_signature> Token>
  auto async_next_error(Token&& token) const {
    return asio::async_initiate<Token, error_signature>(
        [](auto handler, const shared_sender& self) {
          self.begin_next_error({std::move(handler), self.get_executor()});
        },
        token, *this);
  }
  /// Error reports dropped because nobody read them in time.
  [[nodiscard]] std::uint64_t errors_dropped() const noexcept;

 private:
  friend class transmitter;
  using sent = direct_completion<std::error_code, std::size_t>;
  explicit shared_sender(std::shared_ptr<detail::shared_sender_state> state) noexcept
      : state_(std::move(state)) {}
  // As those of sender.
  struct acquire_initiation {
    template <class Handler>
    void operator()(Handler handler, const shared_sender& self) const {
      self.begin_acquire(self.place(), {std::move(handler), self.get_executor()});
    }
    [[nodiscard]] std::optional<payload> at_once(const shared_sender& self) const noexcept {
      payload now = self.try_acquire();
      if (!now) return std::nullopt;
      return now;
    }
  };
  struct send_initiation {
    template <class Handler, class... Options>
    void operator()(Handler handler, const shared_sender& self, std::span<const std::byte> from,
                    const endpoint& to, const Options&... options) const {
      self.begin_send(from, to, {std::move(handler), self.get_executor()}, {options...});
    }
    template <class... Options>
    [[nodiscard]] std::optional<std::size_t> at_once(const shared_sender& self,
                                                     std::span<const std::byte> from,
                                                     const endpoint& to,
                                                     const Options&... options) const noexcept {
      if (!self.try_send(from, to, options...)) return std::nullopt;
      return 1;
    }
  };

  void begin_acquire(std::size_t place, direct_completion<std::error_code, payload> done) const;
  void begin_send(payload what, std::span<const endpoint> to, sent done,
                  const datagram_options& options) const;
  void begin_send(payload what, const endpoint& to, sent done,
                  const datagram_options& options) const;
  void begin_send(std::span<const std::byte> bytes, std::span<const endpoint> to, sent done,
                  const datagram_options& options) const;
  void begin_send(std::span<const std::byte> bytes, const endpoint& to, sent done,
                  const datagram_options& options) const;
  void begin_send_batch(std::span<const message> messages, sent done) const;
  void begin_send_segments(std::span<const std::byte> bytes, std::size_t segment_size,
                           const endpoint& to, sent done, const datagram_options& options) const;
  void begin_next_error(direct_completion<std::error_code, send_error> done) const;
  void begin_resolve(const endpoint& to, const datagram_options& options,
                     direct_completion<std::error_code, path_state> done) const;
  /// Asserts that there is one.
  [[nodiscard]] const std::shared_ptr<detail::shared_sender_state>& state() const noexcept;

  std::shared_ptr<detail::shared_sender_state> state_;
};

/// A shared_sender whose operations have a default completion token; as basic_sender.
template <class Executor>
class basic_shared_sender : public shared_sender {
 public:
  using executor_type = Executor;
  using default_token = asio::default_completion_token_t<Executor>;
  template <class Other>
  struct rebind_executor {
    using other = basic_shared_sender<Other>;
  };

  basic_shared_sender() noexcept = default;
  /// Of the same sender.
  explicit basic_shared_sender(shared_sender from) noexcept : shared_sender(std::move(from)) {}

  [[nodiscard]] executor_type get_executor() const noexcept {
    return executor_type(shared_sender::get_executor());
  }
  /// As shared_sender::async_acquire().
  template <class Token = default_token>
  auto async_acquire(Token&& token = default_token()) const {
    return shared_sender::async_acquire(std::forward<Token>(token));
  }
  /// As shared_sender::async_send().
  template <token_not_options Token = default_token>
  auto async_send(payload what, std::span<const endpoint> destinations,
                  Token&& token = default_token()) const {
    return shared_sender::async_send(std::move(what), destinations, std::forward<Token>(token));
  }
  template <token_not_options Token = default_token>
  auto async_send(payload what, const endpoint& destination,
                  Token&& token = default_token()) const {
    return shared_sender::async_send(std::move(what), destination, std::forward<Token>(token));
  }
  template <token_not_options Token = default_token>
  auto async_send(datagram_bytes bytes, std::span<const endpoint> destinations,
                  Token&& token = default_token()) const {
    return shared_sender::async_send(bytes, destinations, std::forward<Token>(token));
  }
  template <token_not_options Token = default_token>
  auto async_send(datagram_bytes bytes, const endpoint& destination,
                  Token&& token = default_token()) const {
    return shared_sender::async_send(bytes, destination, std::forward<Token>(token));
  }
  template <class Token = default_token>
  auto async_send(payload what, std::span<const endpoint> destinations,
                  const datagram_options& options, Token&& token = default_token()) const {
    return shared_sender::async_send(std::move(what), destinations, options,
                                     std::forward<Token>(token));
  }
  template <class Token = default_token>
  auto async_send(payload what, const endpoint& destination, const datagram_options& options,
                  Token&& token = default_token()) const {
    return shared_sender::async_send(std::move(what), destination, options,
                                     std::forward<Token>(token));
  }
  template <class Token = default_token>
  auto async_send(datagram_bytes bytes, std::span<const endpoint> destinations,
                  const datagram_options& options, Token&& token = default_token()) const {
    return shared_sender::async_send(bytes, destinations, options, std::forward<Token>(token));
  }
  template <class Token = default_token>
  auto async_send(datagram_bytes bytes, const endpoint& destination,
                  const datagram_options& options, Token&& token = default_token()) const {
    return shared_sender::async_send(bytes, destination, options, std::forward<Token>(token));
  }
  /// As shared_sender::async_send_segments().
  template <class Token = default_token>
  auto async_send_segments(datagram_bytes bytes, std::size_t segment_size,
                           const endpoint& destination, const datagram_options& options,
                           Token&& token = default_token()) const {
    return shared_sender::async_send_segments(bytes, segment_size, destination, options,
                                              std::forward<Token>(token));
  }
  /// As shared_sender::async_send_batch().
  template <class Token = default_token>
  auto async_send_batch(std::span<const message> messages, Token&& token = default_token()) const {
    return shared_sender::async_send_batch(messages, std::forward<Token>(token));
  }
  template <token_not_options Token = default_token>
  auto async_send_segments(datagram_bytes bytes, std::size_t segment_size,
                           const endpoint& destination, Token&& token = default_token()) const {
    return shared_sender::async_send_segments(bytes, segment_size, destination,
                                              std::forward<Token>(token));
  }
  /// As shared_sender::async_resolve().
  template <token_not_options Token = default_token>
  auto async_resolve(const endpoint& destination, Token&& token = default_token()) const {
    return shared_sender::async_resolve(destination, std::forward<Token>(token));
  }
  template <class Token = default_token>
  auto async_resolve(const endpoint& destination, const datagram_options& options,
                     Token&& token = default_token()) const {
    return shared_sender::async_resolve(destination, options, std::forward<Token>(token));
  }
  /// As shared_sender::async_next_error().
  template <class Token = default_token>
  auto async_next_error(Token&& token = default_token()) const {
    return shared_sender::async_next_error(std::forward<Token>(token));
  }
};

}  // namespace cowire

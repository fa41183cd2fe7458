// SPDX-License-Identifier: Apache-2.0
/// Receives datagrams into numbered buffers: UDP, Unix datagram and netlink sockets.
///
/// One multishot receive stays armed inside from the first operation on (with io_uring: no system
/// call a datagram); what arrives waits in a bounded queue until an async_receive or
/// async_receive_some takes it. A `datagram` is a lease on its buffer: destroying it gives the
/// buffer back. A buffer may have several leases (datagram::part()), the last of which does so.
/// When every buffer is leased or queued the source is starved: it receives nothing more, and the
/// socket's own buffer fills, until one comes back.
///
/// Buffers may be the caller's, frames of a UMEM for instance, and the caller may take a buffer out
/// of circulation (datagram::release_buffer()) and provide() it again later. In a buffer the kernel
/// writes
///
///     0                 16              16 + name_capacity   options::payload_offset()
///     | receive header  | sender address | control messages  | payload ...            |
///
/// on either backend, so that the payload always starts at the same offset.
///
/// Overrun: a netlink socket whose receive buffer overflowed says so in band: a receive completes
/// with error::overrun, after what the source had received by then; then datagrams go on, among
/// them older ones that the socket still held. (For UDP and Unix sockets the kernel does not tell;
/// socket_drops() does.)
///
/// Threads: the source, as an Asio object, is used by one thread at a time, not necessarily the
/// ring thread. Leases may be moved to and destroyed on any thread, and may outlive the source and
/// the ring; only they must not be destroyed while the ring_context is being destroyed on another
/// thread. In a child of fork() the socket is closed, and inherited leases give nothing back.
#pragma once

#include <cowire/ring/detail/completion.hpp>
#include <cowire/ring/ring_context.hpp>

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

namespace cowire {

namespace detail {
class datagram_pool;
class shared_source;
class source_pool;
}  // namespace detail

/// A received datagram: a move-only lease on the buffer it lies in.
class datagram {
 public:
  /// Empty.
  datagram() noexcept = default;
  datagram(datagram&& other) noexcept
      : pool_(std::move(other.pool_)), payload_(other.payload_), id_(other.id_) {}
  datagram& operator=(datagram&& other) noexcept {
    if (this != &other) {
      reset();
      pool_ = std::move(other.pool_);
      payload_ = other.payload_;
      id_ = other.id_;
    }
    return *this;
  }
  ~datagram() { reset(); }

  /// Whether there is one.
  [[nodiscard]] explicit operator bool() const noexcept { return pool_ != nullptr; }

  // The following are for a non-empty one; spans are valid as long as the lease.

  /// The bytes that arrived.
  [[nodiscard]] std::span<const std::byte> payload() const noexcept { return payload_; }
  /// The sender's socket address as the kernel wrote it (sockaddr_in, sockaddr_un, ...), at most
  /// name_capacity bytes; empty if the socket knows none (an unbound Unix peer: its family only or
  /// nothing).
  [[nodiscard]] std::span<const std::byte> source() const noexcept;
  /// cmsghdr after cmsghdr; aligned for them.
  [[nodiscard]] std::span<const std::byte> control() const noexcept;
  /// The datagram was longer than the buffer; payload() is its beginning.
  [[nodiscard]] bool truncated() const noexcept;
  /// Control messages did not fit options::control_capacity.
  [[nodiscard]] bool control_truncated() const noexcept;
  /// Which of the source's buffers it lies in.
  [[nodiscard]] std::uint16_t buffer_id() const noexcept { return id_; }

  /// Ends the lease without giving the buffer back: it is the caller's until
  /// datagram_source::provide(). Returns buffer_id(); the datagram is empty afterwards. The buffer
  /// must have no other lease: an assertion.
  std::uint16_t release_buffer() noexcept;
  /// Another lease on the same buffer, whose payload() is a part of this one's. The part must lie
  /// inside: an assertion.
  [[nodiscard]] datagram part(std::size_t offset, std::size_t size) const noexcept;

 private:
  friend class datagram_source;
  friend class detail::shared_source;
  datagram(std::shared_ptr<detail::datagram_pool> pool, std::uint16_t id,
           std::span<const std::byte> payload) noexcept
      : pool_(std::move(pool)), payload_(payload), id_(id) {}
  void reset() noexcept;

  std::shared_ptr<detail::datagram_pool> pool_;
  std::span<const std::byte> payload_;
  std::uint16_t id_ = 0;
};

/// Memory of the caller's to receive into: buffer `id` is buffers[id]. `keeper` lives until the
/// kernel and every lease have let go; let it own the memory.
struct receive_memory {
  std::vector<std::span<std::byte>> buffers;  ///< Each larger than payload_offset().
  std::shared_ptr<void> keeper;               ///< May be null.
};

class datagram_source {
 public:
  using executor_type = ring_context::executor_type;
  using batch = std::vector<datagram>;  ///< What async_receive_some() completes with.

  /// What a source is made with.
  struct options {
    std::size_t buffer_count = 64;        ///< 1 to 32 768. Without receive_memory only.
    std::size_t payload_capacity = 2048;  ///< 1 to 16 MiB, likewise; longer are truncated.
    /// Room for the sender's address and for control messages, in bytes; multiples of 8.
    std::size_t name_capacity = sizeof(sockaddr_storage), control_capacity = 0;

    /// Where in a buffer the payload starts.
    [[nodiscard]] constexpr std::size_t payload_offset() const noexcept {
      return header_size + name_capacity + control_capacity;
    }
  };
  /// Of the receive header in front of the sender's address.
  static constexpr std::size_t header_size = 16;

  /// Each datagram that arrived is counted once, in `received`.
  struct counters {
    std::uint64_t received = 0;   ///< Datagrams.
    std::uint64_t truncated = 0;  ///< Of those, how many were.
    std::uint64_t overruns = 0;   ///< error::overrun reported.
    std::uint64_t starved = 0;    ///< Times the source ran out of buffers.
    std::uint64_t armed = 0;      ///< Times the receive had to be armed.
  };

  /// `socket` is duplicated; the caller may close theirs at any time. Throws std::system_error:
  /// error::invalid_argument for options out of range, errno otherwise.
  datagram_source(ring_context& ring, int socket, const options& wanted);
  datagram_source(ring_context& ring, int socket) : datagram_source(ring, socket, options{}) {}
  /// Receives into the caller's memory, all of which is in circulation at first.
  datagram_source(ring_context& ring, int socket, receive_memory memory, const options& wanted);
  datagram_source(datagram_source&&) noexcept = default;
  datagram_source& operator=(datagram_source&& other) noexcept;
  /// Cancels, drops what is queued. The kernel may fill buffers a little longer; see
  /// receive_memory.
  ~datagram_source();

  [[nodiscard]] executor_type get_executor() const noexcept { return ring_->get_executor(); }

  /// Puts a buffer back that release_buffer() took out. Any thread; elsewhere than on the ring
  /// thread it wakes the ring where buffers are scarce. Giving back one that is not out is an
  /// assertion.
  void provide(std::uint16_t id) noexcept;

  /// Every receive begun before completes with operation_aborted; queued datagrams stay. Returns at
  /// once.
  void cancel();

  /// Since the source was made. As the source itself, one thread at a time.
  [[nodiscard]] counters count() const noexcept;
  /// Datagrams that the kernel did not queue for want of room in the socket (or because of their
  /// checksum), since the socket was made; wraps around. Any thread; a system call.
  [[nodiscard]] std::uint32_t socket_drops() const noexcept;

  /// Completes with one datagram, the oldest. Signature: void(std::error_code, datagram); the
  /// datagram is empty on error. Several may wait; they are served first come, first served.
  ///
  /// Errors: operation_aborted, error::overrun (see above), errno of recvmsg (ECONNREFUSED on a
  /// connected UDP socket, for instance). After each of them one may receive again.
  /// Per-operation cancellation: terminal, partial, total; no datagram is lost by it.
  template <class Token>
  auto async_receive(Token&& token) {
    return detail::initiate<std::error_code, datagram>(
        std::forward<Token>(token), *ring_, object(),
        [s = state_.get()](detail::completion_ptr<std::error_code, datagram> c) {
          start(*s, std::move(c));
        });
  }

  /// Completes with all that has arrived, at least one, in order. Signature: void(std::error_code,
  /// batch); the batch is empty on error. Otherwise as async_receive; receives of single datagrams
  /// are served first.
  template <class Token>
  auto async_receive_some(Token&& token) {
    return detail::initiate<std::error_code, batch>(
        std::forward<Token>(token), *ring_, object(),
        [s = state_.get()](detail::completion_ptr<std::error_code, batch> c) {
          start(*s, std::move(c));
        });
  }

 private:
  friend class detail::source_pool;
  struct state;
  [[nodiscard]] std::shared_ptr<detail::ring_object> object() const noexcept;
  static void start(state& s, detail::completion_ptr<std::error_code, datagram> c);
  static void start(state& s, detail::completion_ptr<std::error_code, batch> c);
  void close() noexcept;

  ring_context* ring_;
  std::shared_ptr<state> state_;
};

}  // namespace cowire

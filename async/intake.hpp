// SPDX-License-Identifier: Apache-2.0
/// Datagrams of other processes: a Unix datagram socket whose messages become UDP datagrams.
///
/// The kernel receives each message straight into a frame (io_uring multishot recvmsg; the provided
/// buffers are frames of the intake's own producer), so that the payload lands where it is sent
/// from and is not copied again.
///
/// Wire format, one message a datagram on the Unix socket, numbers little-endian unless they are
/// called be:
///
///     intake_header (32 bytes) | payload (payload_length bytes) |
///     intake_destination[destination_count]
///
/// - type `send`: the payload goes to every destination, from UDP port `source_port` (0 = one the
///   server picks). One message holds at most intake_message_capacity() bytes after the header, and
///   has one scope id for all destinations.
/// - type `flush`: no payload, no destinations. When everything that this client sent before has
///   left the host or was counted, whatever stays of others, the server answers an intake_reply
///   with the same `token` to the client's address, short unless the flush has intake_all_totals
///   for its source port. Of one client's flushes 1024 may wait, more are refused; a client that
///   has no address (did not bind), or one of more than intake_address_capacity bytes, gets none.
///   Totals are kept by address: bind to a name that no client had lately. Those that the kernel
///   picks soon come again.
/// - Anything else is refused: counted, never answered, and the socket stays usable.
///
/// Users: a client's datagrams are sent as its user's own, from a socket of that user, so that
/// policy rules (`ip rule ... uidrange`) and firewalls treat them as they would the client's. Whose
/// message it is, the kernel says with each (SCM_CREDENTIALS, unix(7)): the real uid of the
/// process, or another of its own that it names in such a control message (intake_client names the
/// effective one, as sockets take it). For users other than the server's own it needs CAP_SETUID;
/// without, their datagrams count as failed, and the log says so.
///
/// Ports: a source port is one user's as long as it is used, as with sockets. A client (a process)
/// may use intake_options::ports_per_client; one that nobody has used for `port_idle` is closed.
/// Datagrams for which there is no port count as failed.
///
/// Turns: what has been received waits by client and is served in turn, a message a turn, among
/// users and then among a user's clients. The socket itself is one queue for all, as long as
/// net.unix.max_dgram_qlen allows (10 by default, often 512): that many messages of others may
/// still be in front of one's own.
///
/// Back-pressure: without a free frame the server stops reading, and a client's blocking send
/// waits. Nothing is dropped for want of room.
///
/// Trust: whoever may write to the socket's path may send from this host, with the server's
/// options, from any port that the server may bind. The socket's file has mode 0660 and the group
/// that intake_options::group names; choose the directory accordingly.
#pragma once

#include <cowire/async/transmitter.hpp>
#include <cowire/base/unique_fd.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace cowire {

inline constexpr std::uint32_t intake_magic = 0x31775763;  ///< "cWw1" in memory.
inline constexpr std::uint8_t intake_version = 1;          ///< Of the format.
/// What a flush has as source port if its reply may have all totals. Servers that know only the
/// short reply do not look there; any server answers intake_short_reply_size bytes where it is
/// another.
inline constexpr std::uint16_t intake_all_totals = 2;
inline constexpr std::size_t intake_short_reply_size = 64;  ///< Up to intake_totals::refused.
/// What a message is.
enum class intake_type : std::uint8_t { send = 1, flush = 2, reply = 3 };

/// The first 32 bytes of every message.
struct intake_header {
  std::uint32_t magic = intake_magic;     ///< Tells who speaks this format.
  std::uint8_t version = intake_version;  ///< Another one is refused.
  intake_type type = intake_type::send;   ///< What follows.
  std::uint16_t flags = 0;                ///< None defined: must be 0.
  std::uint16_t destination_count = 0;    ///< Behind the payload.
  std::uint16_t source_port = 0;     ///< Host order; 0 = the server picks. Or intake_all_totals.
  std::uint32_t payload_length = 0;  ///< In bytes.

  std::uint64_t token = 0;  ///< Echoed in the reply to a flush.
  /// With `send`: the interface, by its index in the server's network namespace, of the
  /// destinations that belong to one (link-local addresses, multicast), as sin6_scope_id; 0 = none.
  std::uint32_t scope_id = 0;
  std::uint32_t reserved = 0;  ///< Must be 0.
};
static_assert(sizeof(intake_header) == 32);

/// Where a payload goes, as a message has it: 20 bytes.
struct intake_destination {
  std::uint16_t family = 0;                ///< 4 or 6.
  be16 port;                               ///< UDP.
  std::array<std::uint8_t, 16> address{};  ///< Network order; IPv4 in the first four, then zeros.

  /// The scope id is the header's.
  [[nodiscard]] static intake_destination from(const endpoint& to) noexcept;
};
static_assert(sizeof(intake_destination) == 20);

/// What one client did so far, as the server saw it.
struct intake_totals {
  std::uint64_t messages = 0;   ///< Send messages accepted.
  std::uint64_t submitted = 0;  ///< UDP datagrams made of them.
  std::uint64_t failed = 0;     ///< UDP datagrams that could not be submitted (port in use ...).
  std::uint64_t refused = 0;    ///< Messages that broke the format.
  /// Of those submitted: that the kernel refused to send (no route, not permitted ...). Not in a
  /// short reply.
  std::uint64_t kernel_refused = 0;
  friend bool operator==(const intake_totals&, const intake_totals&) = default;
};

/// What the server answers to a flush.
struct intake_reply {
  intake_header header;  ///< type reply, the flush's token.
  intake_totals totals;  ///< Of the client that asked.
};
static_assert(sizeof(intake_reply) == 72 &&
              offsetof(intake_reply, totals.kernel_refused) == intake_short_reply_size);

/// How many of the destinations, from the first on, one message may have, and its scope id.
[[nodiscard]] std::size_t intake_alike(std::span<const endpoint> destinations,
                                       std::uint32_t& scope_id) noexcept;

/// A checked `send` or `flush` message; spans point into the bytes that were parsed.
struct intake_message {
  intake_type type = intake_type::send;  ///< send or flush.
  std::uint16_t source_port = 0;         ///< As in the header.
  std::uint64_t token = 0;               ///< Of a flush.
  std::span<const std::byte> payload;    ///< Of a send.
  std::vector<endpoint> destinations;    ///< Of a send, with the header's scope id.
};
/// Checks a message and takes it apart. `header` is its first 32 bytes (fewer if it is shorter),
/// `body` all the rest. `message` is reused: its vector keeps its room. Errors: truncated,
/// malformed, no_destination. Any input is safe.
void parse_intake(std::span<const std::byte> header, std::span<const std::byte> body,
                  intake_message& message, std::error_code& ec);

/// Bytes that one message holds after its header, for the default frame size.
[[nodiscard]] constexpr std::size_t intake_message_capacity(
    std::size_t frame_size = 2048) noexcept {
  return frame_size - 128;
}

/// The longest client address that is answered, with its family and terminator: a path has up to
/// 44 bytes.
inline constexpr std::size_t intake_address_capacity = 47;

/// What a server did so far.
struct intake_stats {
  intake_totals totals;            ///< Of all clients.
  std::size_t clients = 0;         ///< Clients with an address that were seen.
  std::size_t ports = 0;           ///< Source ports open now.
  std::uint64_t replies_lost = 0;  ///< Replies that the client's socket did not take.
};

/// What a server is made with; error::invalid_argument where one of the limits is 0 or above
/// `limit_max`, or `port_idle` is negative or above interval_max (a month).
struct intake_options {
  static constexpr std::size_t limit_max = 1u << 20;  ///< Of the three limits.
  /// For every datagram, but the source port that a message names, and the owner. `when_full` is
  /// always wait. A source port that is set here serves one user's clients at a time.
  sender_options sender{};
  std::size_t client_limit = 1024;     ///< Clients whose totals are kept; the oldest is forgotten.
  std::size_t ports_per_client = 256;  ///< Source ports that one process may use at once.
  std::size_t port_limit = 1024;       ///< All together; each takes two descriptors.
  std::chrono::milliseconds port_idle{60'000};  ///< A port not used for so long is closed.
  /// The group (gid) that the socket's file belongs to, whose members may write to it; unset = the
  /// process's. It takes membership of it, or CAP_CHOWN.
  std::optional<std::uint32_t> group{};
};

/// The server side. Runs on a thread of its own with two producers of the transmitter (one for what
/// is received, one for the copies of fan-outs); must be destroyed before the transmitter.
class intake {
 public:
  /// Binds `path`. A stale socket file that nobody serves is replaced; anything else that has the
  /// name stays, and is an error. Throws std::system_error.
  intake(transmitter& tx, std::string path, intake_options options = {});
  intake(const intake&) = delete;
  intake& operator=(const intake&) = delete;
  /// Removes the path, if it still is this socket's. Messages that were received are sent; those
  /// still in the socket are lost. What waits for frames to come back, for the copies of a fan-out
  /// or for the answer to a flush, waits for transmitter_config::drain_timeout at most: after that
  /// datagrams that are not sent yet count as failed, and flushes get no answer. In a handler on
  /// the transmitter's control thread it returns at once, and all of that follows on a thread of
  /// its own, as with transmitter::stop(). In a child of fork() nothing happens: socket and path
  /// stay the parent's, and the child's stats() throws error::forked.
  ~intake();

  /// Any thread.
  [[nodiscard]] intake_stats stats() const;
  /// Of its socket, as the constructor was told.
  [[nodiscard]] const std::string& path() const noexcept;

 private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

/// The client side: small and blocking. One thread at a time.
class intake_client {
 public:
  /// Connects; throws std::system_error naming the path and whether anybody serves it.
  explicit intake_client(const std::string& path);

  /// Sends one payload to every destination, in several messages where they do not fit in one;
  /// waits while the server has no room. Errors: too_long, no_destination, or errno (ECONNREFUSED
  /// when the server went away; EINTR when a signal ended the wait: the destinations of earlier
  /// messages have got it).
  void send(std::span<const std::byte> payload, std::span<const endpoint> destinations,
            std::uint16_t source_port, std::error_code& ec);

  /// Waits until everything sent before has left the host, or was refused; this client's totals. A
  /// server that gives short replies does not tell what the kernel refused: 0. Errors: ETIMEDOUT
  /// or errno.
  intake_totals flush(std::chrono::milliseconds timeout, std::error_code& ec);

 private:
  [[nodiscard]] std::error_code send_message(std::span<const std::byte> bytes, int flags) const;
  [[nodiscard]] std::error_code wait_for(short events,
                                         std::chrono::steady_clock::time_point deadline) const;

  unique_fd fd_;
  /// Whose the messages are, where that is not the real uid, which the kernel would say.
  std::optional<std::uint32_t> effective_uid_;
  std::vector<std::byte> buffer_;
  std::uint64_t token_ = 0;
};

}  // namespace cowire

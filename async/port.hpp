// SPDX-License-Identifier: Apache-2.0
/// A bound UDP port that sends past the kernel and receives through it.
///
///     port.sender() ----> frames --> TX core --> AF_XDP          (sender.hpp)
///         |  the same port and address
///     kernel's UDP socket --> io_uring multishot, or epoll --> buffers --> async_receive()
///
/// The socket is the sender's own backing socket, or one that the application has bound
/// (sender_options::adopt_socket). Made by transmitter::make_port(). From the first async_receive()
/// on what arrives is read into the port's buffers without a system call each, and waits there.
///
/// Who owns a buffer. A `received_datagram` is a lease on the buffer that its bytes lie in: they
/// are the application's, and unchanged, until it is destroyed, on whatever thread, which may be
/// after the port and the transmitter are gone. While all buffers are leased or wait to be taken
/// the port reads nothing (port_stats::starved) and the socket's own queue fills; what does not fit
/// there is dropped by the kernel, and counted (port_stats::dropped). Datagrams that the kernel has
/// merged (port_options::gro) are handed out one by one and share a buffer, which is free when all
/// of them are gone.
///
/// What is said of a datagram is what the kernel says to a plain socket with the same options, but
/// that addresses are never IPv4-mapped. Of datagrams that were queued before the port was made,
/// the interface may be missing.
///
/// Threads. Receiving: any thread may call, at any time; datagrams are handed out in the order in
/// which they were read, to receives in the order of their calls. sender() is a sender like others:
/// it belongs to the thread that made the port, or to its strand (sender.hpp). The reading is done
/// on the transmitter's control thread, or by the application's own ring_context
/// (port_options::ring), which saves the way between threads: there a coroutine receives, and
/// sends, on one thread.
///
/// Completion. Handlers never run inside the initiating call; they run on their associated
/// executor, with their associated allocator; without an executor of their own, on the ring that
/// reads. Per-operation cancellation: total, partial and terminal; no datagram is lost by it. A
/// receive that waits is destroyed with its executor's context, uncalled, and the next in line is
/// served; what was just being handed to it goes with it.
///
/// Lifetime. A port may be moved while receives wait. Its destruction, or transmitter::stop(), ends
/// them with error::closed, and what was read and not taken is dropped. A ring given in
/// port_options goes after the port. In a child of fork() receives fail with error::forked, and
/// the child does not hold the port.
///
/// Errors that routers and hosts report about what was sent come through
/// sender().async_next_error(), never through a receive.
///
/// Not for a port that several sockets share (SO_REUSEPORT); receiving past the kernel is not what
/// this does.
#pragma once

#include <cowire/async/sender.hpp>
#include <cowire/base/address.hpp>
#include <cowire/ring/asio.hpp>
#include <cowire/ring/datagram_source.hpp>
#include <cowire/ring/direct_completion.hpp>
#include <cowire/ring/ring_context.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <system_error>
#include <utility>

namespace cowire {

namespace detail {
class port_state;

/// What the kernel says of a datagram.
struct arrival_facts {
  endpoint source;
  ip_address destination;
  std::uint32_t interface_index = 0;
  std::uint32_t dropped_before = 0;
  std::chrono::sys_time<std::chrono::nanoseconds> time{};
  std::uint8_t traffic_class = 0;
  bool truncated = false;
};
}  // namespace detail

/// A datagram that has arrived, and the lease on the buffer that it lies in. Move-only; as a value,
/// used by one thread at a time.
class received_datagram {
 public:
  /// Empty.
  received_datagram() noexcept = default;
  /// Whether there is one. The rest is for those that are not empty.
  [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(lease_); }

  /// Valid as long as the lease.
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return lease_.payload(); }
  /// Who sent it; what to answer to.
  [[nodiscard]] const endpoint& source() const noexcept { return facts_.source; }
  /// The destination in its IP header: an address of this host, a group or a broadcast address.
  /// (IP_PKTINFO, IPV6_PKTINFO.)
  [[nodiscard]] const ip_address& destination() const noexcept { return facts_.destination; }
  /// The interface that it came in by; 0 = unknown.
  [[nodiscard]] std::uint32_t interface_index() const noexcept { return facts_.interface_index; }
  /// The whole byte: TOS, or IPv6's traffic class.
  [[nodiscard]] std::uint8_t traffic_class() const noexcept { return facts_.traffic_class; }
  /// RFC 3168: 0 = not ECT, 1 = ECT(1), 2 = ECT(0), 3 = CE.
  [[nodiscard]] std::uint8_t ecn() const noexcept { return facts_.traffic_class & 3; }
  /// When the kernel received it (SO_TIMESTAMPNS: the real-time clock).
  [[nodiscard]] std::chrono::sys_time<std::chrono::nanoseconds> time() const noexcept {
    return facts_.time;
  }
  /// Longer than the buffer: bytes() is its beginning.
  [[nodiscard]] bool truncated() const noexcept { return facts_.truncated; }
  /// How many datagrams the socket had dropped when this one was queued (SO_RXQ_OVFL), since the
  /// port was made; wraps around. A difference from the one before tells of a loss between them.
  [[nodiscard]] std::uint32_t dropped_before() const noexcept { return facts_.dropped_before; }

 private:
  friend class detail::port_state;
  received_datagram(datagram lease, const detail::arrival_facts& facts) noexcept
      : lease_(std::move(lease)), facts_(facts) {}

  datagram lease_;
  detail::arrival_facts facts_;
};

/// What a port is made with.
struct port_options {
  /// Port, source addresses, adopted socket and everything else of what it sends with. A
  /// source_port of 0 is a number that no other sender or port has. Without a source address of a
  /// family, the port receives on all of them. An adopted socket gets, beside what sender_options
  /// says, SO_TIMESTAMPNS, SO_RXQ_OVFL, IP_RECVTOS, IP_PKTINFO and their IPv6 counterparts; the
  /// application must not receive on it meanwhile.
  sender_options send{};
  /// Buffers to receive into, for each of the sockets that there is one of per family (an adopted
  /// socket is one): 1 to 32 768. As many datagrams may be leased or waiting to be taken.
  std::size_t buffer_count = 256;
  /// Room for a payload; longer datagrams are truncated, and counted.
  std::size_t payload_capacity = 2048;
  /// Has the kernel merge the datagrams of a flow (UDP_GRO), which saves most of its work for each.
  /// They are split again here. Buffers then are for 65 535 bytes, whatever payload_capacity is
  /// (memory is used only as far as it is filled).
  bool gro = false;
  /// Room in the socket, in bytes of the kernel's (SO_RCVBUF, beyond net.core.rmem_max with
  /// CAP_NET_ADMIN); 0 = as it is. At most 1 GiB.
  std::size_t socket_buffer = 0;
  /// The ring that reads, which must outlive the port; nullptr = the transmitter's control thread.
  ring_context* ring = nullptr;
};

/// Counted since the port was made.
struct port_stats {
  std::uint64_t received = 0;   ///< Datagrams that were read, those merged by the kernel as many.
  std::uint64_t merged = 0;     ///< Buffers with several of them.
  std::uint64_t truncated = 0;  ///< Buffers that were too short.
  /// By the kernel, as the port's sockets had no room (or the datagram had a wrong checksum). Not
  /// counted in `received`.
  std::uint64_t dropped = 0;
  std::uint64_t starved = 0;  ///< Times that there was no buffer to read into.
};

template <class Executor>
class basic_port;

class port {
 public:
  using executor_type = ring_context::executor_type;
  /// What handlers are called with.
  using receive_signature = void(std::error_code, received_datagram);
  using receive_some_signature = void(std::error_code, std::size_t);
  /// For as_default_on() of completion tokens.
  template <class Executor>
  struct rebind_executor {
    using other = basic_port<Executor>;
  };

  /// Without a port: every call but assignment and destruction is an assertion.
  port() noexcept = default;
  port(port&&) noexcept = default;
  port& operator=(port&& other) noexcept;
  ~port();
  /// Whether there is one.
  [[nodiscard]] explicit operator bool() const noexcept { return state_ != nullptr; }

  /// What sends from the port.
  [[nodiscard]] cowire::sender& sender() noexcept { return sender_; }
  /// Host order; never 0.
  [[nodiscard]] std::uint16_t number() const noexcept { return sender_.source_port(); }
  /// Source address (unspecified if not fixed) and port for a family.
  [[nodiscard]] endpoint local_endpoint(ip_family family) const noexcept {
    return sender_.local_endpoint(family);
  }
  /// The ring's: what handlers without an executor of their own run on.
  [[nodiscard]] executor_type get_executor() const noexcept;

  /// Completes with one datagram, the oldest; empty on error.
  ///
  /// Errors: closed, operation_aborted, forked; what recvmsg() or io_uring answered, where it is
  /// nothing that passes (ENOMEM: RLIMIT_MEMLOCK is too low for io_uring's list of buffers).
  template <asio::completion_token_for<receive_signature> Token>
  auto async_receive(Token&& token) {
    return asio::async_initiate<Token, receive_signature>(
        [](auto handler, const std::shared_ptr<detail::port_state>& state) {
          begin(state, one(std::move(handler), executor_of(*state)));
        },
        token, shared_state());
  }
  /// Waits for one and takes as many as have arrived, at most into.size(), into the first elements;
  /// completes with how many. Elements that held a lease give it up. `into` must stay valid until
  /// completion; nothing is waited for where it is empty. Allocates nothing for datagrams. Errors:
  /// as above, with 0.
  template <asio::completion_token_for<receive_some_signature> Token>
  auto async_receive(std::span<received_datagram> into, Token&& token) {
    return asio::async_initiate<Token, receive_some_signature>(
        [](auto handler, const std::shared_ptr<detail::port_state>& state,
           std::span<received_datagram> to) {
          begin(state, to, many(std::move(handler), executor_of(*state)));
        },
        token, shared_state(), into);
  }
  /// Every receive that waits completes with operation_aborted; no datagram is lost.
  void cancel();

  /// Any thread; asks the kernel.
  [[nodiscard]] port_stats stats() const;

 private:
  friend class transmitter;
  using one = direct_completion<std::error_code, received_datagram>;
  using many = direct_completion<std::error_code, std::size_t>;
  port(std::shared_ptr<detail::port_state> state, cowire::sender&& sends) noexcept
      : sender_(std::move(sends)), state_(std::move(state)) {}
  static void begin(const std::shared_ptr<detail::port_state>& state, one done);
  static void begin(const std::shared_ptr<detail::port_state>& state,
                    std::span<received_datagram> into, many done);
  [[nodiscard]] static executor_type executor_of(const detail::port_state& state) noexcept;
  /// Asserts that there is one.
  [[nodiscard]] const std::shared_ptr<detail::port_state>& shared_state() const noexcept;
  void close() noexcept;

  cowire::sender sender_;
  std::shared_ptr<detail::port_state> state_;
};

/// A port whose operations have a default completion token, Asio's way (basic_sender.hpp).
template <class Executor>
class basic_port : public port {
 public:
  using executor_type = Executor;
  using default_token = asio::default_completion_token_t<Executor>;
  template <class Other>
  struct rebind_executor {
    using other = basic_port<Other>;
  };

  basic_port() noexcept = default;
  /// Takes the port over.
  explicit basic_port(port&& from) noexcept : port(std::move(from)) {}

  [[nodiscard]] executor_type get_executor() const noexcept {
    return executor_type(port::get_executor());
  }
  /// As port::async_receive().
  template <asio::completion_token_for<receive_signature> Token = default_token>
  auto async_receive(Token&& token = default_token()) {
    return port::async_receive(std::forward<Token>(token));
  }
  template <asio::completion_token_for<receive_some_signature> Token = default_token>
  auto async_receive(std::span<received_datagram> into, Token&& token = default_token()) {
    return port::async_receive(into, std::forward<Token>(token));
  }
};

}  // namespace cowire

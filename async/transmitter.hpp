// SPDX-License-Identifier: Apache-2.0
/// Everything that sends, assembled from one config: frames, AF_XDP sockets, TX cores, a control
/// thread that follows the kernel's routes, and one that serves diverted datagrams.
///
///     transmitter tx({.interfaces = {"eth0"}});
///     sender s = tx.make_sender({.source_port = 8001});
///     co_await s.async_send(bytes, destination, asio::use_awaitable);
///
/// Threads: `cowire-control`, `cowire-kernel`, and `cowire-tx-0` and so on. Any thread may call any
/// member, handlers on the control thread included; senders have rules of their own (sender.hpp).
/// Set-up calls (constructor, make_sender, make_producer) may block for some milliseconds.
///
/// Lifetime: transmitter, senders and the application's contexts (an asio::io_context, a
/// ring_context) may go in any order. A context takes the handlers along that wait in it, uncalled,
/// as it does with its own; what a sender or a payload needs stays until it is gone.
///
/// fork(): in a child, everything that was made before is the parent's. Calls on an inherited
/// transmitter, sender or producer fail at once with error::forked (a call without an error to give
/// just fails), destructors do nothing, and nothing of the parent's is disturbed; payloads lose
/// their bytes. The child gets neither the AF_XDP sockets nor the UDP ports, so that it holds none
/// of them when the parent gives them up. It may exec, or make a transmitter of its own. Processes
/// made by vfork() or a bare clone() may do nothing but exec.
///
/// Network namespace and credentials are those of the constructing thread.
///
/// Nothing about a NIC is fatal in automatic mode: an interface on which no AF_XDP socket works is
/// served by the kernel path, and stats() says why. Interfaces may be created, renamed, deleted and
/// created again meanwhile; their sockets follow.
#pragma once

#include <cowire/async/port.hpp>
#include <cowire/async/sender.hpp>
#include <cowire/async/shared_sender.hpp>
#include <cowire/async/transmitter_config.hpp>
#include <cowire/async/transmitter_stats.hpp>
#include <cowire/follow/route_events.hpp>

#include <cstddef>
#include <memory>
#include <system_error>

namespace cowire {

namespace detail {
class engine;
}

class transmitter {
 public:
  /// Returns when routes are published and sockets bound. Throws std::system_error naming what
  /// failed and what to do about it: no privilege, unknown interface, a rung that was asked for and
  /// is not there, an option out of its range (error::invalid_argument).
  explicit transmitter(transmitter_config config = {});
  transmitter(const transmitter&) = delete;
  transmitter& operator=(const transmitter&) = delete;
  /// As stop().
  ~transmitter();

  /// A sender on options.via, or on the calling thread's own producer (made on first use). Opens
  /// the backing socket of its port. Throws std::system_error (port_in_use, no such device,
  /// no_producer ...); the twin does not.
  [[nodiscard]] sender make_sender(const sender_options& options = {});
  [[nodiscard]] sender make_sender(const sender_options& options, std::error_code& ec);
  /// A producer for one strand or one thread, apart from the thread's own. Throws std::system_error
  /// (error::no_producer when all are lent).
  [[nodiscard]] producer make_producer();

  /// A sender that any number of threads use at once (shared_sender.hpp). options.via must be the
  /// default. Throws std::system_error as make_sender() does.
  [[nodiscard]] shared_sender make_shared_sender(const sender_options& options = {});
  [[nodiscard]] shared_sender make_shared_sender(const sender_options& options,
                                                 std::error_code& ec);

  /// A port that sends as make_sender(options.send) does, and receives (port.hpp). Throws
  /// std::system_error as that does; error::port_in_use also where another port receives on the
  /// same socket, error::invalid_argument for buffers out of range.
  [[nodiscard]] port make_port(const port_options& options = {});
  [[nodiscard]] port make_port(const port_options& options, std::error_code& ec);

  /// Routing changes from now on.
  [[nodiscard]] route_events watch_routes(std::size_t queue_limit = 4096);

  /// Totals so far. Takes locks and allocates: for once a second, not for each datagram.
  [[nodiscard]] transmitter_stats stats() const;

  /// Refuses further datagrams, waits until those on the way are out or the drain timeout is over,
  /// closes the sockets and ends the threads. Waiting operations complete with error::closed.
  /// Idempotent. In a handler on the control thread it returns at once, and the rest follows on a
  /// thread of its own; another call, elsewhere, waits for it.
  void stop() noexcept;

 private:
  friend class intake;
  [[nodiscard]] sender make_sender(const sender_options& options, std::error_code& ec, bool apart);
  std::shared_ptr<detail::engine> engine_;
};

}  // namespace cowire

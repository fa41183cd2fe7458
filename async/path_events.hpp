// SPDX-License-Identifier: Apache-2.0
/// What serves the datagrams of a sender to one destination, and whenever that changes.
///
///     path_events ways = s.watch_path(destination);
///     for (;;) {
///       const path_state now = co_await ways.async_next(use_awaitable);  // First: as it is now.
///       std::puts(to_string(now).c_str());
///     }
///
/// Asked of a sender, because its flow class decides: source, mark, bound device and so on, and
/// what a datagram chooses (datagram_options.hpp). sender::async_resolve() waits until the fast
/// path serves a destination, and gives the same answer.
///
/// A change is one for this destination (path_state::same_way()), not every publication of routes.
/// Only the newest is kept for a reader who is slow: path_state::number then leaves numbers out,
/// and the path may be as it was. Told after the forwarding table that first reflects it was
/// published, so datagrams that are sent from then on go that way.
///
/// Cost. Nobody polls: when something was published, the control thread looks each watched
/// destination up in the new table, about a tenth of a microsecond (docs/performance.md), and asks
/// in full, some microseconds, only about those that may be concerned. TX cores have no part in it.
///
/// Threads: as route_events (follow/route_events.hpp); watch_path() is a call on the sender.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/error.hpp>
#include <cowire/base/reason.hpp>
#include <cowire/ring/asio.hpp>
#include <cowire/ring/direct_completion.hpp>
#include <cowire/ring/ring_context.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace cowire {

template <class T>
class event_queue;

namespace detail {
class engine;
}

/// Who sends the datagrams to a destination.
enum class path_service : std::uint8_t {
  fast,  ///< Past the kernel, through an AF_XDP socket.
  /// The same, for flows that the kernel's connection tracking knows: the first datagram, and one
  /// after a long pause, take the kernel path (divert_reason::conntrack_new).
  tracked,
  kernel_path,  ///< Through the kernel, for path_state::reason.
  refused       ///< The kernel would refuse it with path_state::refusal.
};
/// The identifier: "kernel_path".
[[nodiscard]] std::string_view name(path_service service) noexcept;

/// How datagrams to one destination are sent. What the kernel decides is told as RTM_GETROUTE
/// answers it; nothing of it where the kernel refuses.
struct path_state {
  path_service service = path_service::refused;  ///< Who sends.
  /// Why it is not the fast path; describe() has it in words. Unset where it is.
  std::optional<divert_reason> reason{};
  std::error_code refusal{};  ///< The errno of a socket's sendto().

  /// Output device of the route; a tunnel's, say, whose outer datagrams leave by `egress`. "if7"
  /// for one that has no name any more.
  std::string device{};
  std::uint32_t interface_index = 0;  ///< Of `device`.
  bool tunnel = false;                ///< The device is a tunnel.
  /// Of several next hops, this flow's; unset = the destination is on the link.
  std::optional<ip_address> gateway{};
  std::optional<ip_address> source{};  ///< As datagrams carry it.
  std::uint32_t mtu = 0;               ///< Of the path, as IP_MTU tells: bytes of IP.

  // Of the fast path alone.
  std::string egress{};                          ///< Interface of the AF_XDP socket.
  std::optional<mac_address> destination_mac{};  ///< Of its frames.
  /// Longer ones take the kernel path (divert_reason::exceeds_mtu; of probes, path_mtu_probe).
  std::size_t max_payload = 0;

  /// What is in the way on the kernel's output path, in words: table, chain and rule. No part of
  /// same_way().
  std::string obstacle{};

  std::uint64_t number = 0;          ///< Of this state of the destination, from 1.
  std::uint64_t version = 0;         ///< Forwarding table that first reflects it, or a later one.
  std::int64_t publish_time_ns = 0;  ///< About when that was published: Unix time.

  /// Whether it is the fast path as soon as the flow is known to connection tracking, or already.
  [[nodiscard]] bool is_fast() const noexcept { return service <= path_service::tracked; }
  /// Whether datagrams go the same way, to the last byte of their headers but those of their own.
  [[nodiscard]] bool same_way(const path_state& other) const noexcept;
};
/// One line: "fast via 10.0.0.1 dev eth0 src 10.0.0.2 mtu 1500 egress eth0 mac 02:...".
[[nodiscard]] std::string to_string(const path_state& state);

template <class Executor>
class basic_path_events;

/// One watched destination. Move-only; watching ends with it. Calls on one object are serialised;
/// the end of the sender (of a shared_sender: of its last copy), and transmitter::stop(), complete
/// a waiting call with error::closed.
class path_events {
 public:
  /// What handlers are called with.
  using next_signature = void(std::error_code, path_state);
  using executor_type = ring_context::executor_type;
  /// For as_default_on() of completion tokens.
  template <class Executor>
  struct rebind_executor {
    using other = basic_path_events<Executor>;
  };

  path_events() noexcept = default;
  path_events(path_events&&) noexcept = default;
  path_events& operator=(path_events&& other) noexcept;
  ~path_events();

  /// What handlers without an executor of their own run on: the transmitter's control thread.
  [[nodiscard]] executor_type get_executor() const noexcept;
  /// The present state at first, then the newest after each change; one call at a time. Handlers
  /// never run inside the call. Cancellation: total, partial, terminal; no state is lost by it.
  /// Errors: closed, operation_aborted.
  template <asio::completion_token_for<next_signature> Token>
  auto async_next(Token&& token) {
    return asio::async_initiate<Token, next_signature>(
        [this](auto handler) {
          begin_next({std::move(handler), get_executor()});
        },
        token);
  }

 private:
  friend class detail::engine;
  path_events(std::shared_ptr<event_queue<path_state>> queue, std::shared_ptr<void> source) noexcept
      : source_(std::move(source)), queue_(std::move(queue)) {}
  void begin_next(direct_completion<std::error_code, path_state> done);
  void close() noexcept;

  std::shared_ptr<void> source_;  ///< Keeps the ring of the queue's executor.
  std::shared_ptr<event_queue<path_state>> queue_;
};

/// path_events whose operation has a default completion token, Asio's way (basic_sender.hpp).
template <class Executor>
class basic_path_events : public path_events {
 public:
  using executor_type = Executor;
  using default_token = asio::default_completion_token_t<Executor>;
  template <class Other>
  struct rebind_executor {
    using other = basic_path_events<Other>;
  };

  basic_path_events() noexcept = default;
  /// From what watch_path() returned.
  explicit basic_path_events(path_events&& from) noexcept : path_events(std::move(from)) {}

  [[nodiscard]] executor_type get_executor() const noexcept {
    return executor_type(path_events::get_executor());
  }
  /// As path_events::async_next().
  template <class Token = default_token>
  auto async_next(Token&& token = default_token()) {
    return path_events::async_next(std::forward<Token>(token));
  }
};

}  // namespace cowire

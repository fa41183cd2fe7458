// SPDX-License-Identifier: Apache-2.0
/// The kernel's routing changes as an asynchronous stream, each with the version of the forwarding
/// table that first reflects it.
///
/// Two sources: transmitter::watch_routes() (the table that really sends), and route_watcher, which
/// follows the kernel on a thread of its own without any AF_XDP socket, privilege or UMEM.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/error.hpp>
#include <cowire/base/log.hpp>
#include <cowire/follow/route_stats.hpp>
#include <cowire/ring/asio.hpp>
#include <cowire/ring/direct_completion.hpp>
#include <cowire/ring/ring_context.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace cowire {

template <class T>
class event_queue;

/// One published change.
struct route_change {
  /// What it is that has changed.
  enum class kind : std::uint8_t {
    link,
    address,
    route,
    rule,
    neighbour,
    nexthop,     ///< A nexthop object.
    netconf,     ///< Settings of a device, or of all, under net.ipv4.conf and net.ipv6.conf.
    membership,  ///< Of this host in a multicast group.
    output,      ///< A layer of the kernel's output path (route/output_path.hpp).
    resynced,    ///< See resynced().
  };
  kind what = kind::route;  ///< Which members apply.
  bool removed = false;     ///< The object went away; otherwise it is new or changed.
  /// The objects' own words, as iproute2 prints them; "" where they do not apply.
  std::string family;  ///< "inet" or "inet6".
  std::string
      destination;      ///< Route: prefix or "default"; address: with length; neighbour: address;
                        ///< membership: the multicast group.
  std::string gateway;  ///< Route; several next hops are joined by ",".
  std::string device;   ///< Interface name, or "if7" for one that is gone.
  std::string source;   ///< Route: preferred source.
  std::string table;    ///< Route, rule: "main", "local", "default" or a number.
  std::string layer;    ///< Output: which one, as in output_layer_names(): "traffic_control".
  /// What else there is to say: state, metric, priority, lower layer address. Output: what is in
  /// force in that layer now, in short; at the device, where one is named.
  std::string detail;
  std::uint64_t version = 0;         ///< Forwarding table that first reflects this.
  std::int64_t event_time_ns = 0;    ///< When the notification was read: Unix time.
  std::int64_t publish_time_ns = 0;  ///< When that table was published: Unix time.
  /// Some changes before this one were not reported one by one (the kernel's queue or this stream's
  /// was full); the published table is whole again with `version`.
  [[nodiscard]] bool resynced() const noexcept { return what == kind::resynced; }
};
/// As `cowire route monitor -j` calls it: the identifier.
[[nodiscard]] std::string_view name(route_change::kind kind) noexcept;

/// One subscriber. Move-only; its queue ends with it. Calls on one object are serialised; a source
/// that ends completes a waiting call with error::closed.
class route_events {
 public:
  /// What handlers are called with.
  using next_signature = void(std::error_code, route_change);
  using executor_type = ring_context::executor_type;

  route_events() noexcept = default;
  route_events(route_events&&) noexcept = default;
  route_events& operator=(route_events&& other) noexcept;
  ~route_events();

  /// What handlers without an executor of their own run on: the source's control thread.
  [[nodiscard]] executor_type get_executor() const noexcept;
  /// The next change, oldest first; one call at a time. Handlers never run inside the call.
  /// Cancellation: total, partial, terminal. A full queue drops its content and yields one
  /// resynced() item instead. Errors: closed, operation_aborted.
  template <asio::completion_token_for<next_signature> Token>
  auto async_next(Token&& token) {
    return asio::async_initiate<Token, next_signature>(
        [this](auto handler) {
          begin_next({std::move(handler), get_executor()});
        },
        token);
  }

 private:
  friend class route_watcher;
  friend class transmitter;
  route_events(std::shared_ptr<event_queue<route_change>> queue,
               std::shared_ptr<void> source) noexcept
      : source_(std::move(source)), queue_(std::move(queue)) {}
  void begin_next(direct_completion<std::error_code, route_change> done);
  void close() noexcept;

  std::shared_ptr<void> source_;  ///< Keeps the ring of the queue's executor.
  std::shared_ptr<event_queue<route_change>> queue_;
};

/// What a route_watcher is made with.
struct route_watcher_config {
  std::chrono::milliseconds update_interval{30'000};  ///< Re-dump check: 0 = never.
  log_callback log{};                                 ///< For what an operator should know.
};

/// Follows the kernel's routing state of the calling thread's network namespace on a control thread
/// of its own. Any thread may call any member, the destructor included, in a handler on the control
/// thread, too (which then ends after the handler). In a child of fork() an inherited one throws
/// error::forked, and its destructor leaves everything as it is.
class route_watcher {
 public:
  /// Returns when the first table is published; throws std::system_error.
  explicit route_watcher(route_watcher_config config = {});
  route_watcher(const route_watcher&) = delete;
  route_watcher& operator=(const route_watcher&) = delete;
  ~route_watcher();

  /// Changes from now on; `queue_limit` of them are kept for a slow reader.
  [[nodiscard]] route_events watch(std::size_t queue_limit = 4096);
  /// What the watcher has counted so far.
  [[nodiscard]] route_stats stats() const;

 private:
  struct state;
  std::shared_ptr<state> state_;
};

}  // namespace cowire

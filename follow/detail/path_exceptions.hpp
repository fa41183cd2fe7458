// SPDX-License-Identifier: Apache-2.0
/// Keeps the mirror's path exceptions what the kernel's are: the state machine, without any I/O.
///
/// Whoever has a reason to believe that the kernel learned something about a destination (an ICMP
/// redirect passed by, a socket was told of a path MTU, the truth audit saw it) says ask(). Then
/// RTM_GETROUTE is asked about that destination once for each next hop that flows in use may take
/// to it, and the answers become its path exception, or end it. The sockets that redirects are read
/// from hear of them just before the kernel acts, so that a first question is repeated twice.
///
/// What is known is asked again when it expires, when a route to it changes, and from time to time,
/// since the kernel may drop exceptions without a word (`ip route flush cache`). A redirect whose
/// end may have come leaves its destination to the kernel until the answer is there.
///
/// One thread at a time. Allocates.
#pragma once

#include <cowire/netlink/request_socket.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/mirror.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <vector>

namespace cowire::detail {

/// Whether an answer to RTM_GETROUTE shows a path exception of its destination.
[[nodiscard]] bool shows_exception(const netlink::route_answer& answer);

/// The destination that an ICMPv4 redirect is about (from an IPv4 raw socket: with its IP header),
/// or an ICMPv6 one (without); unset = it is none.
[[nodiscard]] std::optional<ip_address> redirected_destination(ip_family family,
                                                               std::span<const std::byte> datagram);

class path_exceptions {
 public:
  using time_point = std::chrono::steady_clock::time_point;

  /// `state` is the live mirror and outlives this; `classes` names the flow classes in use.
  path_exceptions(mirror& state, std::function<std::vector<flow_class>()> classes)
      : state_(state), classes_(std::move(classes)) {}

  /// Ignored where questions_max unknown destinations are being asked about.
  void ask(const ip_address& destination, time_point now);
  /// The mirror has just taken in `changed`; what follows from it for exceptions goes to `changes`.
  void on_changes(const mirror_changes& changed, time_point now, mirror_changes& changes);
  /// Bytes to write on the question socket, as one datagram; empty = nothing to ask now.
  [[nodiscard]] std::optional<std::vector<std::byte>> next_request();
  /// One whole datagram of that socket; the owner has checked that the kernel sent it.
  void on_answer_datagram(std::span<const std::byte> datagram, time_point now,
                          mirror_changes& changes);
  void on_timer(time_point now, mirror_changes& changes);
  /// When on_timer() has something to do next; in the past while next_request() has.
  [[nodiscard]] time_point deadline() const noexcept {
    return to_send_.empty() ? next_due_ : time_point::min();
  }

  /// Destinations asked about of which nothing is known: redirects are easily forged.
  static constexpr std::size_t unknown_max = 256;
  /// Next hops asked about for one destination; decisions over others stay the kernel's.
  static constexpr std::size_t questions_max = 32;

 private:
  struct question {
    flow about;
    std::optional<exception_owner> owner;
    std::uint32_t sequence = 0;  ///< 0 = to be sent.
    std::optional<netlink::route_answer> answer;
  };
  struct record {
    std::vector<question> questions;
    bool asks_all = true;  ///< No class was left out for the sake of questions_max.
    int repeats = 0;       ///< Rounds to come soon, whatever the answer.
    time_point due;
  };
  using records = std::map<ip_address, record>;

  void begin(const ip_address& destination, record& of, time_point now);
  void set_due(record& of, time_point when);
  void reconsider(records::iterator at, time_point now, mirror_changes& changes);
  void doubt(const ip_address& destination, mirror_changes& changes);
  void conclude(records::iterator at, time_point now, mirror_changes& changes);
  void add_answer(const question& q, path_exception& known,
                  std::optional<std::uint32_t>& expires_s) const;
  [[nodiscard]] bool is_redirected(const question& q) const;

  mirror& state_;
  std::function<std::vector<flow_class>()> classes_;
  records records_;
  time_point next_due_ = time_point::max();  ///< No record's is earlier.
  std::deque<ip_address> to_send_;
  std::map<std::uint32_t, ip_address> awaited_;  ///< By sequence number.
  std::uint32_t sequence_ = 0;
};

}  // namespace cowire::detail

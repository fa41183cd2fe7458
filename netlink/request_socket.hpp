// SPDX-License-Identifier: Apache-2.0
/// A blocking rtnetlink conversation, for tools and tests: dumps, route queries, changes.
///
/// Also opens the two sockets that whoever drives a monitor owns. Synchronous twins: f() throws
/// std::system_error naming the operation, f(ec) reports through `ec`. Every wait ends after the
/// socket's timeout with ETIMEDOUT.
///
/// One thread at a time per object. A socket belongs to the network namespace of the thread that
/// opens it, for good. Not for event loops: drive a monitor (monitor.hpp) there.
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/request.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <vector>

namespace cowire::netlink {

/// A receive buffer of this size is never too small: the kernel fills dump datagrams up to 32 KiB,
/// and a single message carries at most 64 KiB of one attribute.
inline constexpr std::size_t datagram_size_max = 128 * 1024;

/// RTNLGRP_* of linux/rtnetlink.h that a monitor must be told of.
inline constexpr std::array<int, 11> monitor_groups = {
    1,   // LINK
    3,   // NEIGH
    5,   // IPV4_IFADDR
    7,   // IPV4_ROUTE
    8,   // IPV4_RULE
    9,   // IPV6_IFADDR
    11,  // IPV6_ROUTE
    19,  // IPV6_RULE
    24,  // IPV4_NETCONF
    25,  // IPV6_NETCONF
    32,  // NEXTHOP
};
/// Others that it is told of where the kernel has them (6.14 and later).
inline constexpr std::array<int, 2> newer_monitor_groups = {
    37,  // IPV4_MCADDR
    38,  // IPV6_MCADDR
};

struct socket_options {
  bool non_blocking = false;
  /// SO_RCVBUFFORCE, or SO_RCVBUF where that is not permitted; 0 = the kernel's default. The kernel
  /// doubles it, and counts its own overhead (an event takes about 1 KiB).
  int receive_buffer_bytes = 0;
};

/// A netlink route socket for dumps and requests, with strict checking (dumps honour filters) and
/// extended acknowledgements where the kernel has them.
[[nodiscard]] unique_fd open_request_socket(const socket_options& options, std::error_code& ec);

/// A netlink route socket that receives the events of `monitor_groups` from now on, and those of
/// `newer_monitor_groups` that there are.
[[nodiscard]] unique_fd open_event_socket(const socket_options& options, std::error_code& ec);

/// The kernel's answer to a route_query.
struct route_answer {
  int error_number = 0;  ///< What a sendto would fail with (ENETUNREACH, EACCES ...); 0 = a route.
  netlink::route route;  ///< Where error_number is 0.
  [[nodiscard]] explicit operator bool() const noexcept { return error_number == 0; }
};

class request_socket {
 public:
  /// Throws std::system_error when no socket can be had.
  explicit request_socket(std::chrono::milliseconds timeout = std::chrono::seconds(5));

  /// All objects of a kind that pass the filter, in the kernel's order. Repeated when the kernel
  /// says that it was interrupted; error::interrupted_dump after dump_attempts_max. What the kernel
  /// does not have (no such table, no such family) is empty, not an error (means_none). Only
  /// what is_forwarding_state().
  [[nodiscard]] std::vector<message> dump(object_kind kind, const dump_filter& filter,
                                          std::error_code& ec);
  [[nodiscard]] std::vector<message> dump(object_kind kind, const dump_filter& filter = {});

  /// RTM_GETROUTE. `ec` is for failures to ask; the kernel's refusal to route is in the answer.
  [[nodiscard]] route_answer get_route(const route_query& query, std::error_code& ec);
  [[nodiscard]] route_answer get_route(const route_query& query);

  /// One device as it is now, by ifindex; `ec` is ENODEV where there is none.
  [[nodiscard]] std::optional<link> get_link(std::uint32_t index, std::error_code& ec);

  /// Sends a request (encode(), neighbour_poke()) with NLM_F_REQUEST, NLM_F_ACK and a sequence
  /// number of its own and waits for the acknowledgement; `ec` is the kernel's errno.
  void execute(std::vector<std::byte> request, std::error_code& ec);
  void execute(std::vector<std::byte> request);

  /// What the kernel said about the last refused request, in its words; often empty.
  [[nodiscard]] const std::string& diagnostic() const noexcept { return diagnostic_; }

  static constexpr int dump_attempts_max = 16;

 private:
  void send(std::span<const std::byte> request, std::error_code& ec);
  [[nodiscard]] std::span<const std::byte> receive(std::error_code& ec);
  [[nodiscard]] bool dump_once(object_kind kind, const dump_filter& filter,
                               std::vector<message>& found, std::error_code& ec);
  template <class Visitor>
  void for_each_answer(std::uint32_t sequence, std::error_code& ec, Visitor&& visit);

  unique_fd fd_;
  std::uint32_t sequence_ = 0;
  std::vector<std::byte> buffer_;
  std::string diagnostic_;
};

}  // namespace cowire::netlink

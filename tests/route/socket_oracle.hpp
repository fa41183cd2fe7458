// SPDX-License-Identifier: Apache-2.0
/// The kernel's own UDP socket as an oracle: what it would do with a datagram; none leaves.
///
/// sendto() without bytes and with MSG_CONFIRM | MSG_PROBE routes and returns (do_confirm in
/// udp_sendmsg() of net/ipv4/udp.c and udpv6_sendmsg() of net/ipv6/udp.c): no neighbour is asked
/// for, nothing that a mirror could see changes. connect() with getsockname() shows the source.
#pragma once

#include "inventor.hpp"

#include <cowire/route/resolve.hpp>

#include <optional>
#include <string>

namespace cowire::testing {

struct socket_answer {
  int error = 0;  ///< errno of sendto(), 0 = it would have sent.
  /// What connect() has chosen; unset = it has refused, which it does for more reasons.
  std::optional<ip_address> source;
};

/// Asks an AF_INET6 socket (dual-stack) of the class of `asked`, to whom the destination is given
/// `as_written`. Unset: such a socket cannot be had, as when its address or device is not there.
[[nodiscard]] std::optional<socket_answer> ask_socket(const asked_flow& asked);

/// The flow that such a socket would send, in our words: a scope id that means something is its
/// output device, and :: means ::1 (udpv6_sendmsg() in net/ipv6/udp.c).
[[nodiscard]] flow flow_of_socket(const asked_flow& asked);

/// Ours, resolved as route_question::send for flow_of_socket(), beside the socket's; "" = they
/// agree.
[[nodiscard]] std::string socket_disagreement(const asked_flow& asked, const resolution& ours,
                                              const socket_answer& kernel);

}  // namespace cowire::testing

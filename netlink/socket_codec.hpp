// SPDX-License-Identifier: Apache-2.0
/// UDP sockets of a network namespace (udp_diag), as far as it counts whose control group they are
/// of.
///
/// As codec.hpp: no I/O, no state, no trust. Any thread.
/// Source: include/uapi/linux/inet_diag.h, net/ipv4/udp_diag.c, inet_diag.c.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/netlink/codec.hpp>

#include <cstdint>
#include <optional>
#include <vector>

namespace cowire::netlink {

struct udp_socket {
  std::uint64_t cookie = 0;                    ///< As SO_COOKIE.
  std::optional<std::uint64_t> control_group;  ///< Its id; unset: before 5.9.
  friend bool operator==(const udp_socket&, const udp_socket&) = default;
};

/// A dump of the sockets of a domain (AF_INET, AF_INET6) that are bound to a port.
[[nodiscard]] std::vector<std::byte> udp_sockets_request(int domain, be16 port,
                                                         std::uint32_t sequence);

/// One socket of the dump. Empty without error: another message.
[[nodiscard]] std::optional<udp_socket> decode_udp_socket(const envelope& answer,
                                                          std::error_code& ec);

}  // namespace cowire::netlink

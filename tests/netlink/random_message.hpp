// SPDX-License-Identifier: Apache-2.0
/// Random messages that the kernel could have sent: the property tests and the fuzz seeds.
#pragma once

#include <cowire/netlink/message.hpp>

#include <array>
#include <random>
#include <string>

namespace cowire::test {

/// Every value is representable on the wire: decode(encode(m)) == m is expected of each.
[[nodiscard]] netlink::message random_message(std::mt19937_64& random);

/// Kinds of device with a tunnel_info.
inline constexpr std::array<const char*, 8> tunnel_kinds = {
    "gre", "gretap", "erspan", "ip6gre", "ip6gretap", "ipip", "sit", "ip6tnl"};
[[nodiscard]] netlink::tunnel_info random_tunnel(std::mt19937_64& random, const std::string& kind);

}  // namespace cowire::test

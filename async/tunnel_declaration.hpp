// SPDX-License-Identifier: Apache-2.0
/// A tunnel device as its owner declares it (async/tunnel.hpp makes it). Plain values.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/netlink/tunnel_info.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace cowire {

/// An address of an interface with the length of its subnet's prefix.
struct interface_address {
  ip_address local;            ///< The host's.
  unsigned prefix_length = 0;  ///< In bits.
  friend bool operator==(const interface_address&, const interface_address&) = default;
};

/// Everything that `ip tunnel` and `ip addr` would be told.
struct tunnel_declaration {
  std::string name;           ///< Of the device.
  std::string kind;           ///< As the kernel calls it: "gre", "ip6gre", "gretap" ...
  netlink::tunnel_info info;  ///< All but `link`, which `device` stands for.
  std::string device;         ///< Name of the interface that the outer route is bound to; "" = any.
  std::uint32_t mtu = 0;      ///< 0 = as the kernel computes it.
  std::vector<interface_address> addresses;  ///< On the tunnel itself.
  bool up = false;                           ///< Whether it is set up once it is made.
};

}  // namespace cowire

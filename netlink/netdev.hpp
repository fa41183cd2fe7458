// SPDX-License-Identifier: Apache-2.0
/// What drivers declare to the kernel's netdev family of generic netlink: XDP features (Linux 6.3)
/// and who serves a queue (6.8). As linux/netdev.h numbers it, which older headers lack.
///
/// Each call asks through a socket of its own and waits for the answer. Any thread; network
/// namespace: the caller's.
#pragma once

#include <cstdint>
#include <optional>

namespace cowire::netlink {

/// Of NETDEV_CMD_DEV_GET; 0 where an attribute is absent.
struct netdev_features {
  std::uint64_t xdp = 0;  ///< NETDEV_XDP_ACT_*.
  std::uint64_t xsk = 0;  ///< NETDEV_XSK_FLAGS_*, Linux 6.8.
};

/// nullopt: the kernel or the driver does not say.
[[nodiscard]] std::optional<netdev_features> read_netdev_features(std::uint32_t interface_index);

/// The NAPI instances that serve the receive and the transmit queue of a number; 0 = none, or the
/// driver does not tell.
struct queue_napi {
  std::uint32_t rx = 0, tx = 0;
};

/// nullopt: the kernel has no such family.
[[nodiscard]] std::optional<queue_napi> read_queue_napi(std::uint32_t interface_index,
                                                        std::uint32_t queue);

}  // namespace cowire::netlink

// SPDX-License-Identifier: Apache-2.0
/// What a socket's receive queue had no room for.
#pragma once

#include <linux/sock_diag.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>

namespace cowire::detail {

/// Since the socket was made; wraps around.
[[nodiscard]] inline std::uint32_t drops_of(int socket) noexcept {
  std::array<std::uint32_t, SK_MEMINFO_VARS> values{};
  socklen_t size = sizeof values;
  // An older kernel answers with fewer values: the counter then stays 0, and buffers decide.
  static_cast<void>(::getsockopt(socket, SOL_SOCKET, SO_MEMINFO, values.data(), &size));
  return values[SK_MEMINFO_DROPS];
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// What sender::async_next_error() tells.
#pragma once

#include <cowire/base/address.hpp>

#include <cstdint>
#include <system_error>

namespace cowire {

/// Something the kernel or the network said about a datagram that was submitted earlier.
struct send_error {
  /// Who said it.
  enum class origin : std::uint8_t {
    local,    ///< This host refused it: no route, not permitted, too big ...
    network,  ///< An ICMP message came back.
  };
  endpoint destination{};  ///< Where that datagram was to go.
  std::error_code code{};  ///< In std::system_category(): ENETUNREACH, ECONNREFUSED, EMSGSIZE ...
  std::uint32_t mtu = 0;   ///< With EMSGSIZE: the path MTU to the destination, where it is known.
  origin from = origin::local;  ///< Who said it.
};

}  // namespace cowire

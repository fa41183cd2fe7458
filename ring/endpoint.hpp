// SPDX-License-Identifier: Apache-2.0
/// cowire::endpoint from and to what others call an endpoint: asio::ip::udp::endpoint, sockaddr
/// (base/socket_address.hpp).
///
/// An IPv4-mapped IPv6 address stays what it is. The scope id of an address goes along.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/socket_address.hpp>

#include <asio/ip/udp.hpp>

#include <cstring>

namespace cowire {

/// From Asio's; both families.
[[nodiscard]] inline endpoint to_endpoint(const asio::ip::udp::endpoint& from) noexcept {
  // Asio's is a sockaddr_in or a sockaddr_in6.
  return *to_endpoint(from.data(), static_cast<socklen_t>(from.size()));
}

/// To Asio's; both families.
[[nodiscard]] inline asio::ip::udp::endpoint to_asio(const endpoint& from) {
  sockaddr_storage address;
  asio::ip::udp::endpoint out;
  const socklen_t size = to_sockaddr(from, address);
  out.resize(size);
  std::memcpy(out.data(), &address, size);
  return out;
}

}  // namespace cowire

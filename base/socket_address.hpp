// SPDX-License-Identifier: Apache-2.0
/// cowire::endpoint from and to what system calls take: sockaddr.
///
/// An IPv4-mapped IPv6 address stays what it is. The scope id of an address goes along.
#pragma once

#include <cowire/base/address.hpp>

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <optional>

namespace cowire {

[[nodiscard]] inline endpoint to_endpoint(const sockaddr_in& from) noexcept {
  return {ip_address::from_bytes(ip_family::v4, &from.sin_addr), be16{from.sin_port}.host()};
}
[[nodiscard]] inline endpoint to_endpoint(const sockaddr_in6& from) noexcept {
  return {ip_address::from_bytes(ip_family::v6, &from.sin6_addr), be16{from.sin6_port}.host(),
          from.sin6_scope_id};
}
/// nullopt where `address` is no IPv4 or IPv6 address of at least the size of its family.
[[nodiscard]] inline std::optional<endpoint> to_endpoint(const sockaddr* address,
                                                         socklen_t size) noexcept {
  sa_family_t family = AF_UNSPEC;
  if (address && size >= sizeof family) std::memcpy(&family, &address->sa_family, sizeof family);
  if (family == AF_INET && size >= sizeof(sockaddr_in)) {
    sockaddr_in in;
    std::memcpy(&in, address, sizeof in);
    return to_endpoint(in);
  }
  if (family == AF_INET6 && size >= sizeof(sockaddr_in6)) {
    sockaddr_in6 in;
    std::memcpy(&in, address, sizeof in);
    return to_endpoint(in);
  }
  return std::nullopt;
}
[[nodiscard]] inline std::optional<endpoint> to_endpoint(const sockaddr_storage& address) noexcept {
  return to_endpoint(reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

/// The sockaddr of an endpoint in `to`; its size. The rest of `to` is zero.
inline socklen_t to_sockaddr(const endpoint& from, sockaddr_storage& to) noexcept {
  to = {};
  if (from.address.is_v4()) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = be16::from_host(from.port).raw;
    std::memcpy(&in.sin_addr, from.address.bytes().data(), from.address.size());
    std::memcpy(&to, &in, sizeof in);
    return sizeof in;
  }
  sockaddr_in6 in{};
  in.sin6_family = AF_INET6;
  in.sin6_port = be16::from_host(from.port).raw;
  std::memcpy(&in.sin6_addr, from.address.bytes().data(), from.address.size());
  in.sin6_scope_id = from.scope_id;
  std::memcpy(&to, &in, sizeof in);
  return sizeof in;
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/socket_address.hpp>
#include <cowire/base/unique_fd.hpp>
#include <cowire/follow/detail/socket_groups.hpp>
#include <cowire/netlink/request_socket.hpp>
#include <cowire/netlink/socket_codec.hpp>

#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cstddef>
#include <span>
#include <system_error>

namespace cowire::detail {
namespace {

/// Of the answers in `datagram`, that of the socket with this cookie. `done`: it was the last one.
std::optional<std::uint64_t> find_group(std::span<const std::byte> datagram, std::uint64_t cookie,
                                        bool& done) {
  std::error_code ec;
  while (const auto answer = netlink::next_envelope(datagram, ec)) {
    done |= netlink::decode_completion(*answer, ec).has_value();
    const auto one = netlink::decode_udp_socket(*answer, ec);
    if (one && one->cookie == cookie) return one->control_group;
  }
  done |= static_cast<bool>(ec);
  return std::nullopt;
}

}  // namespace

std::optional<std::uint64_t> control_group_of(int fd) {
  std::uint64_t cookie = 0;
  socklen_t cookie_size = sizeof cookie, name_size = sizeof(sockaddr_storage);
  sockaddr_storage name{};
  if (::getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &cookie_size) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &name_size) != 0)
    return std::nullopt;
  const auto bound = to_endpoint(name);
  if (!bound || bound->port == 0) return std::nullopt;
  const unique_fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  const timeval limit{5, 0};
  const auto request =
      netlink::udp_sockets_request(name.ss_family, be16::from_host(bound->port), 1);
  if (!socket || ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0 ||
      ::send(socket.get(), request.data(), request.size(), 0) < 0)
    return std::nullopt;
  std::vector<std::byte> buffer(netlink::datagram_size_max);
  for (bool done = false; !done;) {
    const auto size = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
    if (size < 0) return std::nullopt;
    const auto heard = std::span(buffer).first(static_cast<std::size_t>(size));
    if (const auto found = find_group(heard, cookie, done)) return found;
  }
  return std::nullopt;
}

socket_groups::joined socket_groups::join(std::uint64_t id) {
  const std::lock_guard lock(mutex_);
  auto& known = known_[id];
  if (auto held = known.lock()) return {std::move(held), false};
  auto held = std::make_shared<const std::uint64_t>(id);
  known = held;
  return {std::move(held), true};
}

std::vector<std::uint64_t> socket_groups::ids() {
  const std::lock_guard lock(mutex_);
  std::erase_if(known_, [](const auto& entry) { return entry.second.expired(); });
  std::vector<std::uint64_t> all;
  for (const auto& [id, held] : known_) all.push_back(id);
  return all;
}

}  // namespace cowire::detail

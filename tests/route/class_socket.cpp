// SPDX-License-Identifier: Apache-2.0
#include "class_socket.hpp"

#include <cowire/base/socket_address.hpp>

#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

namespace cowire::testing {

bool set_option(int fd, int level, int option, std::uint32_t value) {
  return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

bool bind_to(int fd, const endpoint& where) {
  sockaddr_storage name{};
  const socklen_t size = to_sockaddr(where, name);
  return ::bind(fd, reinterpret_cast<const sockaddr*>(&name), size) == 0;
}

unique_fd open_socket(const flow_class& cls, ip_family family) {
  const bool v4 = family == ip_family::v4;
  const int level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
  unique_fd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ip_mreqn by_index{};
  by_index.imr_ifindex = static_cast<int>(cls.multicast_interface);
  const auto set_interface = [&] {
    if (cls.multicast_interface == 0) return true;
    return v4 ? ::setsockopt(fd.get(), level, IP_MULTICAST_IF, &by_index, sizeof by_index) == 0
              : set_option(fd.get(), level, IPV6_MULTICAST_IF, cls.multicast_interface);
  };
  const bool made =
      fd && (v4 || set_option(fd.get(), level, IPV6_V6ONLY, 1)) &&
      set_option(fd.get(), SOL_SOCKET, SO_MARK, cls.mark) &&
      set_option(fd.get(), SOL_SOCKET, SO_BINDTOIFINDEX, cls.output_interface) &&
      set_option(fd.get(), level, v4 ? IP_TOS : IPV6_TCLASS, cls.tos) &&
      set_option(fd.get(), level, v4 ? IP_MULTICAST_TTL : IPV6_MULTICAST_HOPS, cls.multicast_ttl) &&
      set_option(fd.get(), level, v4 ? IP_MULTICAST_LOOP : IPV6_MULTICAST_LOOP,
                 cls.multicast_loop) &&
      (cls.ttl == 0 || set_option(fd.get(), level, v4 ? IP_TTL : IPV6_UNICAST_HOPS, cls.ttl)) &&
      set_interface() &&
      // A socket is its inode's owner's (sockfs_setattr() in net/socket.c).
      ::fchown(fd.get(), cls.uid, static_cast<gid_t>(-1)) == 0 &&
      bind_to(fd.get(), {cls.source(family).value_or(ip_address::any(family)), cls.source_port, 0});
  return made ? std::move(fd) : unique_fd();
}

}  // namespace cowire::testing

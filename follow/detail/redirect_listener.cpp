// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/path_exceptions.hpp>
#include <cowire/follow/detail/redirect_listener.hpp>

#include <linux/icmp.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace cowire::detail {

unique_fd open_redirects(ip_family family) {
  const bool v4 = family == ip_family::v4;
  unique_fd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC,
                        v4 ? static_cast<int>(IPPROTO_ICMP) : static_cast<int>(IPPROTO_ICMPV6)));
  if (!fd) return fd;
  icmp_filter only_v4{~(1u << ICMP_REDIRECT)};
  icmp6_filter only_v6;
  ICMP6_FILTER_SETBLOCKALL(&only_v6);
  ICMP6_FILTER_SETPASS(ND_REDIRECT, &only_v6);
  const int done =
      v4 ? ::setsockopt(fd.get(), SOL_RAW, ICMP_FILTER, &only_v4, sizeof only_v4)
         : ::setsockopt(fd.get(), IPPROTO_ICMPV6, ICMP6_FILTER, &only_v6, sizeof only_v6);
  if (done != 0) fd.reset();
  return fd;
}

awaitable<bool> redirect_listener::receive(
    std::function<void(const ip_address& destination)> take) {
  auto [ec, batch] = co_await redirects_.async_receive_some(as_tuple(use_awaitable));
  if (ec) co_return false;
  for (const datagram& d : batch)
    if (const auto destination = redirected_destination(family_, d.payload())) take(*destination);
  co_return true;
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/tunnel_owner.hpp>

#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>

namespace cowire::detail {
namespace {

std::string hexadecimal(std::uint64_t number) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(number));
  return text;
}

unique_fd unix_socket() { return unique_fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)); }

}  // namespace

tunnel_owner::tunnel_owner() {
  const unique_fd asked = unix_socket();
  std::uint64_t name_space = 0, token = 0;
  socklen_t size = sizeof name_space;
  if (::getsockopt(asked.get(), SOL_SOCKET, SO_NETNS_COOKIE, &name_space, &size) != 0) return;
  prefix_ = "cowire " + hexadecimal(name_space) + " ";
  if (::getrandom(&token, sizeof token, 0) != sizeof token) return;
  std::string mark = prefix_ + hexadecimal(token);
  if (hold(mark)) mark_ = std::move(mark);
}

bool tunnel_owner::hold(const std::string& mark) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (mark.size() >= sizeof name.sun_path) return false;
  std::memcpy(name.sun_path + 1, mark.data(), mark.size());  // A leading zero: in no file system.
  unique_fd fd = unix_socket();
  const auto size = offsetof(sockaddr_un, sun_path) + 1 + mark.size();
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&name), static_cast<socklen_t>(size)) != 0)
    return false;
  held_.emplace(mark, std::move(fd));
  return true;
}

bool tunnel_owner::takes_over(const netlink::link& device) {
  if (prefix_.empty() || !std::holds_alternative<netlink::tunnel_info>(device.info) ||
      !device.alias.starts_with(prefix_))
    return false;
  return held_.contains(device.alias) || hold(device.alias);
}

}  // namespace cowire::detail

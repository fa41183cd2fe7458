// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/unique_fd.hpp>
#include <cowire/follow/detail/address_labels.hpp>
#include <cowire/route/address_label.hpp>

#include <linux/if_addrlabel.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

namespace cowire::detail {
namespace {

using bytes = std::span<const std::byte>;

template <class T>
std::optional<T> read(bytes from, std::size_t at = 0) {
  T value;
  if (from.size() < at + sizeof value) return std::nullopt;
  std::memcpy(&value, from.data() + at, sizeof value);
  return value;
}

/// What is left of `from` after something of `size` bytes and its padding to four.
bytes after(bytes from, std::size_t size) {
  return from.subspan(std::min((size + 3) & ~std::size_t{3}, from.size()));
}

/// A label that holds on one device only has no equal among the defaults.
std::optional<address_label> decode(bytes message) {
  const auto body = read<ifaddrlblmsg>(message, sizeof(nlmsghdr));
  if (!body || body->ifal_index != 0) return std::nullopt;
  address_label label;
  for (bytes rest = after(message, sizeof(nlmsghdr) + sizeof *body); !rest.empty();) {
    const auto attribute = read<nlattr>(rest);
    if (!attribute || attribute->nla_len < sizeof(nlattr)) return std::nullopt;
    if (attribute->nla_type == IFAL_ADDRESS && rest.size() >= sizeof(nlattr) + 16)
      label.prefix = {ip_address::from_bytes(ip_family::v6, rest.data() + sizeof(nlattr)),
                      body->ifal_prefixlen};
    if (attribute->nla_type == IFAL_LABEL)
      label.label = read<std::uint32_t>(rest, sizeof(nlattr)).value_or(0);
    rest = after(rest, attribute->nla_len);
  }
  return label;
}

}  // namespace

bool has_default_address_labels() {
  const unique_fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  struct {
    nlmsghdr header;
    ifaddrlblmsg body;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = RTM_GETADDRLABEL;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.body.ifal_family = AF_INET6;
  const timeval deadline{.tv_sec = 1, .tv_usec = 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
  if (::send(fd.get(), &request, sizeof request, 0) < 0) return true;

  std::span<const address_label> expected = default_address_labels();
  std::size_t count = 0;
  std::array<std::byte, 32768> buffer;
  for (;;) {
    const auto got = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
    if (got <= 0) return true;
    for (bytes rest(buffer.data(), static_cast<std::size_t>(got)); !rest.empty();) {
      const auto header = read<nlmsghdr>(rest);
      if (!header || header->nlmsg_len < sizeof *header || header->nlmsg_type == NLMSG_ERROR)
        return true;
      if (header->nlmsg_type == NLMSG_DONE) return count == expected.size();
      const auto label = decode(rest.first(std::min<std::size_t>(header->nlmsg_len, rest.size())));
      if (!label || std::ranges::find(expected, *label) == expected.end()) return false;
      ++count;
      rest = after(rest, header->nlmsg_len);
    }
  }
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// The kinds of objects that messages are about, a file each: decode beside encode, so that a new
/// attribute touches the struct in message.hpp and one file here.
///
/// `decode_*`: empty without error where the message is none of ours; with `ec` where it is not to
/// be trusted (codec.hpp). `encode_object`: the message as the kernel would send it. Any thread.
#pragma once

#include <cowire/netlink/detail/attributes.hpp>
#include <cowire/netlink/detail/message_builder.hpp>
#include <cowire/netlink/message.hpp>

#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <system_error>
#include <vector>

namespace cowire::netlink::detail {

/// A message without its netlink header.
struct body {
  std::uint16_t type = 0;
  std::uint16_t flags = 0;
  byte_span bytes;

  [[nodiscard]] netlink::action action(std::uint16_t removal) const noexcept {
    return type == removal ? action::remove : action::add;
  }
};

[[nodiscard]] std::optional<message> decode_link(body in, std::error_code& ec);
[[nodiscard]] std::optional<message> decode_address(body in, std::error_code& ec);
[[nodiscard]] std::optional<message> decode_route(body in, std::error_code& ec);
[[nodiscard]] std::optional<message> decode_rule(body in, std::error_code& ec);
[[nodiscard]] std::optional<message> decode_neighbour(body in, std::error_code& ec);
[[nodiscard]] std::optional<message> decode_nexthop(body in, std::error_code& ec);
[[nodiscard]] std::optional<message> decode_nexthop_bucket(body in, std::error_code& ec);
[[nodiscard]] std::optional<message> decode_netconf(body in, std::error_code& ec);
[[nodiscard]] std::optional<message> decode_membership(body in, std::error_code& ec);

[[nodiscard]] std::vector<std::byte> encode_object(const link& from);
[[nodiscard]] std::vector<std::byte> encode_object(const address& from);
[[nodiscard]] std::vector<std::byte> encode_object(const route& from);
[[nodiscard]] std::vector<std::byte> encode_object(const rule& from);
[[nodiscard]] std::vector<std::byte> encode_object(const neighbour& from);
[[nodiscard]] std::vector<std::byte> encode_object(const nexthop_object& from);
[[nodiscard]] std::vector<std::byte> encode_object(const nexthop_bucket& from);
[[nodiscard]] std::vector<std::byte> encode_object(const netconf& from);
[[nodiscard]] std::vector<std::byte> encode_object(const membership& from);

// ---- what several of them need ----------------------------------------------------------------

[[nodiscard]] inline std::optional<ip_family> family_from(unsigned value) noexcept {
  if (value == AF_INET) return ip_family::v4;
  if (value == AF_INET6) return ip_family::v6;
  return std::nullopt;
}

[[nodiscard]] inline std::uint8_t family_number(ip_family family) noexcept {
  return family == ip_family::v4 ? AF_INET : AF_INET6;
}

/// An address attribute and a length from the header make a prefix.
[[nodiscard]] inline std::optional<ip_prefix> prefix_from(const std::optional<ip_address>& address,
                                                          ip_family family, unsigned length,
                                                          std::error_code& ec) noexcept {
  if (length > ip_address::any(family).bits() || (length > 0 && !address)) {
    ec = error::malformed;
    return std::nullopt;
  }
  return ip_prefix{address.value_or(ip_address::any(family)), length};
}

[[nodiscard]] inline std::uint16_t type_for(action what, std::uint16_t addition,
                                            std::uint16_t removal) noexcept {
  return what == action::add ? addition : removal;
}

/// Old one-byte table fields hold 252 (RT_TABLE_COMPAT) for what only the attribute can say.
[[nodiscard]] inline std::uint8_t short_table(std::uint32_t table) noexcept {
  return table < 256 ? static_cast<std::uint8_t>(table) : std::uint8_t{RT_TABLE_COMPAT};
}

template <class T>
void put_if(message_builder& to, std::uint16_t type, const std::optional<T>& value) {
  if (value) to.put(type, *value);
}

}  // namespace cowire::netlink::detail

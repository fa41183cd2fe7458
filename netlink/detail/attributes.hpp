// SPDX-License-Identifier: Apache-2.0
/// Reading netlink attributes without trusting a single length.
///
/// Not libmnl's iteration: that stops silently at an attribute whose length lies, and needs aligned
/// bytes. Here a lie is an error, and every field is copied out.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/error.hpp>

#include <linux/netlink.h>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace cowire::netlink::detail {

using byte_span = std::span<const std::byte>;

/// Longest hardware address the kernel has (MAX_ADDR_LEN).
inline constexpr std::size_t hardware_address_size_max = 32;

struct attribute {
  std::uint16_t type = 0;  ///< Without NLA_F_NESTED and NLA_F_NET_BYTEORDER.
  byte_span payload;
};

constexpr std::size_t aligned(std::size_t length) noexcept {
  return (length + NLA_ALIGNTO - 1) & ~std::size_t{NLA_ALIGNTO - 1};
}

/// `bytes` without its first aligned `length` bytes; the last padding may be missing.
[[nodiscard]] inline byte_span after(byte_span bytes, std::size_t length) noexcept {
  return bytes.subspan(std::min(aligned(length), bytes.size()));
}

/// Copies a fixed header off the front of `bytes`; false and error::truncated if it is not there.
template <class T>
[[nodiscard]] bool take(byte_span& bytes, T& header, std::error_code& ec) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  if (bytes.size() < sizeof header) {
    ec = error::truncated;
    return false;
  }
  std::memcpy(&header, bytes.data(), sizeof header);
  bytes = after(bytes, sizeof header);
  return true;
}

/// Calls `visit(attribute)` for each attribute until the end or until `ec` is set, by itself or by
/// `visit`.
template <class Visitor>
void for_each_attribute(byte_span bytes, std::error_code& ec, Visitor&& visit) {
  while (!bytes.empty() && !ec) {
    nlattr header;
    byte_span rest = bytes;
    if (!take(rest, header, ec)) return;
    if (header.nla_len < sizeof header) {
      ec = error::malformed;
      return;
    }
    if (header.nla_len > bytes.size()) {
      ec = error::truncated;
      return;
    }
    visit(attribute{static_cast<std::uint16_t>(header.nla_type & NLA_TYPE_MASK),
                    bytes.subspan(sizeof header, header.nla_len - sizeof header)});
    bytes = after(bytes, header.nla_len);
  }
}

/// Numbers, be16, be32 and plain structs of the kernel: the size must be exact.
template <class T>
requires(std::is_trivially_copyable_v<T> && !std::same_as<T, bool> &&
         !std::same_as<T, ip_address>) void read(const attribute& from, T& to,
                                                 std::error_code& ec) noexcept {
  if (from.payload.size() != sizeof to) {
    ec = error::malformed;
    return;
  }
  std::memcpy(&to, from.payload.data(), sizeof to);
}

/// A u8 or u32 of the kernel that stands for a truth value: `Wire` says which.
template <class Wire>
void read_flag(const attribute& from, bool& to, std::error_code& ec) noexcept {
  Wire value{};
  read(from, value, ec);
  to = value != 0;
}

/// A string up to its terminating zero, which must be there.
inline void read(const attribute& from, std::string& to, std::error_code& ec) {
  const auto end = std::find(from.payload.begin(), from.payload.end(), std::byte{0});
  if (end == from.payload.end()) {
    ec = error::malformed;
    return;
  }
  const auto length = static_cast<std::size_t>(end - from.payload.begin());
  to.resize(length);
  std::memcpy(to.data(), from.payload.data(), length);
}

/// A hardware address of any length that the kernel knows.
inline void read(const attribute& from, std::vector<std::uint8_t>& to, std::error_code& ec) {
  if (from.payload.size() > hardware_address_size_max) {
    ec = error::malformed;
    return;
  }
  to.resize(from.payload.size());
  if (!to.empty()) std::memcpy(to.data(), from.payload.data(), to.size());
}

/// An IP address whose family the message's header told.
inline void read(const attribute& from, ip_family family, ip_address& to,
                 std::error_code& ec) noexcept {
  if (from.payload.size() != ip_address::any(family).size()) {
    ec = error::malformed;
    return;
  }
  to = ip_address::from_bytes(family, from.payload.data());
}

template <class T>
requires(!std::same_as<T, ip_address>) void read(const attribute& from, std::optional<T>& to,
                                                 std::error_code& ec) {
  T value{};
  read(from, value, ec);
  if (!ec) to = value;
}

inline void read(const attribute& from, ip_family family, std::optional<ip_address>& to,
                 std::error_code& ec) noexcept {
  ip_address value;
  read(from, family, value, ec);
  if (!ec) to = value;
}

}  // namespace cowire::netlink::detail

// SPDX-License-Identifier: Apache-2.0
/// Writes one netlink message with libmnl into memory that grows as needed.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/netlink/detail/attributes.hpp>

#include <libmnl/libmnl.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace cowire::netlink::detail {

class message_builder {
 public:
  /// `family_header` is what follows the netlink header (rtmsg, ifinfomsg ...).
  template <class FamilyHeader>
  message_builder(std::uint16_t type, std::uint16_t flags, std::uint32_t sequence,
                  const FamilyHeader& family_header) {
    static_assert(std::is_trivially_copyable_v<FamilyHeader>);
    reserve(aligned(sizeof(nlmsghdr)) + aligned(sizeof family_header));
    nlmsghdr* header = mnl_nlmsg_put_header(bytes_.data());
    header->nlmsg_type = type;
    header->nlmsg_flags = flags;
    header->nlmsg_seq = sequence;
    std::memcpy(mnl_nlmsg_put_extra_header(header, sizeof family_header), &family_header,
                sizeof family_header);
  }

  void put(std::uint16_t type, const void* data, std::size_t size) {
    reserve(message()->nlmsg_len + sizeof(nlattr) + aligned(size));
    mnl_attr_put(message(), type, size, data);
  }
  /// Numbers, be16, be32 and plain structs of the kernel, as they lie in memory.
  template <class T>
  void put(std::uint16_t type, const T& value) {
    static_assert(std::is_trivially_copyable_v<T> && !std::is_same_v<T, ip_address>);
    put(type, &value, sizeof value);
  }
  void put(std::uint16_t type, const ip_address& value) {
    put(type, value.bytes().data(), value.size());
  }
  void put(std::uint16_t type, const std::string& value) {
    put(type, value.c_str(), value.size() + 1);
  }
  void put(std::uint16_t type, const std::vector<std::uint8_t>& value) {
    put(type, value.data(), value.size());
  }
  void put_flag(std::uint16_t type) { put(type, nullptr, 0); }

  /// Attributes that `content` puts become the payload of one of `type`.
  template <class Content>
  void put_nested(std::uint16_t type, Content&& content) {
    const std::size_t offset = begin(sizeof(nlattr));
    std::forward<Content>(content)();
    nlattr header{};
    header.nla_len = static_cast<std::uint16_t>(message()->nlmsg_len - offset);
    header.nla_type = static_cast<std::uint16_t>(type | NLA_F_NESTED);
    std::memcpy(bytes_.data() + offset, &header, sizeof header);
  }

  /// Room of `size` (aligned) bytes at the end, zero, to be filled by write(); returns its offset.
  [[nodiscard]] std::size_t begin(std::size_t size) {
    const std::size_t offset = message()->nlmsg_len;
    reserve(offset + size);
    message()->nlmsg_len += static_cast<std::uint32_t>(size);
    return offset;
  }
  void write(std::size_t offset, const void* data, std::size_t size) {
    std::memcpy(bytes_.data() + offset, data, size);
  }
  [[nodiscard]] std::size_t size() { return message()->nlmsg_len; }

  [[nodiscard]] std::vector<std::byte> finish() && {
    bytes_.resize(message()->nlmsg_len);
    return std::move(bytes_);
  }

 private:
  // A vector's memory is aligned for any header.
  [[nodiscard]] nlmsghdr* message() { return reinterpret_cast<nlmsghdr*>(bytes_.data()); }
  void reserve(std::size_t size) {
    if (bytes_.size() < size) bytes_.resize(size);
  }

  std::vector<std::byte> bytes_;
};

/// Attributes that are absent when empty or zero.
template <class T>
void put_if_set(message_builder& to, std::uint16_t type, const T& value) {
  if (value != T{}) to.put(type, value);
}

}  // namespace cowire::netlink::detail

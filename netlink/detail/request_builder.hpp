// SPDX-License-Identifier: Apache-2.0
/// A netlink request of any family under construction.
#pragma once

#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

namespace cowire::netlink::detail {

class request_builder {
 public:
  request_builder(unsigned type, unsigned flags, std::uint32_t sequence) {
    nlmsghdr header{};
    header.nlmsg_type = static_cast<std::uint16_t>(type);
    header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
    header.nlmsg_seq = sequence;
    append(&header, sizeof header);
  }
  /// The fixed part that follows netlink's own header.
  template <class T>
  void header(const T& fixed) {
    static_assert(std::is_trivially_copyable_v<T>);
    append(&fixed, sizeof fixed);
  }
  template <class T>
  void attribute(std::uint16_t type, const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    const nlattr header{static_cast<std::uint16_t>(sizeof(nlattr) + sizeof value), type};
    append(&header, sizeof header);
    append(&value, sizeof value);
  }
  [[nodiscard]] std::vector<std::byte> finish() {
    const auto length = static_cast<std::uint32_t>(bytes_.size());
    std::memcpy(bytes_.data() + offsetof(nlmsghdr, nlmsg_len), &length, sizeof length);
    return std::move(bytes_);
  }

 private:
  void append(const void* from, std::size_t size) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + ((size + NLMSG_ALIGNTO - 1) & ~std::size_t{NLMSG_ALIGNTO - 1}));
    if (size != 0) std::memcpy(bytes_.data() + at, from, size);
  }
  std::vector<std::byte> bytes_;
};

}  // namespace cowire::netlink::detail

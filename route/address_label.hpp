// SPDX-License-Identifier: Apache-2.0
/// The labels by which IPv6 source addresses are chosen (RFC 6724), as the kernel has them.
#pragma once

#include <cowire/base/address.hpp>

#include <cstdint>
#include <span>

namespace cowire {

/// RFC 6724 label of a prefix.
struct address_label {
  ip_prefix prefix;
  std::uint32_t label = 0;
  friend auto operator<=>(const address_label&, const address_label&) = default;
};

/// The kernel's default labels; longest prefix first.
[[nodiscard]] std::span<const address_label> default_address_labels();

}  // namespace cowire

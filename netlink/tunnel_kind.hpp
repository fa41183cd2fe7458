// SPDX-License-Identifier: Apache-2.0
/// The kinds of device whose IFLA_INFO_DATA is a tunnel_info (message.hpp), and what a kind is by
/// its name alone. The one list of them: decoding, decisions, declarations and texts ask it.
///
/// Constant data; any thread.
#pragma once

#include <cowire/base/address.hpp>

#include <string_view>

namespace cowire::netlink {

struct tunnel_kind {
  std::string_view name;  ///< IFLA_INFO_KIND.
  ip_family outer;
  bool gre;       ///< Has keys, checksums and sequence numbers.
  bool ethernet;  ///< Carries Ethernet frames.
  /// Has nothing but what a tunnel_info holds, so that it can be made from one.
  bool whole;
  std::string_view module, option;  ///< What a kernel has it by.
};

/// Null for every other kind of device.
[[nodiscard]] const tunnel_kind* find_tunnel_kind(std::string_view name) noexcept;

}  // namespace cowire::netlink

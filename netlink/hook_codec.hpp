// SPDX-License-Identifier: Apache-2.0
/// The list of netfilter's hook functions (nfnetlink_hook, since 5.14 where configured).
///
/// As codec.hpp: no I/O, no state, no trust. Any thread. A kernel without it answers EINVAL.
/// Source: net/netfilter/nfnetlink_hook.c.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/netlink/codec.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cowire::netlink {

struct hook_function {
  std::string name;  ///< "nft_do_chain_inet"; empty on kernels that know no names.
  std::int32_t priority = 0;
  friend bool operator==(const hook_function&, const hook_function&) = default;
};

/// A dump of the functions at NF_INET_* `hook` of a family.
[[nodiscard]] std::vector<std::byte> hook_request(ip_family family, std::uint32_t hook,
                                                  std::uint32_t sequence);

/// One function of the dump. Empty without error: another message.
[[nodiscard]] std::optional<hook_function> decode_hook(const envelope& answer, std::error_code& ec);

}  // namespace cowire::netlink

// SPDX-License-Identifier: Apache-2.0
/// Values as they lie in the registers of nftables, for rules made by hand.
#pragma once

#include <cowire/netlink/nft_message.hpp>

#include <cstdint>
#include <cstring>

namespace cowire::testing {

/// In host byte order.
inline netlink::nft::bytes number(std::uint32_t value) {
  netlink::nft::bytes out(sizeof value);
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}

}  // namespace cowire::testing

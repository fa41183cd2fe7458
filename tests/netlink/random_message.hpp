// SPDX-License-Identifier: Apache-2.0
/// Random messages that the kernel could have sent: the property tests and the fuzz seeds.
#pragma once

#include <cowire/netlink/message.hpp>

#include <random>

namespace cowire::test {

/// Every value is representable on the wire: decode(encode(m)) == m is expected of each.
[[nodiscard]] netlink::message random_message(std::mt19937_64& random);

}  // namespace cowire::test

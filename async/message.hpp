// SPDX-License-Identifier: Apache-2.0
/// One datagram of a batch (sender::try_send_batch() and the like).
#pragma once

#include <cowire/async/datagram_bytes.hpp>
#include <cowire/async/datagram_options.hpp>
#include <cowire/base/address.hpp>

namespace cowire {

/// Refers to the bytes.
struct message {
  datagram_bytes bytes{};      ///< Copied when it is submitted.
  endpoint destination{};      ///< One.
  datagram_options options{};  ///< What this one chooses for itself.
};

}  // namespace cowire

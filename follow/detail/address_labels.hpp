// SPDX-License-Identifier: Apache-2.0
/// Whether this host chooses IPv6 source addresses by the kernel's default labels (RFC 6724).
#pragma once

namespace cowire::detail {

/// Asks RTM_GETADDRLABEL, because nobody is told of changes: a few microseconds, any thread. A
/// kernel that cannot be asked counts as having the defaults.
[[nodiscard]] bool has_default_address_labels();

}  // namespace cowire::detail

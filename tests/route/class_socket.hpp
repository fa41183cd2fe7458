// SPDX-License-Identifier: Apache-2.0
/// A plain UDP socket that has everything a flow class says.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/unique_fd.hpp>
#include <cowire/route/flow.hpp>

#include <cstdint>

namespace cowire::testing {

/// Of one family; unset: there can be none such, as where its address or device is not there.
[[nodiscard]] unique_fd open_socket(const flow_class& cls, ip_family family);

/// setsockopt() of a number; false: refused.
bool set_option(int fd, int level, int option, std::uint32_t value);
[[nodiscard]] bool bind_to(int fd, const endpoint& where);

}  // namespace cowire::testing

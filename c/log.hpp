// SPDX-License-Identifier: Apache-2.0
/// Where a transmitter of the C interface says what an operator should know: lines in a descriptor.
#pragma once

#include <cowire/base/log.hpp>

namespace cowire::c {

/// Warnings and errors, as cowire_options.log_fd has it. Throws std::system_error: EBADF, EINVAL.
[[nodiscard]] log_callback make_log(int log_fd);

}  // namespace cowire::c

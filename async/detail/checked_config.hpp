// SPDX-License-Identifier: Apache-2.0
/// Whether a transmitter_config can be carried out, said before anything is opened.
#pragma once

#include <cowire/async/transmitter_config.hpp>

namespace cowire::detail {

/// The same, frames_per_producer rounded up to whole blocks. Throws std::system_error
/// (error::invalid_argument) naming the option, its value, what it may be.
[[nodiscard]] transmitter_config checked(transmitter_config config);

}  // namespace cowire::detail

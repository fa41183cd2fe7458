// SPDX-License-Identifier: Apache-2.0
/// Durations of options, checked before they are added to a clock.
#pragma once

#include <chrono>

namespace cowire {

/// A month: longer than anybody waits for a check, short enough for every clock.
inline constexpr std::chrono::seconds interval_max{30L * 24 * 3600};

/// Throws std::system_error (error::invalid_argument) naming the option, its value and its range
/// unless `value` is 0 to interval_max.
void check_interval(const char* option, std::chrono::milliseconds value);

}  // namespace cowire

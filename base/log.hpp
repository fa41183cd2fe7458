// SPDX-License-Identifier: Apache-2.0
/// Where the library says what an operator should know: a callback of the application's.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace cowire {

/// How much a log line matters.
enum class log_severity : std::uint8_t { debug, info, warning, error };
/// "debug", "info", "warning", "error".
[[nodiscard]] std::string_view name(log_severity severity) noexcept;
/// Called on the control thread, never on a data path; must not block for long. Empty = no logging.
using log_callback = std::function<void(log_severity, std::string_view)>;

}  // namespace cowire

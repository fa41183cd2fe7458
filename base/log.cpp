// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/log.hpp>

namespace cowire {

std::string_view name(log_severity severity) noexcept {
  switch (severity) {
    case log_severity::debug:
      return "debug";
    case log_severity::info:
      return "info";
    case log_severity::warning:
      return "warning";
    case log_severity::error:
      return "error";
  }
  return "";
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/checked_interval.hpp>

#include <cowire/base/error.hpp>

#include <string>

namespace cowire {

void check_interval(const char* option, std::chrono::milliseconds value) {
  if (value.count() >= 0 && value <= interval_max) return;
  throw_error(make_error_code(error::invalid_argument),
              std::string(option) + " must be 0 to " +
                  std::to_string(std::chrono::milliseconds(interval_max).count()) + " ms, not " +
                  std::to_string(value.count()));
}

}  // namespace cowire

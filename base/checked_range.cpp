// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/checked_range.hpp>

#include <cowire/base/error.hpp>

namespace cowire {

void detail::refuse_option(const char* option, std::uint64_t least, std::uint64_t most,
                           const char* unit, const std::string& value) {
  throw_error(make_error_code(error::invalid_argument),
              std::string(option) + " must be " + std::to_string(least) + " to " +
                  std::to_string(most) + unit + ", not " + value);
}

}  // namespace cowire

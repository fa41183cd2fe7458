// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>

#include <cstdio>
#include <cstdlib>

namespace cowire::detail {

void assertion_failed(const char* expression, const char* file, int line) noexcept {
  std::fprintf(stderr, "cowire: assertion failed: %s (%s:%d)\n", expression, file, line);
  std::abort();
}

}  // namespace cowire::detail

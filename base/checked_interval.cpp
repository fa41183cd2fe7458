// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/checked_interval.hpp>

#include <cowire/base/checked_range.hpp>

namespace cowire {

void check_interval(const char* option, std::chrono::milliseconds value) {
  constexpr std::chrono::milliseconds most(interval_max);
  check_range(option, value.count(), 0, std::uint64_t{most.count()}, " ms");
}

}  // namespace cowire

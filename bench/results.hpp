// SPDX-License-Identifier: Apache-2.0
/// What programs print that measure by themselves: as Google Benchmark does, for scripts/bench, or
/// as lines for people.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace cowire::bench {

/// One repetition; those of one name belong together.
struct result {
  std::string name;  ///< GROUP/WHO or GROUP/WHO/ARGUMENTS.
  double nanoseconds = 0;
};

/// The value that a share of `sorted` does not exceed. There is one at least.
[[nodiscard]] inline double percentile(const std::vector<std::int64_t>& sorted, double share) {
  const auto last = static_cast<double>(sorted.size() - 1);
  return static_cast<double>(sorted[static_cast<std::size_t>(share * last)]);
}

/// There is one value at least.
[[nodiscard]] inline double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

inline void print_json(const char* executable, const std::vector<result>& results) {
  std::printf("{\n  \"context\": {\"executable\": \"%s\"},\n  \"benchmarks\": [", executable);
  const char* separator = "\n";
  for (const result& r : results) {
    std::printf(
        "%s    {\"name\": \"%s\", \"run_name\": \"%s\", \"run_type\": \"iteration\", "
        "\"iterations\": 1, \"real_time\": %.3f, \"cpu_time\": %.3f, \"time_unit\": \"ns\"}",
        separator, r.name.c_str(), r.name.c_str(), r.nanoseconds, r.nanoseconds);
    separator = ",\n";
  }
  std::printf("\n  ]\n}\n");
}

inline void print_lines(const std::vector<result>& results) {
  for (const result& r : results)
    std::printf("%-48s %12.1f us\n", r.name.c_str(), r.nanoseconds / 1e3);
}

}  // namespace cowire::bench

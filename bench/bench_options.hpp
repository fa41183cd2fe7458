// SPDX-License-Identifier: Apache-2.0
/// Options that every benchmark program understands besides those of Google Benchmark.
#pragma once

#include <benchmark/benchmark.h>

#include <cstring>
#include <string>

namespace cowire::bench {

/// Takes `--table FILE` or `--table=FILE` out of the arguments; empty if absent.
inline std::string take_table_option(int& argc, char** argv) {
  std::string path;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--table") == 0 && i + 1 < argc) {
      path = argv[++i];
    } else if (std::strncmp(argv[i], "--table=", 8) == 0) {
      path = argv[i] + 8;
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  return path;
}

/// Runs what is registered. A program that needs no table accepts the option and ignores it, so
/// that one command line fits all programs.
inline int run(int argc, char** argv) {
  take_table_option(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace cowire::bench

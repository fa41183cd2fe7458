// SPDX-License-Identifier: Apache-2.0
/// A fixed number of datagrams for callgrind to count the instructions of (scripts/bench
/// instructions).
///
/// bench_tx_instructions KIND BATCHES [copy]; KIND is one of hop_kinds, and `copy` has the producer
/// copy the payloads. Without arguments it names the compiler and the
/// processor's features, on which the counts depend.
#include <cowire/base/checksum.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "bench/tx_world.hpp"

namespace {

using namespace cowire::bench;

/// Small, so that it is built quickly under callgrind, and deep enough for all levels of the trie.
constexpr std::size_t routes = 50'000;

void describe_build() {
#if defined(__clang__)
  std::printf("clang %d", __clang_major__);
#else
  std::printf("gcc %d", __GNUC__);
#endif
  std::printf("%s\n", __builtin_cpu_supports("avx2") ? " avx2" : "");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    describe_build();
    return 0;
  }
  const auto* const kind = std::ranges::find_if(
      hop_kinds, [&](const auto& known) { return std::strcmp(known.first, argv[1]) == 0; });
  if (kind == hop_kinds.end()) {
    std::fprintf(stderr, "no kind of hop is called '%s'\n", argv[1]);
    return 2;
  }
  const bool copy = argc > 3;
  tx_world world(routes, kind->second);
  for (long left = std::strtol(argv[2], nullptr, 10); left > 0; --left) {
    if (copy)
      world.send_batch_with_copy();
    else
      world.send_batch_in_place();
  }
}

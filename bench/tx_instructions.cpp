// SPDX-License-Identifier: Apache-2.0
/// A fixed number of datagrams for callgrind to count the instructions of
/// (scripts/lib/instructions.py).
///
/// bench_tx_instructions KIND BATCHES [copy|new]; KIND is one of hop_kinds. With `copy` the
/// producer copies the payloads, with `new` no destination is used twice. Before the batches that
/// are to be counted, in counted_run(), come some that warm up what remembers. Without arguments it
/// names the compiler and the processor's features, on which the counts depend.
#include <cowire/base/checksum.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "bench/tx_world.hpp"

namespace {

using namespace cowire;
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

/// More than one pass over the destinations, and more misses than the core has credit for.
constexpr int warm_up_batches = 300;
static_assert(warm_up_batches * tx_batch > destination_count &&
              warm_up_batches * tx_batch > flow_cache_bytes / 32);

[[gnu::noinline]] void counted_run(tx_world& world) { static_cast<void>(world.core.run_once()); }

void run_batch(tx_world& world, bool copy) {
  if (copy)
    world.queue_batch_with_copy();
  else
    world.queue_batch_in_place();
  counted_run(world);
  world.device.run();
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
  const std::string_view mode = argc > 3 ? argv[3] : "";
  tx_world world(routes, kind->second);
  if (mode == "new") world.use_new_destinations();
  for (int i = 0; i < warm_up_batches; ++i) world.send_batch_in_place();
  for (long left = std::strtol(argv[2], nullptr, 10); left > 0; --left)
    run_batch(world, mode == "copy");
}

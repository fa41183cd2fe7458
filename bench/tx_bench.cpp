// SPDX-License-Identifier: Apache-2.0
/// User-side cost of one 1232-byte datagram to one of 5 000 destinations in a table of 1.2 million
/// routes, on rings in plain memory.
///
/// Every variant runs on one thread and includes the same instant device, which completes each
/// descriptor at once.
/// - tx_core: what the TX core spends. cowire: take the request, look up, headers with checksums,
///   descriptor, completion, frame back to the producer; the others the same with other headers.
///   neighbours5000: as cowire, to as many neighbours of its own, of which each has a hop. new: as
///   cowire, and no datagram goes where one went before, so that nothing that is remembered helps.
///   bare_loop: descriptor and completion, nothing else: the floor of any AF_XDP sender.
/// - tx_in_place: with the producer's part, whose payload lies in the frame already.
/// - tx_with_copy: the payload is copied first. cowire sums it while copying; memcpy_loop copies
///   payload and a ready-made header and leaves the UDP checksum out.
#include <benchmark/benchmark.h>
#include <cowire/xdp/tx_core.hpp>

#include <chrono>
#include <map>
#include <vector>

#include "bench/bench_options.hpp"
#include "bench/tx_world.hpp"

namespace cowire::bench {
namespace {

/// Built once: a table of a million routes takes a while.
[[nodiscard]] tx_world& world(hop_kind kind = hop_kind::plain) {
  static std::map<hop_kind, tx_world> worlds;
  return worlds.try_emplace(kind, 1'200'000, kind).first->second;
}

void core_in_place(benchmark::State& state) {
  tx_world& w = world();
  while (state.KeepRunningBatch(tx_batch)) w.send_batch_in_place();
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}

/// The core's part of it alone.
void core_alone_in(benchmark::State& state, tx_world& w) {
  while (state.KeepRunningBatch(tx_batch)) {
    w.queue_batch_in_place();
    const auto start = std::chrono::steady_clock::now();
    static_cast<void>(w.core.run_once());
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    w.device.run();
    state.SetIterationTime(spent.count());
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}

void core_alone(benchmark::State& state, hop_kind kind) { core_alone_in(state, world(kind)); }

void core_with_neighbours(benchmark::State& state) {
  static tx_world w(1'200'000, hop_kind::plain, destination_count);
  core_alone_in(state, w);
}

void core_with_new(benchmark::State& state) {
  static tx_world w(1'200'000);
  w.use_new_destinations();
  core_alone_in(state, w);
}

void core_with_copy(benchmark::State& state) {
  tx_world& w = world();
  while (state.KeepRunningBatch(tx_batch)) w.send_batch_with_copy();
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}

/// What every AF_XDP sender does at least: take a free frame, fill it, describe it, take it back.
template <class Fill>
void bare(benchmark::State& state, Fill fill) {
  umem memory({.frame_count = frame_count});
  instant_device device;
  const tx_queue q = device.queue();
  std::vector<std::uint64_t> free;
  for (std::uint32_t i = frame_count; i-- > 0;) free.push_back(std::uint64_t{i} * 2048);
  std::uint32_t producer = 0, completed = 0;
  while (state.KeepRunningBatch(tx_batch)) {
    for (std::size_t i = 0; i < tx_batch; ++i) {
      const std::uint64_t address = free.back();
      free.pop_back();
      fill(memory.memory().base + address);
      q.descriptors[producer++ % q.size] = {address, payload_size + 42, 0};
    }
    std::atomic_ref(*q.producer).store(producer, std::memory_order_release);
    device.run();
    const std::uint32_t ready =
        std::atomic_ref(*q.completion_producer).load(std::memory_order_acquire);
    while (completed != ready) free.push_back(q.completions[completed++ % q.completion_size]);
    std::atomic_ref(*q.completion_consumer).store(completed, std::memory_order_release);
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}

void bare_in_place(benchmark::State& state) {
  bare(state, [](std::byte*) {});
}

void bare_with_memcpy(benchmark::State& state) {
  const std::vector<std::byte> payload(payload_size, std::byte{0x5a}), header(42);
  bare(state, [&](std::byte* frame) {
    std::memcpy(frame, header.data(), 42);
    std::memcpy(frame + 42, payload.data(), payload_size);
  });
}

BENCHMARK_CAPTURE(core_alone, plain, hop_kind::plain)->Name("tx_core/cowire")->UseManualTime();
BENCHMARK_CAPTURE(core_alone, vlan, hop_kind::vlan)->Name("tx_core/vlan")->UseManualTime();
BENCHMARK_CAPTURE(core_alone, ipv6, hop_kind::ipv6)->Name("tx_core/ipv6")->UseManualTime();
BENCHMARK_CAPTURE(core_alone, gre, hop_kind::gre)->Name("tx_core/gre")->UseManualTime();
BENCHMARK_CAPTURE(core_alone, gre_in_gre, hop_kind::gre_in_gre)
    ->Name("tx_core/gre_in_gre")
    ->UseManualTime();
BENCHMARK(core_with_neighbours)->Name("tx_core/neighbours5000")->UseManualTime();
BENCHMARK(core_with_new)->Name("tx_core/new")->UseManualTime();
BENCHMARK(bare_in_place)->Name("tx_core/bare_loop");
BENCHMARK(core_in_place)->Name("tx_in_place/cowire");
BENCHMARK(bare_in_place)->Name("tx_in_place/bare_loop");
BENCHMARK(core_with_copy)->Name("tx_with_copy/cowire");
BENCHMARK(bare_with_memcpy)->Name("tx_with_copy/memcpy_loop");

}  // namespace
}  // namespace cowire::bench

int main(int argc, char** argv) { return cowire::bench::run(argc, argv); }

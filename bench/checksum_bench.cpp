// SPDX-License-Identifier: Apache-2.0
/// Payload checksums: cowire's sums against a plain 16-bit loop (RFC 1071, section 4.1) and memcpy,
/// which only copies. One iteration is one payload.
///
/// bench_checksum [Google Benchmark options]
#include <cowire/base/checksum.hpp>

#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "bench/bench_options.hpp"

namespace cowire::bench {
namespace {

std::uint64_t naive_sum(const std::byte* from, std::size_t size) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i + 1 < size; i += 2) {
    std::uint16_t word;
    std::memcpy(&word, from + i, sizeof word);
    sum += word;
  }
  return sum;
}

template <class Work>
void measure(benchmark::State& state, Work work) {
  const std::vector<std::byte> from(static_cast<std::size_t>(state.range(0)), std::byte{0x5a});
  std::vector<std::byte> to(from.size());
  for (auto _ : state) {
    benchmark::DoNotOptimize(work(to.data(), from));
    benchmark::ClobberMemory();
  }
}

void copy_cowire(benchmark::State& state) {
  measure(state, [](std::byte* to, const auto& from) { return copy_and_sum(to, from); });
}
void copy_then_sum(benchmark::State& state) {
  measure(state, [](std::byte* to, const auto& from) {
    std::memcpy(to, from.data(), from.size());
    return naive_sum(to, from.size());
  });
}
void copy_only(benchmark::State& state) {
  measure(state, [](std::byte* to, const auto& from) {
    return std::memcpy(to, from.data(), from.size());
  });
}
void sum_cowire(benchmark::State& state) {
  measure(state, [](std::byte*, const auto& from) { return sum_bytes(from); });
}
void sum_naive(benchmark::State& state) {
  measure(state, [](std::byte*, const auto& from) { return naive_sum(from.data(), from.size()); });
}

#define COWIRE_SIZES ->Arg(20)->Arg(64)->Arg(200)->Arg(1232)
BENCHMARK(copy_cowire)->Name("copy_and_sum/cowire") COWIRE_SIZES;
BENCHMARK(copy_then_sum)->Name("copy_and_sum/memcpy_and_loop") COWIRE_SIZES;
BENCHMARK(copy_only)->Name("copy_and_sum/memcpy_without_sum") COWIRE_SIZES;
BENCHMARK(sum_cowire)->Name("sum/cowire") COWIRE_SIZES;
BENCHMARK(sum_naive)->Name("sum/loop") COWIRE_SIZES;
#undef COWIRE_SIZES

}  // namespace
}  // namespace cowire::bench

int main(int argc, char** argv) { return cowire::bench::run(argc, argv); }

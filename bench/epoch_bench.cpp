// SPDX-License-Identifier: Apache-2.0
/// Publication to readers: what a batch's announcement costs the reader, and how long the writer
/// waits for a grace period while one reader is busy. Peers: liburcu's QSBR flavour (if present)
/// and std::atomic<std::shared_ptr>.
///
/// bench_epoch [Google Benchmark options]
#include <cowire/route/epoch.hpp>

#include <benchmark/benchmark.h>

#if defined(COWIRE_BENCH_URCU)
#define _LGPL_SOURCE 1  // NOLINT: asks for liburcu's inline functions.
#define URCU_INLINE_SMALL_FUNCTIONS 1
#include <urcu/urcu-qsbr.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "bench/bench_options.hpp"

namespace cowire::bench {
namespace {

struct table {
  std::uint64_t number = 1;
};

// --- A reader's share of one batch: announce, load the pointer, use it ------------------------

void read_cowire(benchmark::State& state) {
  epoch_domain domain;
  auto own = domain.register_reader();
  table one;
  std::atomic<const table*> published{&one};
  for (auto _ : state) {
    own.enter();
    benchmark::DoNotOptimize(published.load(std::memory_order_acquire)->number);
  }
}

void read_shared_ptr(benchmark::State& state) {
  std::atomic<std::shared_ptr<const table>> published{std::make_shared<const table>()};
  for (auto _ : state) benchmark::DoNotOptimize(published.load()->number);
}

// --- Grace periods with one busy reader -------------------------------------------------------

/// Runs `reading` on another thread while the benchmark's own thread measures.
template <class Reading>
class busy_reader {
 public:
  explicit busy_reader(Reading reading)
      : thread_([this, reading]() mutable { reading(running_, stop_); }) {
    while (!running_.load()) std::this_thread::yield();
  }
  ~busy_reader() {
    stop_.store(true);
    thread_.join();
  }
  busy_reader(const busy_reader&) = delete;
  busy_reader& operator=(const busy_reader&) = delete;

 private:
  std::atomic<bool> running_{false}, stop_{false};
  std::thread thread_;
};

/// The time of an iteration is the median of many waits, each timed alone: one descheduled reader
/// spoils a mean.
template <class Wait>
void measure_median(benchmark::State& state, Wait wait) {
  std::vector<double> seconds(20'000);
  for (auto _ : state) {
    for (double& one : seconds) {
      const auto begin = std::chrono::steady_clock::now();
      wait();
      one = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    }
    const auto middle = seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2);
    std::nth_element(seconds.begin(), middle, seconds.end());
    state.SetIterationTime(*middle);
  }
}

void grace_cowire(benchmark::State& state) {
  epoch_domain domain;
  std::atomic<table*> published{new table};
  busy_reader reader([&](std::atomic<bool>& running, const std::atomic<bool>& stop) {
    auto own = domain.register_reader();
    for (running = true; !stop.load(std::memory_order_relaxed);) {
      own.enter();
      benchmark::DoNotOptimize(published.load(std::memory_order_acquire)->number);
    }
  });
  measure_median(state, [&] {
    domain.retire(std::unique_ptr<table>(published.exchange(new table)));
    if (!domain.synchronize(std::chrono::steady_clock::time_point::max()))
      state.SkipWithError("no grace period");
  });
  delete published.exchange(nullptr);
}

#if defined(COWIRE_BENCH_URCU)
void read_urcu(benchmark::State& state) {
  urcu_qsbr_register_thread();
  table one;
  std::atomic<const table*> published{&one};
  for (auto _ : state) {
    urcu_qsbr_quiescent_state();
    benchmark::DoNotOptimize(published.load(std::memory_order_acquire)->number);
  }
  urcu_qsbr_unregister_thread();
}

void grace_urcu(benchmark::State& state) {
  std::atomic<table*> published{new table};
  busy_reader reader([&](std::atomic<bool>& running, const std::atomic<bool>& stop) {
    urcu_qsbr_register_thread();
    for (running = true; !stop.load(std::memory_order_relaxed);) {
      urcu_qsbr_quiescent_state();
      benchmark::DoNotOptimize(published.load(std::memory_order_acquire)->number);
    }
    urcu_qsbr_unregister_thread();
  });
  measure_median(state, [&] {
    const std::unique_ptr<table> old(published.exchange(new table));
    urcu_qsbr_synchronize_rcu();
  });
  delete published.exchange(nullptr);
}
#endif

BENCHMARK(read_cowire)->Name("epoch_read/cowire");
#if defined(COWIRE_BENCH_URCU)
BENCHMARK(read_urcu)->Name("epoch_read/liburcu_qsbr");
#endif
BENCHMARK(read_shared_ptr)->Name("epoch_read/atomic_shared_ptr");
BENCHMARK(grace_cowire)->Name("epoch_grace_p50/cowire")->UseManualTime()->Iterations(1);
#if defined(COWIRE_BENCH_URCU)
BENCHMARK(grace_urcu)->Name("epoch_grace_p50/liburcu_qsbr")->UseManualTime()->Iterations(1);
#endif

}  // namespace
}  // namespace cowire::bench

int main(int argc, char** argv) { return cowire::bench::run(argc, argv); }

// SPDX-License-Identifier: Apache-2.0
/// What it costs a TX core that there is another one: CPU time for a datagram of 1232 bytes in
/// place, with the producer's part, on rings in plain memory, over 1.2 million routes.
///
/// Each core has a thread, pinned to a CPU of its own, that is its producer and its device, too.
/// - one: a core alone.
/// - cowire: two cores over one table, each with half of the destinations.
/// - apart: two cores that share nothing, each with a table of its own: what the machine takes for
///   two CPUs that are busy at once. What cowire has more is the cost of sharing.
///
/// bench_tx_cores [--routes=N] [--benchmark_format=json] [--benchmark_repetitions=N]; other options
/// of Google Benchmark are passed over.
#include <sched.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <latch>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "bench/datagrams.hpp"
#include "bench/results.hpp"
#include "bench/tx_world.hpp"

namespace cowire::bench {
namespace {

constexpr std::size_t batches = 8000;  ///< Of one repetition; some 10 ms.

/// A core of a world with a producer and a device of its own, and every second destination.
class lane {
 public:
  lane(tx_world& in, std::size_t first)
      : core_(memory_.memory(), in.tables, in.epochs, in.control,
              {.flow_cache_bytes = flow_cache_bytes}) {
    for (std::size_t i = first; i < in.destinations.size(); i += 2)
      destinations_.push_back(in.destinations[i]);
    core_.attach(producer_.channel);
    core_.add_port(1, 1, device_.queue());
  }

  void send_batch() noexcept {
    producer_.reclaim();
    for (std::size_t i = 0; i < tx_batch; ++i) {
      at_ = at_ + 1 == destinations_.size() ? 0 : at_ + 1;
      static_cast<void>(producer_.send_in_place(payload_size, destinations_[at_]));
    }
    static_cast<void>(core_.run_once());
    device_.run();
  }

 private:
  umem memory_{{.frame_count = frame_count}};
  test::test_producer producer_{memory_, 0, frame_count};
  instant_device device_;
  std::vector<request_destination> destinations_;
  std::size_t at_ = 0;
  tx_core core_;
};

/// The CPUs that this process may use.
[[nodiscard]] std::vector<int> usable_cpus() {
  cpu_set_t set;
  std::vector<int> out;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return out;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(static_cast<unsigned>(cpu), &set)) out.push_back(cpu);
  return out;
}

void pin_to(int cpu) noexcept {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  static_cast<void>(::sched_setaffinity(0, sizeof set, &set));  // Unpinned it only measures worse.
}

/// ns of CPU time for a datagram: the mean of the lanes, all of which send until the last is done.
[[nodiscard]] double run(const std::vector<lane*>& lanes, const std::vector<int>& cpus) {
  std::latch begin(static_cast<std::ptrdiff_t>(lanes.size()));
  std::atomic<std::size_t> measuring = lanes.size();
  std::atomic<std::int64_t> spent = 0;
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < lanes.size(); ++i) {
    threads.emplace_back([&, one = lanes[i], cpu = cpus[i]] {
      pin_to(cpu);
      for (std::size_t n = 0; n < batches / 8; ++n) one->send_batch();  // Warms up what remembers.
      begin.arrive_and_wait();
      const std::int64_t start = now_ns(CLOCK_THREAD_CPUTIME_ID);
      for (std::size_t n = 0; n < batches; ++n) one->send_batch();
      spent += now_ns(CLOCK_THREAD_CPUTIME_ID) - start;
      --measuring;
      while (measuring != 0) one->send_batch();
    });
  }
  threads.clear();
  return static_cast<double>(spent) / static_cast<double>(batches * tx_batch * lanes.size());
}

[[nodiscard]] std::vector<result> measure(std::size_t routes, long repetitions,
                                          const std::vector<int>& cpus) {
  const auto world = std::make_unique<tx_world>(routes), other = std::make_unique<tx_world>(routes);
  lane first(*world, 0), second(*world, 1), stranger(*other, 1);
  std::vector<result> results;
  for (long i = 0; i < repetitions; ++i) {
    results.push_back({"tx_cores/one", run({&first}, cpus)});
    results.push_back({"tx_cores/cowire", run({&first, &second}, cpus)});
    results.push_back({"tx_cores/apart", run({&first, &stranger}, cpus)});
  }
  return results;
}

}  // namespace
}  // namespace cowire::bench

int main(int argc, char** argv) {
  using namespace cowire::bench;
  bool json = false;
  long repetitions = 7;
  std::size_t routes = 1'200'000;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const auto value = [&](std::string_view option) {
      return argument.starts_with(option) ? argv[i] + option.size() : nullptr;
    };
    if (argument == "--benchmark_format=json") json = true;
    if (const char* text = value("--benchmark_repetitions=")) repetitions = std::atol(text);
    if (const char* text = value("--routes=")) routes = std::strtoull(text, nullptr, 10);
  }
  const auto cpus = usable_cpus();
  if (cpus.size() < 2) {
    std::fputs("bench_tx_cores: needs two CPUs\n", stderr);
    return 1;
  }
  const auto results = measure(routes, repetitions, cpus);
  if (json)
    print_json(argv[0], results);
  else
    for (const result& r : results) std::printf("%-20s %8.2f ns\n", r.name.c_str(), r.nanoseconds);
  return 0;
}

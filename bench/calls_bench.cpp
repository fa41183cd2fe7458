// SPDX-License-Identifier: Apache-2.0
/// What a caller's thread spends on a datagram of 64 bytes whose frame is at hand: by
/// sender::try_send(), shared_sender::try_send(), cowire_try_send() of the C interface, whose
/// handles are shared ones, and by a coroutine that awaits sender::async_send() by
/// asio::use_awaitable and by await_frames, a million of each of which it also counts the
/// allocations of.
///
/// The caller is on CPU 0, and all that the transmitter has on CPU 1: a TX core that never sleeps,
/// and the control thread, which would take the caller's CPU away from it in the middle of a batch,
/// as it sends each of the datagrams. In batches, between which all frames come home, and in
/// rounds: the C interface has a transmitter of its own. The datagrams go to a closed port of a
/// network namespace without devices, by the kernel path.
///
/// bench_calls [--batches N] [--json]. Exit status 1 if an awaited send allocated, 77 without
/// CAP_SYS_ADMIN or a second CPU.
#include <cowire/cowire.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/use_awaitable.hpp>

#include <sched.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "bench/c_sender.hpp"
#include "bench/results.hpp"
#include "testbed/counted_allocations.hpp"
#include "testbed/private_namespace.hpp"

namespace cowire::bench {
namespace {

constexpr int batch = 64, warm_up = 20, rounds = 8;
constexpr std::size_t ways = 5;
constexpr const char* names[ways] = {"cowire", "shared_sender", "c_interface", "awaited",
                                     "await_frames"};
constexpr std::uint16_t closed_port = 9;
constexpr unsigned caller_cpu = 0, core_cpu = 1;
const std::string text(batch, 'x');

using clock = std::chrono::steady_clock;

/// Nanoseconds of each datagram, by way and batch.
using times = std::array<std::vector<double>, ways>;

void wait_until_home(const transmitter& tx) {
  while (tx.stats().on_the_way() != 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
}

double per_datagram(clock::time_point since) {
  return std::chrono::duration<double, std::nano>(clock::now() - since).count() / batch;
}

[[noreturn]] void refused(const char* what) { throw std::runtime_error(what); }

/// Of each datagram of a batch, each of which `send` says was taken.
template <class Send>
double timed(const Send& send) {
  const auto start = clock::now();
  for (int i = 0; i < batch; ++i)
    if (!send()) refused("a frame was not at hand");
  return per_datagram(start);
}

/// The same of a batch whose datagrams are awaited; adds to `allocated` how often that was done.
template <class Token>
asio::awaitable<double> awaited(sender& own, const endpoint& to, Token token,
                                std::uint64_t& allocated) {
  const auto before = test::allocations;
  const auto start = clock::now();
  for (int i = 0; i < batch; ++i)
    if (co_await own.async_send(text, to, token) != 1) refused("async_send");
  const double took = per_datagram(start);
  allocated += test::allocations - before;
  co_return took;
}

asio::awaitable<void> take_turns(transmitter& tx, long batches, times& out,
                                 std::uint64_t& allocated) {
  const endpoint to{*ip_address::parse("127.0.0.1"), closed_port};
  auto own = tx.make_sender();
  const auto shared = tx.make_shared_sender();
  for (long i = 0; i < warm_up + batches; ++i) {
    std::array<double, ways> took{};
    took[0] = timed([&] { return own.try_send(text, to); });
    wait_until_home(tx);
    took[1] = timed([&] { return shared.try_send(text, to); });
    wait_until_home(tx);
    std::uint64_t made = 0;
    took[3] = co_await awaited(own, to, asio::use_awaitable, made);
    wait_until_home(tx);
    took[4] = co_await awaited(own, to, await_frames, made);
    wait_until_home(tx);
    if (i < warm_up) continue;  // Asio has got what it re-uses.
    allocated += made;
    for (const std::size_t way : {0u, 1u, 3u, 4u}) out[way].push_back(took[way]);
  }
}

/// Where this thread goes on, and the threads that it starts begin.
void move_to(unsigned cpu) {
  cpu_set_t only{};
  CPU_SET(cpu, &only);
  if (::sched_setaffinity(0, sizeof only, &only) != 0) refused("a CPU of its own");
}

/// What `make` makes, whose threads stay on the core's CPU.
template <class Make>
auto made_beside_the_core(const Make& make) {
  move_to(core_cpu);
  auto made = make();
  move_to(caller_cpu);
  return made;
}

void one_round(long batches, times& out, std::uint64_t& allocated) {
  {
    const auto tx = made_beside_the_core([] {
      return std::make_unique<transmitter>(transmitter_config{.mode = send_mode::kernel,
                                                              .cpus = {core_cpu},
                                                              .max_producers = 1,
                                                              .idle = idle_policy::spin});
    });
    asio::io_context app{1};
    asio::co_spawn(app, take_turns(*tx, batches, out, allocated), rethrow);
    app.run();
  }
  const auto by_c =
      made_beside_the_core([] { return std::make_unique<c_sender>(core_cpu, text, closed_port); });
  for (long i = 0; i < warm_up + batches; ++i) {
    const double took = timed([&] { return by_c->send(); });
    by_c->wait_until_home();
    if (i >= warm_up) out[2].push_back(took);
  }
}

void print(const times& all) {
  for (std::size_t way = 0; way < ways; ++way)
    std::printf("%-16s %8.1f ns a datagram, %+.1f\n", names[way], median(all[way]),
                median(all[way]) - median(all[0]));
}

int run(int argc, char** argv) {
  long batches = 1'000'000 / batch;
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--json" || argument == "--benchmark_format=json") json = true;
    if (argument == "--batches" && i + 1 < argc) batches = std::strtol(argv[++i], nullptr, 10);
  }
  const test::private_namespace inside;
  if (!inside.entered() || std::thread::hardware_concurrency() <= core_cpu)
    return std::fprintf(stderr, "bench_calls: needs CAP_SYS_ADMIN and two CPUs\n"), 77;
  test::bring_up_loopback();
  times all;
  std::uint64_t allocated = 0;
  for (int round = 0; round < rounds; ++round) one_round(batches / rounds, all, allocated);
  if (json) {
    std::vector<result> results;
    for (std::size_t way = 0; way < ways; ++way)
      for (const double each : all[way])
        results.push_back({std::string("call/") + names[way], each});
    print_json(argv[0], results);
  } else {
    print(all);
    std::printf("%ld awaited sends allocated %llu times\n", batches / rounds * rounds * batch,
                static_cast<unsigned long long>(allocated));
  }
  if (allocated != 0) return std::fprintf(stderr, "bench_calls: awaited sends allocated\n"), 1;
  return 0;
}

}  // namespace
}  // namespace cowire::bench

int main(int argc, char** argv) try {
  return cowire::bench::run(argc, argv);
} catch (const std::exception& failed) {
  return std::fprintf(stderr, "bench_calls: %s\n", failed.what()), 1;
}

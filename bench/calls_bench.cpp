// SPDX-License-Identifier: Apache-2.0
/// What a caller's thread spends on a datagram of 64 bytes whose frame is at hand: by
/// sender::try_send(), shared_sender::try_send(), cowire_try_send() of the C interface, whose
/// handles are shared ones, and by a coroutine that awaits sender::async_send(), a million of which
/// it also counts the allocations of.
///
/// The caller is on CPU 0, a TX core that never sleeps on CPU 1. In batches, between which all
/// frames come home, and in rounds: the C interface has a transmitter of its own. The datagrams go
/// to a closed port of a network namespace without devices, by the kernel path.
///
/// bench_calls [--batches N] [--json]. Exit status 1 if an awaited send allocated, 77 without
/// CAP_SYS_ADMIN or a second CPU.
#include <cowire/cowire.hpp>

#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <asio/use_awaitable.hpp>

#include <arpa/inet.h>
#include <sched.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "bench/results.hpp"
#include "c/cowire.h"
#include "testbed/counted_allocations.hpp"
#include "testbed/private_namespace.hpp"

namespace cowire::bench {
namespace {

constexpr int batch = 64, warm_up = 20, rounds = 8;
constexpr std::size_t ways = 4;
constexpr const char* names[ways] = {"cowire", "shared_sender", "c_interface", "awaited"};
constexpr std::uint16_t closed_port = 9;
constexpr unsigned core_cpu = 1;
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

/// A configuration that has the core poll.
std::string file_for_c() {
  std::string name = "/tmp/cowire-bench-calls-XXXXXX";
  const unique_fd fd(::mkstemp(name.data()));
  const std::string content = "[xdp]\ncpus = [" + std::to_string(core_cpu) + "]\n";
  if (!fd || ::write(fd.get(), content.data(), content.size()) < 0) refused("a file in /tmp");
  return name;
}

/// The C interface.
class c_sender {
 public:
  c_sender() {
    const std::string file = file_for_c();
    const int opened = cowire_open_file(file.c_str(), &tx_);
    ::unlink(file.c_str());
    cowire_sender_options choices = COWIRE_SENDER_OPTIONS_INIT;
    if (opened != 0 || cowire_sender_open(tx_, &choices, &sender_) != 0) refused(cowire_text());
    one_.data = text.data();
    one_.length = text.size();
    one_.to.v4.sin_family = AF_INET;
    one_.to.v4.sin_port = htons(closed_port);
    one_.to.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  c_sender(const c_sender&) = delete;
  c_sender& operator=(const c_sender&) = delete;
  ~c_sender() {
    cowire_sender_close(sender_);
    cowire_close(tx_);
  }
  [[nodiscard]] bool send() const { return cowire_try_send(sender_, &one_, 1) == 1; }
  void wait_until_home() const {
    for (std::array<cowire_counter, 32> all;;) {
      const std::size_t count = cowire_counters(tx_, all.data(), all.size());
      for (std::size_t i = 0; i < count && i < all.size(); ++i)
        if (std::string_view(all[i].name) == "on_the_way" && all[i].value == 0) return;
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }

 private:
  cowire_transmitter* tx_ = nullptr;
  cowire_sender* sender_ = nullptr;
  cowire_datagram one_{};
};

/// Of each datagram of a batch, each of which `send` says was taken.
template <class Send>
double timed(const Send& send) {
  const auto start = clock::now();
  for (int i = 0; i < batch; ++i)
    if (!send()) refused("a frame was not at hand");
  return per_datagram(start);
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
    const auto before = test::allocations;
    const auto start = clock::now();
    for (int j = 0; j < batch; ++j)
      if (co_await own.async_send(text, to, asio::use_awaitable) != 1) refused("async_send");
    took[3] = per_datagram(start);
    const auto made = test::allocations - before;
    wait_until_home(tx);
    if (i < warm_up) continue;  // Asio has got what it re-uses.
    allocated += made;
    for (const std::size_t way : {0u, 1u, 3u}) out[way].push_back(took[way]);
  }
}

void one_round(long batches, times& out, std::uint64_t& allocated) {
  {
    transmitter tx({.mode = send_mode::kernel,
                    .cpus = {core_cpu},
                    .max_producers = 1,
                    .idle = idle_policy::spin});
    asio::io_context app{1};
    asio::co_spawn(app, take_turns(tx, batches, out, allocated), rethrow);
    app.run();
  }
  const c_sender by_c;
  for (long i = 0; i < warm_up + batches; ++i) {
    const double took = timed([&] { return by_c.send(); });
    by_c.wait_until_home();
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
  cpu_set_t caller{};
  CPU_SET(0, &caller);
  if (!inside.entered() || std::thread::hardware_concurrency() <= core_cpu)
    return std::fprintf(stderr, "bench_calls: needs CAP_SYS_ADMIN and two CPUs\n"), 77;
  test::bring_up_loopback();
  times all;
  std::uint64_t allocated = 0;
  for (int round = 0; round < rounds; ++round) {
    ::sched_setaffinity(0, sizeof caller, &caller);
    one_round(batches / rounds, all, allocated);
  }
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

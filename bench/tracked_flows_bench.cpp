// SPDX-License-Identifier: Apache-2.0
/// What it costs the control thread that many flows are fast although the kernel tracks them: the
/// CPU time of a ring that does nothing else, while every flow sends once in 100 ms, in a private
/// network namespace. Beside it, what becoming fast costs, and how many timers were set.
///
/// Prints a table, or what Google Benchmark prints for --benchmark_format=json. --flows=N,
/// --seconds =N. The flows stay within net.netfilter.nf_conntrack_max, which is the host's. Needs
/// root.
#include <cowire/async/detail/flow_tracker.hpp>

#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "bench/results.hpp"
#include "testbed/netns.hpp"

namespace cowire {
namespace {

using namespace std::chrono_literals;
using detail::flow_tracker;

constexpr std::uint16_t first_source_port = 20'000;
constexpr std::uint32_t ports_per_source = 50'000;
constexpr auto use_period = 100ms;

double thread_cpu_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// The flows of a few source ports to many ports of one peer.
struct flows {
  std::vector<tx_request> requests;
  std::vector<tracked_key> keys;
  source_bytes source{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 77, 1, 1};

  explicit flows(std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
      const auto from = static_cast<std::uint16_t>(first_source_port + i / ports_per_source);
      const auto to = static_cast<std::uint16_t>(1 + i % ports_per_source);
      requests.push_back(
          make_request({}, 0, 0, be16::from_host(from),
                       request_destination::from({*ip_address::parse("10.77.1.2"), to}), 0));
      keys.push_back(tracked_key::of(requests.back(), {source}));
    }
  }
};

/// One datagram of each flow from a kernel socket of its port.
void send_by_kernel(const flows& all) {
  unique_fd fd;
  be16 bound{};
  for (const tx_request& request : all.requests) {
    sockaddr_in name{};
    name.sin_family = AF_INET;
    if (!fd || request.source_port != bound) {
      fd.reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      bound = request.source_port;
      name.sin_port = bound.raw;
      if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) != 0)
        throw_error(errno_code(errno), "binding a source port");
    }
    name.sin_port = request.destination_port.raw;
    std::memcpy(&name.sin_addr, request.destination.data() + 12, 4);
    while (::sendto(fd.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&name), sizeof name) < 0)
      if (errno != EAGAIN && errno != ENOBUFS) throw_error(errno_code(errno), "sending");
  }
}

struct measured {
  double first_ns = 0;    ///< Of one flow, until it is fast.
  double share = 0;       ///< Of a CPU.
  double still_fast = 0;  ///< Share of the flows in the end.
  double refreshes_per_s = 0;
};

measured measure(std::uint32_t count, std::chrono::seconds duration) {
  const flows all(count);
  ring_context ring;
  epoch_domain epochs;
  const outer_flows numbers;
  flow_tracker tracker(ring, epochs, numbers, 2 * count, {});
  measured out;
  send_by_kernel(all);
  const double before = thread_cpu_ns();
  for (std::size_t i = 0; i < all.requests.size(); ++i) {
    tracker.on_kernel_datagram(all.requests[i], {all.source}, 0);
    if (i % 64 == 63) tracker.settle();
  }
  tracker.settle();
  out.first_ns = (thread_cpu_ns() - before) / count;

  std::atomic<bool> done{false};
  std::thread user([&] {
    const tracked_flows& table = tracker.flows();
    auto reader = epochs.register_reader();
    while (!done.load(std::memory_order_relaxed)) {
      reader.enter();
      const auto now = now_ms();
      for (const tracked_key& key : all.keys)
        static_cast<void>(table.use(table.find_line(key, table.hash_of(key)), now));
      reader.leave();
      std::this_thread::sleep_for(use_period);
    }
    asio::post(ring.get_executor(), [&] { tracker.stop(); });
  });
  std::thread stopper([&] {
    std::this_thread::sleep_for(duration);
    done = true;
  });
  const auto began = std::chrono::steady_clock::now();
  const double busy = thread_cpu_ns();
  const auto refreshed = tracker.stats().refreshed;
  ring.run();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  out.share = (thread_cpu_ns() - busy) / 1e9 / seconds;
  out.refreshes_per_s = static_cast<double>(tracker.stats().refreshed - refreshed) / seconds;
  out.still_fast = static_cast<double>(tracker.stats().fast) / count;
  user.join();
  stopper.join();
  return out;
}

int run(std::uint32_t count, std::chrono::seconds duration, bool json, const char* program) {
  const test::netns a, b;
  test::connect(a, "a0", b, "b0", 1);
  // Nobody answers, not even that nobody is there.
  b("nft add table ip t");
  b("nft 'add chain ip t in { type filter hook input priority 0; policy drop; }'");
  a("nft add table ip t");
  a("nft 'add chain ip t in { type filter hook input priority 0; }'");
  a("nft add rule ip t in ct state invalid drop");
  const test::netns::scope inside(a);
  const measured found = measure(count, duration);
  const std::string flows = "/" + std::to_string(count);
  const std::vector<bench::result> results = {
      {"flow becomes fast/cowire" + flows, found.first_ns},
      {"control thread in a second/cowire" + flows, found.share * 1e9}};
  if (json) {
    bench::print_json(program, results);
  } else {
    std::printf(
        "%u flows, each in use: %.2f %% of a CPU, %.0f timers set a second, %.2f %% fast in the "
        "end; "
        "%.2f us for a flow to become fast\n",
        count, found.share * 100, found.refreshes_per_s, found.still_fast * 100,
        found.first_ns / 1000);
  }
  return 0;
}

}  // namespace
}  // namespace cowire

int main(int argc, char** argv) {
  std::uint32_t count = 100'000;
  std::chrono::seconds duration{60};
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word.starts_with("--flows="))
      count = static_cast<std::uint32_t>(std::strtoul(argv[i] + 8, nullptr, 10));
    else if (word.starts_with("--seconds="))
      duration = std::chrono::seconds(std::strtol(argv[i] + 10, nullptr, 10));
    else if (word == "--benchmark_format=json")
      json = true;
  }
  try {
    return cowire::run(count, duration, json, argv[0]);
  } catch (const std::exception& failed) {
    std::fprintf(stderr, "%s\n", failed.what());
    return 1;
  }
}

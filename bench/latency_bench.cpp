// SPDX-License-Identifier: Apache-2.0
/// How long a lone datagram takes from the call to the other end of a veth pair: cowire with each
/// idle policy against sendto, in private network namespaces, at 1000 datagrams a second. And what
/// becomes of that at 80 % of what cowire can send, and what the idle policies cost in CPU time.
///
/// The time runs from just before the call to the kernel's time stamp on the frame at an AF_PACKET
/// socket of the peer. Between two datagrams the sending thread sleeps, as an application would, so
/// that caches and CPUs are as cold as they are in life. cowire and sendto take turns; while sendto
/// is measured there is no transmitter.
///
/// | group                          | compares                                                   |
/// |--------------------------------|------------------------------------------------------------|
/// | latency_<policy>_{p50,p99}     | lone datagrams                                             |
/// | latency_80_percent_p99         | probes in a stream at 80 % of saturation, with lone ones   |
/// | cpu_at_1000_pps_<policy>       | CPU time a second of everything that cowire runs           |
/// | cpu_idle_<policy>              | the same while nothing is sent                             |
///
/// Prints a table, or what Google Benchmark prints for --benchmark_format=json;
/// --benchmark_repetitions=N. Needs root.
#include <cowire/async/transmitter.hpp>

#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "bench/datagrams.hpp"
#include "bench/results.hpp"
#include "testbed/netns.hpp"

namespace cowire::bench {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t payload_size = 200;
constexpr auto lone_period = 1ms;
constexpr int lone_count = 1000;
constexpr int warm_up_count = 50;
constexpr auto idle_time = 500ms;
constexpr auto slice_time = 20ms;
constexpr int slice_count = 50;
constexpr std::uint64_t datagrams_per_probe = 16;
constexpr std::uint16_t probe_port = 9000, load_port = 9001;

/// CPU time of the whole process.
std::int64_t cpu_ns() { return now_ns(CLOCK_PROCESS_CPUTIME_ID); }

/// The frames of the probe port at B's end, with the kernel's time stamps.
class tap {
 public:
  tap(const test::netns& in, const std::string& device) {
    const test::netns::scope inside(in);
    fd_.reset(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    // From the IPv4 header on: UDP, and its destination port.
    sock_filter only_probes[] = {
        {BPF_LD | BPF_B | BPF_ABS, 0, 0, 9},  {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, IPPROTO_UDP},
        {BPF_LD | BPF_H | BPF_ABS, 0, 0, 22}, {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, probe_port},
        {BPF_RET | BPF_K, 0, 0, 0xffff},      {BPF_RET | BPF_K, 0, 0, 0}};
    const sock_fprog filter{std::size(only_probes), only_probes};
    const int yes = 1, room = 64 << 20;
    sockaddr_ll at{};
    at.sll_family = AF_PACKET;
    at.sll_protocol = htons(ETH_P_IP);
    at.sll_ifindex = static_cast<int>(::if_nametoindex(device.c_str()));
    const bool made =
        ::setsockopt(fd_.get(), SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0 &&
        ::setsockopt(fd_.get(), SOL_SOCKET, SO_TIMESTAMPNS, &yes, sizeof yes) == 0 &&
        ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) == 0 &&
        ::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0;
    if (!made) throw_error(errno_code(errno), "AF_PACKET socket on " + device);
  }

  /// How long each probe since the last call took, sorted. `least` of them are waited for.
  [[nodiscard]] std::vector<std::int64_t> latencies(std::size_t least) {
    std::vector<std::int64_t> out;
    for (;;) {
      while (const auto took = next()) out.push_back(*took);
      if (out.size() >= least) break;
      pollfd readable{fd_.get(), POLLIN, 0};
      if (::poll(&readable, 1, 5000) > 0) continue;
      std::fprintf(stderr, "bench_latency: %zu of %zu probes did not arrive\n", least - out.size(),
                   least);
      std::exit(1);
    }
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  [[nodiscard]] std::optional<std::int64_t> next() {
    std::byte bytes[512];
    const auto arrived_ns = receive_stamped(fd_.get(), bytes);
    if (!arrived_ns) return std::nullopt;
    std::int64_t called_ns;
    std::memcpy(&called_ns, bytes + 28, sizeof called_ns);
    return *arrived_ns - called_ns;
  }

  unique_fd fd_;
};

/// Two hosts. What arrives at B is for another station: B's kernel shows it to the tap and drops
/// it.
struct world {
  test::netns a, b;
  endpoint probes{*ip_address::parse("10.77.1.9"), probe_port};
  endpoint load{*ip_address::parse("10.77.1.9"), load_port};

  world() {
    test::connect(a, "a0", b, "b0", 1);
    a("ip neigh add 10.77.1.9 lladdr 02:00:00:00:00:09 dev a0 nud permanent");
  }
};

/// A payload that says when it was sent.
class stamped_payload {
 public:
  [[nodiscard]] std::span<const std::byte> now() {
    const std::int64_t ns = now_ns(CLOCK_REALTIME);
    std::memcpy(bytes_.data(), &ns, sizeof ns);
    return bytes_;
  }

 private:
  std::array<std::byte, payload_size> bytes_{};
};

/// Lone datagrams: `send(bytes)` for each. Returns what they took, sorted.
template <class Send>
std::vector<std::int64_t> lone_datagrams(tap& at, int count, const Send& send) {
  stamped_payload payload;
  auto next = std::chrono::steady_clock::now();
  for (int i = 0; i < count; ++i) {
    std::this_thread::sleep_until(next += lone_period);
    send(payload.now());
  }
  return at.latencies(static_cast<std::size_t>(count));
}

/// The calling thread stays on a CPU for as long as this lives. Threads that it makes meanwhile
/// inherit that, unless they are pinned themselves.
class on_cpu {
 public:
  explicit on_cpu(unsigned cpu) {
    ::sched_getaffinity(0, sizeof before_, &before_);
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    COWIRE_ASSERT(::sched_setaffinity(0, sizeof only, &only) == 0);
  }
  on_cpu(const on_cpu&) = delete;
  on_cpu& operator=(const on_cpu&) = delete;
  ~on_cpu() { ::sched_setaffinity(0, sizeof before_, &before_); }

 private:
  cpu_set_t before_{};
};

struct policy {
  std::string name;
  transmitter_config config;
};

/// The last CPU is the TX core's where it polls all the time.
std::vector<policy> policies() {
  const transmitter_config base{.interfaces = {"a0"}, .max_producers = 1};
  std::vector<policy> all = {{"adaptive", base}, {"yield", base}, {"spin", base}};
  all[0].config.idle = idle_policy::adaptive;
  all[1].config.idle = idle_policy::yield;
  all[2].config.idle = idle_policy::spin;
  const unsigned cpus = std::thread::hardware_concurrency();
  if (cpus < 2)
    all.pop_back();
  else
    all[2].config.cpus = {cpus - 1};
  return all;
}

/// CPU time a second of the process while `work` runs.
template <class Work>
double cpu_ns_per_second(Work work) {
  const auto start = std::chrono::steady_clock::now();
  const std::int64_t before = cpu_ns();
  work();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return static_cast<double>(cpu_ns() - before) / took.count();
}

/// Sends for a slice of time as many as the transmitter takes, or `rate` a second. Returns their
/// number.
std::uint64_t stream(sender& out, const world& w, std::optional<double> rate) {
  stamped_payload payload;
  const auto start = std::chrono::steady_clock::now();
  std::uint64_t sent = 0;
  for (;;) {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    if (elapsed >= slice_time) return sent;
    if (rate && static_cast<double>(sent) >= *rate * elapsed.count()) continue;
    // The beginning, when the core may have to wake up, is not what is asked about.
    const bool probe = rate && elapsed > slice_time / 10 && sent % datagrams_per_probe == 0;
    const auto bytes = payload.now();
    while (!out.try_send(bytes, probe ? w.probes : w.load)) std::this_thread::yield();
    ++sent;
  }
}

/// p99 of the probes of a slice at 80 % of the rate that saturated the slice just before: the
/// median of many, so that what else the machine does decides little.
double loaded_p99(const transmitter& tx, sender& out, const world& w, tap& at) {
  const auto drain = [&tx] {
    while (tx.stats().on_the_way() != 0) std::this_thread::yield();
  };
  std::vector<std::int64_t> slices;
  for (int i = 0; i < slice_count; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const auto flooded = static_cast<double>(stream(out, w, std::nullopt));
    drain();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    static_cast<void>(stream(out, w, 0.8 * flooded / took.count()));
    drain();
    const auto probes = at.latencies(0);
    if (probes.empty()) continue;  // Somebody else had the CPU.
    slices.push_back(static_cast<std::int64_t>(percentile(probes, 0.99)));
  }
  COWIRE_ASSERT(!slices.empty());
  std::sort(slices.begin(), slices.end());
  return percentile(slices, 0.5);
}

void measure(const policy& with, const world& w, tap& at, std::vector<result>& into) {
  const auto add = [&](const std::string& name, double ns) { into.push_back({name, ns}); };
  const auto measure_lone = [&](const std::string& who, const auto& send) {
    static_cast<void>(lone_datagrams(at, warm_up_count, send));
    std::vector<std::int64_t> times;
    const double busy = cpu_ns_per_second([&] { times = lone_datagrams(at, lone_count, send); });
    add("latency_" + with.name + "_p50/" + who, percentile(times, 0.5));
    add("latency_" + with.name + "_p99/" + who, percentile(times, 0.99));
    add("cpu_at_1000_pps_" + with.name + "/" + who, busy);
  };
  {
    transmitter tx(with.config);
    sender out = tx.make_sender();
    measure_lone("cowire", [&](std::span<const std::byte> bytes) {
      COWIRE_ASSERT(out.try_send(bytes, w.probes));
    });
    add("cpu_idle_" + with.name + "/cowire",
        cpu_ns_per_second([] { std::this_thread::sleep_for(idle_time); }));
    COWIRE_ASSERT(tx.stats().kernel_path == 0);
  }
  const kernel_sender plain(w.probes);
  measure_lone("sendto",
               [&](std::span<const std::byte> bytes) { COWIRE_ASSERT(plain.send(bytes)); });
}

/// The TX core and the sending thread have a CPU each, as a host that sends that much gives them.
void measure_loaded(const world& w, tap& at, std::vector<result>& into) {
  const on_cpu here(0);
  transmitter_config config{.interfaces = {"a0"}, .max_producers = 1};
  config.cpus = {std::thread::hardware_concurrency() - 1};
  transmitter tx(config);
  sender out = tx.make_sender();
  const auto send = [&](std::span<const std::byte> bytes) {
    COWIRE_ASSERT(out.try_send(bytes, w.probes));
  };
  static_cast<void>(lone_datagrams(at, warm_up_count, send));
  into.push_back({"latency_80_percent_p99/cowire_lone",
                  percentile(lone_datagrams(at, lone_count, send), 0.99)});
  into.push_back({"latency_80_percent_p99/cowire", loaded_p99(tx, out, w, at)});
}

std::vector<result> run_all(int repetitions) {
  const world w;
  tap at(w.b, "b0");
  const test::netns::scope inside(w.a);
  ::prctl(PR_SET_TIMERSLACK, 1);
  std::vector<result> results;
  for (int i = 0; i < repetitions; ++i) {
    for (const policy& each : policies()) measure(each, w, at, results);
    if (std::thread::hardware_concurrency() > 1) measure_loaded(w, at, results);
  }
  return results;
}

}  // namespace
}  // namespace cowire::bench

int main(int argc, char** argv) {
  bool json = false;
  int repetitions = 3;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    constexpr std::string_view repeat = "--benchmark_repetitions=";
    json |= word == "--benchmark_format=json";
    if (word.starts_with(repeat)) repetitions = std::atoi(argv[i] + repeat.size());
  }
  if (::geteuid() != 0) {
    std::fputs("bench_latency: needs root to make network namespaces\n", stderr);
    return 1;
  }
  const auto results = cowire::bench::run_all(repetitions);
  if (json)
    cowire::bench::print_json("bench_latency", results);
  else
    cowire::bench::print_lines(results);
  return 0;
}

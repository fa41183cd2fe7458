// SPDX-License-Identifier: Apache-2.0
/// Following a kernel with a full routing table, in a private network namespace: how long until the
/// first forwarding table is published, beside reading the same dumps and throwing them away; and
/// how long after the last of 100 000 changes it is published.
///
/// bench_follow [--routes=N] [Google Benchmark options]. Needs root.
#include <cowire/async/transmitter.hpp>
#include <cowire/netlink/request.hpp>
#include <cowire/netlink/request_socket.hpp>

#include <benchmark/benchmark.h>
#include <linux/netlink.h>
#include <malloc.h>
#include <net/if.h>
#include <unistd.h>

#include "bench/bench_options.hpp"
#include "bench/route_table.hpp"
#include "testbed/netns.hpp"
#include "testbed/route_writer.hpp"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <string_view>
#include <utility>

namespace cowire::bench {
namespace {

using clock = std::chrono::steady_clock;

constexpr std::uint32_t changes = 100'000;

double seconds_since(clock::time_point start) {
  return std::chrono::duration<double>(clock::now() - start).count();
}

/// A namespace with two links and the table.
struct world {
  test::netns a, b;
  std::vector<table_route> table;
  ip_address gateways[2] = {*ip_address::parse("10.77.1.2"), *ip_address::parse("10.77.2.2")};
  std::uint32_t devices[2] = {};

  explicit world(std::size_t route_count) : table(synthetic_table(route_count, 2)) {
    test::connect(a, "a0", b, "b0", 1);
    test::connect(a, "a1", b, "b1", 2);
    const test::netns::scope inside(a);
    for (const std::uint32_t link : {0u, 1u})
      devices[link] = ::if_nametoindex(("a" + std::to_string(link)).c_str());
    test::route_writer routes;
    for (const table_route& route : table) write(routes, route, route.value % 2);
    routes.flush();
  }
  void write(test::route_writer& routes, const table_route& route, std::uint32_t link) const {
    routes.replace(prefix_of(route), gateways[link], devices[link]);
  }
  static ip_prefix prefix_of(const table_route& route) {
    return {ip_address::v4(route.prefix), route.length};
  }
};

/// Reads what the kernel has of routes; nobody looks at it.
void dump_alone() {
  std::error_code ec;
  const unique_fd socket = netlink::open_request_socket({.receive_buffer_bytes = 4 << 20}, ec);
  if (ec) throw_error(ec, "bench_follow");
  std::vector<char> buffer(32768);
  for (const ip_family family : ip_families) {
    const auto request = netlink::dump_request(netlink::object_kind::route, {family, 0, 0}, 1);
    if (::send(socket.get(), request.data(), request.size(), 0) < 0)
      throw_error(errno_code(errno), "bench_follow");
    for (bool done = false; !done;) {
      const auto size = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
      if (size < static_cast<ssize_t>(sizeof(nlmsghdr)))
        throw_error(errno_code(errno), "bench_follow");
      nlmsghdr first;  // The end comes alone where the datagram before was full, else at the end.
      for (std::size_t at = 0; at < static_cast<std::size_t>(size) && !done;
           at += NLMSG_ALIGN(first.nlmsg_len)) {
        std::memcpy(&first, buffer.data() + at, sizeof first);
        done = first.nlmsg_type == NLMSG_DONE || first.nlmsg_type == NLMSG_ERROR;
      }
    }
  }
}

transmitter_config config() {
  transmitter_config made;
  made.interfaces = {"a0", "a1"};
  made.frames_per_producer = 1024;
  made.max_producers = 1;
  made.update_interval = std::chrono::milliseconds(0);
  return made;
}

/// Of the whole process, the benchmark's own table included; 0 = the kernel does not say.
double resident_mib() {
  std::ifstream statm("/proc/self/statm");
  double all = 0, resident = 0;
  statm >> all >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

/// Until a sender's first datagram would find its way: the class is compiled and published.
void start_up_with(benchmark::State& state, const world& in, const transmitter_config& wanted) {
  const test::netns::scope inside(in.a);
  for (auto _ : state) {
    ::malloc_trim(0);  // What the last one left behind is no memory of this one's.
    const auto start = clock::now();
    transmitter tx(wanted);
    const auto out = tx.make_sender();
    state.SetIterationTime(seconds_since(start));
    state.counters["resident_MiB"] = resident_mib();
  }
}

void start_up(benchmark::State& state, const world& in) { start_up_with(state, in, config()); }

/// What the output path costs where nothing is configured on it: beside one that does not look.
void start_up_without_output(benchmark::State& state, const world& in) {
  transmitter_config wanted = config();
  for (const output_layer_name& one : output_layer_names()) wanted.output.*one.member = false;
  start_up_with(state, in, wanted);
}

void dump(benchmark::State& state, const world& in) {
  const test::netns::scope inside(in.a);
  for (auto _ : state) {
    const auto start = clock::now();
    dump_alone();
    state.SetIterationTime(seconds_since(start));
  }
}

/// Reads the stream of changes, on the control thread, up to one of a destination.
class publication_of {
 public:
  publication_of(transmitter& tx, std::string destination)
      : events_(tx.watch_routes(2 * changes)), destination_(std::move(destination)) {
    next();
  }
  /// Unix time of its publication.
  [[nodiscard]] std::future<std::chrono::nanoseconds> time() { return time_.get_future(); }

 private:
  void next() {
    events_.async_next([this](std::error_code ec, const route_change& change) {
      if (ec) return;
      if (!change.resynced() && change.destination != destination_) return next();
      time_.set_value(std::chrono::nanoseconds(change.publish_time_ns));
    });
  }

  route_events events_;
  const std::string destination_;
  std::promise<std::chrono::nanoseconds> time_;
};

/// Moves many routes to the other link; the last one is the same each time.
class change_maker {
 public:
  explicit change_maker(const world& in) : in_(in) {}
  virtual ~change_maker() = default;
  [[nodiscard]] static table_route last() { return {0xc6120000, 24, 1}; }  // 198.18.0.0/24

  /// Writes down what make() will do.
  virtual void prepare() = 0;
  /// Returns when the kernel has carried them out.
  virtual void make() = 0;

 protected:
  /// Calls write(route, link) for each change, every call the other way round.
  template <class Write>
  void for_each(Write&& write) {
    static std::uint32_t round = 0;  // The routes stay as they were left.
    ++round;
    for (std::uint32_t i = 0; i + 1 < changes; ++i) {
      const table_route& route = in_.table[i * std::size_t{7919} % in_.table.size()];
      write(route, (route.value + round) % 2);
    }
    write(last(), round % 2);
  }
  const world& in_;
};

/// As an operator would: one request after the other, each with its answer.
class ip_batch final : public change_maker {
 public:
  using change_maker::change_maker;
  ~ip_batch() override { std::filesystem::remove(file_); }
  void prepare() override {
    std::ofstream out(file_);
    for_each([&](const table_route& route, std::uint32_t link) {
      out << "route replace " << world::prefix_of(route).to_string() << " via "
          << in_.gateways[link].to_string() << " dev a" << link << '\n';
    });
  }
  void make() override { test::run("ip -batch " + file_); }

 private:
  const std::string file_ = "/tmp/cowire-follow-" + std::to_string(::getpid());
};

/// As fast as the kernel takes them, nobody waits for answers.
class burst final : public change_maker {
 public:
  using change_maker::change_maker;
  void prepare() override {}
  void make() override {
    test::route_writer routes;
    for_each([&](const table_route& route, std::uint32_t link) { in_.write(routes, route, link); });
    routes.flush();
  }
};

/// Seconds that making the changes took, and from their end to the publication of the last.
struct course {
  double making, after;
};

course follow(transmitter& tx, change_maker& maker) {
  maker.prepare();
  publication_of last_one(tx, world::prefix_of(change_maker::last()).to_string());
  auto watching = last_one.time();
  const auto start = std::chrono::system_clock::now();
  maker.make();
  const auto done = std::chrono::system_clock::now();
  const auto published = watching.get();
  const std::chrono::duration<double> making = done - start,
                                      after = published - done.time_since_epoch();
  return {making.count(), std::max(after.count(), 0.0)};
}

/// From the moment when the kernel has carried out the last of many changes.
template <class Maker>
void after_changes(benchmark::State& state, const world& in) {
  const test::netns::scope inside(in.a);
  transmitter tx(config());
  const auto out = tx.make_sender();
  Maker maker(in);
  for (auto _ : state) {
    const auto before = tx.stats().routes;
    const course took = follow(tx, maker);
    const auto now = tx.stats().routes;
    state.SetIterationTime(took.after);
    state.counters["made_per_s"] = changes / took.making;
    state.counters["followed_per_s"] = changes / (took.making + took.after);
    state.counters["publications"] = static_cast<double>(now.publications - before.publications);
    state.counters["overruns"] = static_cast<double>(now.overruns - before.overruns);
  }
}

/// The changes with nobody who follows.
template <class Maker>
void changes_alone(benchmark::State& state, const world& in) {
  const test::netns::scope inside(in.a);
  Maker maker(in);
  for (auto _ : state) {
    maker.prepare();
    const auto start = clock::now();
    maker.make();
    state.SetIterationTime(seconds_since(start));
    state.counters["made_per_s"] = changes / seconds_since(start);
  }
}

}  // namespace
}  // namespace cowire::bench

int main(int argc, char** argv) {
  using namespace cowire::bench;
  std::size_t route_count = 1'200'000;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]).starts_with("--routes="))
      route_count = std::strtoull(argv[i] + 9, nullptr, 10);
    else
      argv[kept++] = argv[i];
  }
  argc = kept;
  if (::geteuid() != 0) {
    std::fputs("bench_follow: needs root to make network namespaces\n", stderr);
    return 1;
  }
  const auto in = std::make_shared<world>(route_count);
  const auto add = [&](const char* name, void (*measure)(benchmark::State&, const world&)) {
    benchmark::RegisterBenchmark(name, [in, measure](auto& state) { measure(state, *in); })
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMillisecond);
  };
  add("start_up/cowire", start_up);
  add("start_up/output_path_ignored", start_up_without_output);
  add("start_up/dump_alone", dump);
  add("after_ip_batch/cowire", after_changes<ip_batch>);
  add("ip_batch_alone/ip", changes_alone<ip_batch>);
  add("after_burst/cowire", after_changes<burst>);
  return run(argc, argv);
}

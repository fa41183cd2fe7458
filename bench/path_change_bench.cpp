// SPDX-License-Identifier: Apache-2.0
/// How long after `ip route replace` the first frame takes the new path, with a full routing table
/// loaded and neighbours changing all the time: cowire against the kernel's own sendto, in private
/// network namespaces.
///
/// A destination is switched to and fro between two links while datagrams flow to it, one every 50
/// us; the time runs from just before the request is written to the receive time stamp of the first
/// frame on the other link. So the kernel's own work on the change is in it, and on average half a
/// datagram's distance. Once more while cowire checks all the time: reads the whole table again and
/// compares.
///
/// The way is broken down into what has happened by when, from the same start: `asked`, the request
/// has been carried out; `read`, the control thread has the notification; `published`, the table
/// has it; and the frame, which has no word of its own.
///
/// At last a link goes down, and half of the routes with it: how long those datagrams wait that are
/// diverted because of it, from their submission to their receive time stamp, until what is left is
/// published (`link_down_diverted`; `published` is how long that takes from the notification on).
///
/// Prints a table, or what Google Benchmark prints for --benchmark_format=json. --routes=N changes
/// the size of the table. Needs root.
#include <cowire/async/transmitter.hpp>

#include <arpa/inet.h>
#include <linux/neighbour.h>
#include <net/if.h>
#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "bench/datagrams.hpp"
#include "bench/results.hpp"
#include "bench/route_table.hpp"
#include "testbed/netns.hpp"
#include "testbed/route_writer.hpp"

namespace cowire {
namespace {

using namespace std::chrono_literals;

constexpr int repetitions = 3;
constexpr int changes_per_repetition = 300;
constexpr auto datagram_period = 50us;
constexpr auto neighbour_change_period = 2ms;
/// Between two changes, so that each finds everything at rest.
constexpr auto pause = 3ms;
constexpr auto give_up = 60s;
constexpr std::uint16_t port = 9000;

/// What arrives over one link, with the time at which it did.
class stamped_sink {
 public:
  stamped_sink(const test::netns& in, const std::string& device)
      : socket_(in, {ip_address::any(ip_family::v4), port}, device) {
    const int yes = 1;
    ::setsockopt(socket_.fd(), SOL_SOCKET, SO_TIMESTAMPNS, &yes, sizeof yes);
  }
  /// Time of the next datagram; empty = none within `timeout_ms`.
  std::optional<std::int64_t> next(int timeout_ms) {
    pollfd readable{socket_.fd(), POLLIN, 0};
    if (::poll(&readable, 1, timeout_ms) <= 0) return std::nullopt;
    return bench::receive_stamped(socket_.fd(), bytes_);
  }
  /// What was in it, where that was a time.
  [[nodiscard]] std::int64_t submitted() const {
    std::int64_t time;
    std::memcpy(&time, bytes_, sizeof time);
    return time;
  }
  /// Forgets what has come.
  void drain() {
    while (next(0)) continue;
  }

 private:
  test::udp_sink socket_;
  std::byte bytes_[64];
};

/// Calls `work` every `period` on a thread of its own, which is started in the caller's namespace.
class repeated {
 public:
  repeated(std::chrono::microseconds period, std::function<void()> work)
      : thread_([this, period, work = std::move(work)] {
          ::prctl(PR_SET_TIMERSLACK, 1);
          while (!stopping_) {
            work();
            std::this_thread::sleep_for(period);
          }
        }) {}
  ~repeated() {
    stopping_ = true;
    thread_.join();
  }
  repeated(const repeated&) = delete;
  repeated& operator=(const repeated&) = delete;

 private:
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

/// Two hosts, two links, a full table in A.
struct world {
  test::netns a, b;
  ip_prefix moving = *ip_prefix::parse("198.18.0.0/24");
  endpoint destination = *endpoint::parse("198.18.0.7:9000");
  ip_address gateways[2] = {*ip_address::parse("10.77.1.2"), *ip_address::parse("10.77.2.2")};
  std::uint32_t devices[2] = {};

  explicit world(std::size_t route_count) {
    test::connect(a, "a0", b, "b0", 1);
    test::connect(a, "a1", b, "b1", 2);
    b("ip route add local 198.18.0.0/24 dev lo");
    b("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.b0.rp_filter=0 "
      "net.ipv4.conf.b1.rp_filter=0");
    const test::netns::scope inside(a);
    for (const int link : {0, 1}) {
      const std::string n = std::to_string(link);
      std::string mac = b("cat /sys/class/net/b" + n + "/address");
      mac.resize(mac.find('\n'));
      a("ip neigh replace " + gateways[link].to_string() + " lladdr " + mac + " dev a" + n +
        " nud permanent");
      devices[link] = ::if_nametoindex(("a" + n).c_str());
    }
    test::route_writer routes;
    for (const auto& route : bench::synthetic_table(route_count, 2)) {
      const auto link = route.value % 2;
      routes.replace({ip_address::v4(route.prefix), route.length}, gateways[link], devices[link]);
    }
    routes.replace(moving, gateways[0], devices[0]);
    routes.flush();
  }
};

/// The next of some hundred neighbours gets the next of some MAC addresses.
class neighbour_churn {
 public:
  explicit neighbour_churn(const world& w) : device_(w.devices[0]) {}
  void operator()() {
    netlink::neighbour changed;
    changed.index = device_;
    changed.destination = ip_address::v4(0x0a4d0164 + count_ % 100);  // 10.77.1.100 and on
    changed.state = NUD_REACHABLE;
    changed.link_address = {2, 0, 0, 0, 1, static_cast<std::uint8_t>(count_++ / 100)};
    writer_.write(changed);
    writer_.flush();
  }

 private:
  std::uint32_t device_;
  std::uint32_t count_ = 0;
  test::route_writer writer_;
};

/// By when each stage of some changes was over, in ns.
struct stages {
  std::vector<std::int64_t> asked, read, published, frame;
};

/// The next change of `moving` that was told: when it was read, and when it was published.
void add_told(const world& w, route_events& told, std::int64_t start, stages& to) {
  for (;;) {
    const route_change change = told.async_next(use_future).get();
    if (change.what != route_change::kind::route || change.destination != w.moving.to_string())
      continue;
    to.read.push_back(change.event_time_ns - start);
    to.published.push_back(change.publish_time_ns - start);
    return;
  }
}

/// `link` is the one in use, before and after; `told` hears of the changes, null = nobody does.
stages measure(world& w, stamped_sink (&sinks)[2], int& link, route_events* told) {
  const test::netns::scope inside(w.a);
  test::route_writer routes;
  stages times;
  for (int i = 0; i < changes_per_repetition; ++i) {
    std::this_thread::sleep_for(pause);
    link = 1 - link;
    for (auto& sink : sinks) sink.drain();
    const auto start = bench::now_ns(CLOCK_REALTIME);
    routes.replace(w.moving, w.gateways[link], w.devices[link]);
    routes.flush();
    times.asked.push_back(bench::now_ns(CLOCK_REALTIME) - start);
    const auto deadline = start + std::chrono::nanoseconds(give_up).count();
    std::optional<std::int64_t> first;
    while ((!first || *first < start) && bench::now_ns(CLOCK_REALTIME) < deadline)
      first = sinks[link].next(100);
    if (!first) {
      std::fprintf(stderr, "bench_path_change: no frame took the new path\n");
      std::exit(1);
    }
    times.frame.push_back(*first - start);
    if (told) add_told(w, *told, start, times);
  }
  return times;
}

void add_percentiles(const std::string& name, std::vector<std::int64_t> times,
                     std::vector<bench::result>& to) {
  if (times.empty()) return;
  std::ranges::sort(times);
  for (const auto& [which, share] : {std::pair{"p50", 0.5}, {"p99", 0.99}, {"max", 1.0}})
    to.push_back({name + "/" + which, bench::percentile(times, share)});
}

void run_contestant(const std::string& name, world& w, stamped_sink (&sinks)[2], int& link,
                    route_events* told, std::vector<bench::result>& into) {
  for (int i = 0; i < repetitions; ++i) {
    const stages times = measure(w, sinks, link, told);
    add_percentiles(name, times.frame, into);
    add_percentiles(name + "_asked", times.asked, into);
    add_percentiles(name + "_read", times.read, into);
    add_percentiles(name + "_published", times.published, into);
  }
}

/// The notification that the first link is down.
route_change await_farewell(route_events& told) {
  for (;;) {
    route_change change = told.async_next(use_future).get();
    if (change.what == route_change::kind::link && change.device == "a0") return change;
  }
}

/// Nothing can follow: the first link's routes are gone then.
void take_link_down(world& w, stamped_sink (&sinks)[2], std::vector<bench::result>& into) {
  test::route_writer routes;
  routes.replace(w.moving, w.gateways[0], w.devices[0]);
  routes.flush();
  w.a("ip route add " + w.moving.to_string() + " via " + w.gateways[1].to_string() + " metric 100");
  transmitter tx({.interfaces = {"a0", "a1"}, .frames_per_producer = 16384, .max_producers = 1});
  auto out = tx.make_sender();
  route_events told = tx.watch_routes();
  route_change farewell;
  for (auto& sink : sinks) sink.drain();
  {
    const repeated traffic(datagram_period, [&] {
      const std::int64_t now = bench::now_ns(CLOCK_REALTIME);
      static_cast<void>(out.try_send(std::as_bytes(std::span(&now, 1)), w.destination));
    });
    std::this_thread::sleep_for(100ms);
    w.a("ip link set a0 down");
    farewell = await_farewell(told);
  }
  std::vector<std::int64_t> waits;
  while (const auto arrived = sinks[1].next(1000))
    if (const auto submitted = sinks[1].submitted();
        submitted > farewell.event_time_ns && submitted < farewell.publish_time_ns)
      waits.push_back(*arrived - submitted);
  add_percentiles("link_down_diverted/cowire", waits, into);
  into.push_back({"link_down_diverted/cowire_published",
                  static_cast<double>(farewell.publish_time_ns - farewell.event_time_ns)});
  std::fprintf(stderr, "link_down_diverted: %zu datagrams\n", waits.size());
}

std::vector<bench::result> run_all(std::size_t route_count) {
  world w(route_count);
  stamped_sink sinks[2] = {{w.b, "b0"}, {w.b, "b1"}};
  std::vector<bench::result> results;
  int link = 0;
  const test::netns::scope inside(w.a);
  neighbour_churn churn(w);
  const repeated churning(neighbour_change_period, std::ref(churn));
  const char byte = 'x';
  const auto payload = std::as_bytes(std::span(&byte, 1));
  for (const auto& [group, redump_period] :
       {std::pair{"path_change", 0ms}, {"path_change_in_redump", 1ms}}) {
    transmitter tx({.interfaces = {"a0", "a1"},
                    .frames_per_producer = 1024,
                    .max_producers = 1,
                    .update_interval = redump_period});
    auto out = tx.make_sender();
    const repeated traffic(datagram_period,
                           [&] { static_cast<void>(out.try_send(payload, w.destination)); });
    route_events told = tx.watch_routes();
    run_contestant(std::string(group) + "/cowire", w, sinks, link, &told, results);
  }
  {
    const bench::kernel_sender plain(w.destination);
    const repeated traffic(datagram_period, [&] { static_cast<void>(plain.send(payload)); });
    run_contestant("path_change/sendto", w, sinks, link, nullptr, results);
  }
  take_link_down(w, sinks, results);
  return results;
}

}  // namespace
}  // namespace cowire

int main(int argc, char** argv) {
  bool json = false;
  std::size_t routes = 1'200'000;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    json |= word == "--benchmark_format=json";
    if (word.starts_with("--routes=")) routes = std::strtoull(argv[i] + 9, nullptr, 10);
  }
  if (::geteuid() != 0) {
    std::fprintf(stderr, "bench_path_change: needs root to make network namespaces\n");
    return 1;
  }
  const auto results = cowire::run_all(routes);
  if (json) {
    cowire::bench::print_json("bench_path_change", results);
    return 0;
  }
  std::printf("%zu routes, from the request to the first frame on the new path:\n", routes);
  cowire::bench::print_lines(results);
  return 0;
}

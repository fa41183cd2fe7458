// SPDX-License-Identifier: Apache-2.0
/// What watched destinations cost the control thread (async/path_events.hpp): its CPU time for each
/// of them at a publication that does not concern them, and at one that changes the way to all.
///
/// In private network namespaces, over veth. A route is changed, its publication waited for, and so
/// on; the CPU time with no watched destination is taken off. Prints nanoseconds a watched
/// destination. Needs root.
#include <cowire/async/transmitter.hpp>

#include <net/if.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "testbed/eventually.hpp"
#include "testbed/netns.hpp"
#include "testbed/route_writer.hpp"

namespace cowire {
namespace {

/// Of the control thread, as the scheduler counts it.
std::uint64_t control_cpu_ns() {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);
    if (name != "cowire-control") continue;
    std::uint64_t ns = 0;
    std::ifstream(task.path() / "schedstat") >> ns;
    return ns;
  }
  throw std::runtime_error("no control thread");
}

struct world {
  world() {
    test::connect(a, "a0", b, "b0", 1);
    test::connect(a, "a1", b, "b1", 2);
    for (const char* link : {"0", "1"}) {
      const std::string number = *link == '0' ? "1" : "2";
      std::string mac = b(std::string("cat /sys/class/net/b") + link + "/address");
      mac.resize(mac.find('\n'));
      a("ip neigh replace 10.77." + number + ".2 dev a" + link + " nud permanent lladdr " + mac);
    }
    a("ip route add 10.78.0.0/16 via 10.77.1.2");
  }
  test::netns a, b;
};

/// CPU time of the control thread for one change of `prefix`, which leads over both links in turn.
double measure(transmitter& tx, const ip_prefix& prefix, int changes) {
  test::route_writer routes;
  const std::uint32_t links[] = {::if_nametoindex("a0"), ::if_nametoindex("a1")};
  const ip_address gateways[] = {*ip_address::parse("10.77.1.2"), *ip_address::parse("10.77.2.2")};
  const auto before = control_cpu_ns();
  for (int i = 0; i < changes; ++i) {
    const auto seen = tx.stats().routes.publications;
    routes.replace(prefix, gateways[(i + 1) % 2], links[(i + 1) % 2]);
    routes.flush();
    if (!test::eventually([&] { return tx.stats().routes.publications > seen; }))
      throw std::runtime_error("a change was not published");
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // What follows a publication.
  return static_cast<double>(control_cpu_ns() - before) / changes;
}

void run() {
  world w;
  const test::netns::scope inside(w.a);
  transmitter tx({.frames_per_producer = 1024, .max_producers = 1, .update_interval = {}});
  auto s = tx.make_sender();
  const ip_prefix other(*ip_address::parse("10.79.0.0"), 24);
  const ip_prefix all(*ip_address::parse("10.78.0.0"), 16);
  constexpr int unconcerned = 1000, concerned = 40;
  const double bare_other = measure(tx, other, unconcerned), bare_all = measure(tx, all, concerned);
  std::printf("none watched: %.0f ns of the control thread a publication\n", bare_other);
  std::vector<path_events> ways;
  for (const unsigned count : {1000u, 10'000u}) {
    for (unsigned i = static_cast<unsigned>(ways.size()); i < count; ++i)
      ways.push_back(s.watch_path({ip_address::v4(0x0a4e0000 + i + 1), 9000}));
    static_cast<void>(measure(tx, other, 10));  // They are all known then.
    const double idle = measure(tx, other, unconcerned) - bare_other;
    const double told = measure(tx, all, concerned) - bare_all;
    std::printf("%6u watched: %.0f ns each where it is not concerned, %.0f where it is told\n",
                count, idle / count, told / count);
  }
}

}  // namespace
}  // namespace cowire

int main() try {
  if (::geteuid() != 0) {
    std::fprintf(stderr, "bench_path_watch: needs root to make network namespaces\n");
    return 1;
  }
  cowire::run();
  return 0;
} catch (const std::exception& failed) {
  return std::fprintf(stderr, "bench_path_watch: %s\n", failed.what()), 1;
}

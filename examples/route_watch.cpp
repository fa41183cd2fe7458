// SPDX-License-Identifier: Apache-2.0
// Prints the kernel's routing changes as they happen: route_watch [COUNT]
// Or what serves one destination, now and after each change: route_watch to IP:PORT [COUNT]
#include <cowire/cowire.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

using namespace cowire;

static awaitable<void> print(route_events changes, int count) {
  for (int i = 0; count == 0 || i < count; ++i) {
    const auto change = co_await changes.async_next(use_awaitable);
    std::printf("%s%s %s via %s dev %s table %s %s (version %ju, after %.1f us)\n",
                change.removed ? "deleted " : "", name(change.what).data(),
                change.destination.c_str(), change.gateway.c_str(), change.device.c_str(),
                change.table.c_str(), change.detail.c_str(), change.version,
                static_cast<double>(change.publish_time_ns - change.event_time_ns) / 1000.0);
    std::fflush(stdout);
  }
}

static awaitable<void> print(path_events ways, int count) {
  for (int i = 0; count == 0 || i < count; ++i) {
    const path_state now = co_await ways.async_next(use_awaitable);
    std::printf("%s\n", to_string(now).c_str());
    std::fflush(stdout);
  }
}

template <class Events>
static void run(Events events, int count) {
  ring_context application;
  co_spawn(application, print(std::move(events), count), [](std::exception_ptr error) {
    if (error) std::rethrow_exception(error);
  });
  application.run();
}

static void watch_path(const char* destination, int count) {
  const auto to = endpoint::parse(destination);
  if (!to) throw std::runtime_error(std::string(destination) + " is no IP:PORT");
  transmitter tx;  // Its sockets decide, too.
  sender s = tx.make_sender();
  run(s.watch_path(*to), count);
}

static void watch_routes(int count) {
  route_watcher kernel;
  std::printf("watching %zu routes\n", kernel.stats().routes);
  std::fflush(stdout);
  run(kernel.watch(), count);
}

int main(int argc, char** argv) try {
  const auto count_at = [&](int i) { return argc > i ? std::atoi(argv[i]) : 0; };
  if (argc > 2 && std::strcmp(argv[1], "to") == 0)
    watch_path(argv[2], count_at(3));
  else
    watch_routes(count_at(1));
  return 0;
} catch (const std::exception& e) {
  return std::fprintf(stderr, "route_watch: %s\n", e.what()), 1;
}

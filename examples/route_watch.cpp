// SPDX-License-Identifier: Apache-2.0
// Prints the kernel's routing changes as they happen: route_watch [COUNT]
#include <cowire/follow/route_events.hpp>

#include <cstdio>
#include <cstdlib>

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

int main(int argc, char** argv) try {
  route_watcher kernel;
  ring_context application;
  co_spawn(application, print(kernel.watch(), argc > 1 ? std::atoi(argv[1]) : 0),
           [](std::exception_ptr error) {
             if (error) std::rethrow_exception(error);
           });
  std::printf("watching %zu routes\n", kernel.stats().routes);
  std::fflush(stdout);
  application.run();
  return 0;
} catch (const std::exception& e) {
  return std::fprintf(stderr, "route_watch: %s\n", e.what()), 1;
}

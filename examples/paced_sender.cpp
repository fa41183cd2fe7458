// SPDX-License-Identifier: Apache-2.0
// Sends numbered datagrams to all addresses at a rate, until SIGINT or SIGTERM, says what the
// kernel and the network say about them, and at the end what became of them all:
// paced_sender PER_SECOND ADDRESS:PORT...
#include <cowire/cowire.hpp>

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>
#include <asio/steady_timer.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

using namespace cowire;

struct job {
  std::vector<endpoint> destinations;
  std::chrono::nanoseconds period{};
  bool stopping = false;
};

// Each payload is written once, into a frame. Who is late is not waited for: the oldest give way.
static awaitable<void> stream(sender& s, const job& todo) {
  asio::steady_timer pace(co_await asio::this_coro::executor,
                          asio::steady_timer::clock_type::now());
  for (std::uint64_t number = 0; !todo.stopping; ++number) {
    payload p = co_await s.async_acquire(use_awaitable);
    std::memcpy(p.bytes().data(), &number, sizeof number);
    p.resize(sizeof number);
    co_await s.async_send(std::move(p), todo.destinations, use_awaitable);
    pace.expires_at(pace.expiry() + todo.period);
    co_await pace.async_wait(use_awaitable);
  }
  co_await s.async_flush(use_awaitable);  // Everything left the host, or was counted.
  s = sender();                           // Ends tell_errors().
}

static awaitable<void> tell_errors(sender& s) {
  for (;;) {
    const auto [ended, said] = co_await s.async_next_error(as_tuple(use_awaitable));
    if (ended) co_return;
    std::fprintf(stderr, "%s: %s (%s)\n", said.destination.to_string().c_str(),
                 said.code.message().c_str(),
                 said.from == send_error::origin::network ? "the network" : "this host");
  }
}

static void tell_totals(const transmitter_stats& stats) {
  std::printf("submitted %ju, transmitted %ju, kernel path %ju, shed %ju, on the way %ju\n",
              stats.submitted, stats.transmitted_total(), stats.kernel_path, stats.shed,
              stats.on_the_way());
  for (const auto& [reason, count] : stats.diverted)
    std::printf("diverted, %s: %ju\n", reason.c_str(), count);
  for (const auto& [number, count] : stats.refused)
    std::printf("refused, %s: %ju\n", number.c_str(), count);
}

int main(int argc, char** argv) try {
  job todo;
  const double per_second = argc > 1 ? std::atof(argv[1]) : 0;
  for (int i = 2; i < argc; ++i)
    if (const auto destination = endpoint::parse(argv[i]))
      todo.destinations.push_back(*destination);
  if (!(per_second > 0) || todo.destinations.size() + 2 != static_cast<std::size_t>(argc))
    return std::fprintf(stderr, "usage: paced_sender PER_SECOND ADDRESS:PORT...\n"), 2;
  todo.period = std::chrono::nanoseconds(static_cast<std::int64_t>(1e9 / per_second));

  transmitter tx({.log = [](log_severity severity, std::string_view line) {
    if (severity >= log_severity::warning)
      std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
  }});
  sender s = tx.make_sender({.when_full = full_policy::shed_oldest});
  asio::io_context io(1);
  asio::signal_set signals(io, SIGINT, SIGTERM);
  signals.async_wait([&](std::error_code, int) { todo.stopping = true; });
  const auto out_of_run = [](std::exception_ptr failed) {
    if (failed) std::rethrow_exception(failed);
  };
  co_spawn(io, stream(s, todo), out_of_run);
  co_spawn(io, tell_errors(s), out_of_run);
  io.run();
  tell_totals(tx.stats());
  return 0;
} catch (const std::exception& failed) {
  return std::fprintf(stderr, "paced_sender: %s\n", failed.what()), 1;
}

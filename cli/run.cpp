// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/intake.hpp>
#include <cowire/cli/parse.hpp>
#include <cowire/cli/privilege.hpp>
#include <cowire/cli/report.hpp>
#include <cowire/cli/send.hpp>

#include <csignal>
#include <ctime>
#include <iostream>

namespace cowire::cli {
namespace {

using clock = std::chrono::steady_clock;

// SIGINT and SIGTERM, blocked in this thread and those that it makes later.
sigset_t block_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGINT);
  ::sigaddset(&set, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return set;
}

json intake_json(const intake_stats& stats) {
  return {{"clients", stats.clients},
          {"messages", stats.totals.messages},
          {"submitted", stats.totals.submitted},
          {"failed", stats.totals.failed},
          {"refused", stats.totals.refused},
          {"replies_lost", stats.replies_lost}};
}

// Returns when a signal came or the time is over.
void serve(const transmitter& tx, const sigset_t& signals, clock::time_point start,
           std::optional<double> duration_s) {
  progress_line progress;
  const timespec tick{0, 200'000'000};
  for (;;) {
    if (::sigtimedwait(&signals, nullptr, &tick) > 0) return;
    const double elapsed_s = std::chrono::duration<double>(clock::now() - start).count();
    if (duration_s && elapsed_s >= *duration_s) return;
    if (progress.wanted()) progress.show(tx.stats(), elapsed_s);
  }
}

}  // namespace

int run_service(const run_arguments& arguments) {
  if (arguments.intake.empty()) throw usage_error("run: nothing to serve; give --intake PATH");
  const auto plan = make_plan(arguments);
  require_privilege(plan);
  const auto signals = block_signals();
  transmitter tx(plan.config);
  std::optional<intake> served(std::in_place, tx, arguments.intake,
                               intake_options{.sender = plan.sender});
  const auto start = clock::now();
  serve(tx, signals, start, plan.duration_s);
  const auto intake_totals = served->stats();
  served.reset();
  ::pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);  // A second signal ends a drain that hangs.
  const auto stats = stop_and_count(tx);
  const double elapsed_s = std::chrono::duration<double>(clock::now() - start).count();
  if (arguments.json) {
    auto out = summary_json(stats, elapsed_s);
    out["intake"] = intake_json(intake_totals);
    std::cout << out.dump() << std::endl;
  } else {
    std::cout << summary_text(stats, elapsed_s) << "intake         "
              << intake_totals.totals.messages << " messages of " << intake_totals.clients
              << " clients, " << intake_totals.totals.refused << " refused, "
              << intake_totals.totals.failed << " datagrams not submitted\n"
              << std::flush;
  }
  return totals_add_up(stats) ? 0 : 1;
}

}  // namespace cowire::cli

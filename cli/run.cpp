// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/intake.hpp>
#include <cowire/cli/json_text.hpp>
#include <cowire/cli/parse.hpp>
#include <cowire/cli/privilege.hpp>
#include <cowire/cli/report.hpp>
#include <cowire/cli/send.hpp>
#include <cowire/cli/signals.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <ctime>
#include <iostream>
#include <span>

namespace cowire::cli {
namespace {

using clock = std::chrono::steady_clock;

sigset_t set_of(std::span<const int> numbers) {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : numbers) ::sigaddset(&set, number);
  return set;
}

// Each source port in use takes two descriptors; the usual soft limit is 1024.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  static_cast<void>(::setrlimit(RLIMIT_NOFILE, &limit));
}

json intake_json(const intake_stats& stats) {
  return {{"clients", stats.clients},
          {"messages", stats.totals.messages},
          {"submitted", stats.totals.submitted},
          {"failed", stats.totals.failed},
          {"refused", stats.totals.refused},
          {"kernel_refused", stats.totals.kernel_refused},
          {"ports", stats.ports},
          {"replies_lost", stats.replies_lost}};
}

// Returns when one of the signals came that end it, or the time is over. `signals` are blocked.
void serve(const transmitter& tx, const sigset_t& signals, clock::time_point start,
           std::optional<double> duration_s) {
  progress_line progress;
  const timespec tick{0, 200'000'000};
  for (;;) {
    const int number = ::sigtimedwait(&signals, nullptr, &tick);
    const double elapsed_s = std::chrono::duration<double>(clock::now() - start).count();
    if (std::ranges::find(report_signals, number) != report_signals.end()) {
      progress.clear();
      std::cerr << summary_text(tx.stats(), elapsed_s) << std::flush;
    } else if (number > 0) {
      return;
    }
    if (duration_s && elapsed_s >= *duration_s) return;
    if (progress.wanted()) progress.show(tx.stats(), elapsed_s);
  }
}

}  // namespace

int run_service(const run_arguments& arguments) {
  if (arguments.intake.empty()) throw usage_error("run: nothing to serve; give --intake PATH");
  const auto plan = make_plan(arguments);
  require_privilege(plan);
  raise_descriptor_limit();
  auto numbers = ending_signals();
  const sigset_t ending = set_of(numbers);
  numbers.insert(numbers.end(), report_signals.begin(), report_signals.end());
  const sigset_t signals = set_of(numbers);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // In threads that are made later, too.
  transmitter tx(plan.config);
  // Without an interface it waits for one, as a service may start before the network does.
  if (const auto interfaces = tx.stats().interfaces; !interfaces.empty())
    require_mode(plan, interfaces);
  std::optional<intake> served(std::in_place, tx, arguments.intake,
                               intake_options{.sender = plan.sender, .group = plan.intake_group});
  const auto start = clock::now();
  serve(tx, signals, start, plan.duration_s);
  const auto intake_totals = served->stats();
  served.reset();
  ::pthread_sigmask(SIG_UNBLOCK, &ending, nullptr);  // A second signal ends a drain that hangs.
  const auto stats = stop_and_count(tx);
  const double elapsed_s = std::chrono::duration<double>(clock::now() - start).count();
  if (arguments.json) {
    auto out = summary_json(stats, elapsed_s);
    out["intake"] = intake_json(intake_totals);
    std::cout << json_line(out) << std::endl;
  } else {
    std::cout << summary_text(stats, elapsed_s) << "intake         "
              << intake_totals.totals.messages << " messages of " << intake_totals.clients
              << " clients, " << intake_totals.totals.refused << " refused, "
              << intake_totals.totals.failed << " datagrams not submitted\n"
              << std::flush;
  }
  return status_of(stats);
}

}  // namespace cowire::cli

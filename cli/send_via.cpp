// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/intake.hpp>
#include <cowire/cli/json_text.hpp>
#include <cowire/cli/pacer.hpp>
#include <cowire/cli/payload_source.hpp>
#include <cowire/cli/report.hpp>
#include <cowire/cli/send_via.hpp>
#include <cowire/cli/signals.hpp>

#include <algorithm>
#include <csignal>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>

namespace cowire::cli {
namespace {

using clock = pacer::clock;

constexpr std::chrono::seconds flush_timeout{10};

volatile std::sig_atomic_t interrupted = 0, report_wanted = 0;

// Without SA_RESTART for those that end: a send that waits for the server must end.
void catch_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = 1; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // The second signal ends the process.
  for (const int number : ending_signals()) ::sigaction(number, &action, nullptr);
  action.sa_handler = [](int) { report_wanted = 1; };
  action.sa_flags = SA_RESTART;
  for (const int number : report_signals) ::sigaction(number, &action, nullptr);
}

// Sleeps in slices: a signal may be delivered just before a sleep begins.
void sleep_until(clock::time_point moment) {
  constexpr std::chrono::milliseconds slice{50};
  for (auto now = clock::now(); now < moment && !interrupted; now = clock::now())
    std::this_thread::sleep_for(std::min<clock::duration>(moment - now, slice));
}

std::string text_of(const intake_totals& totals, const send_plan& plan, clock::time_point start) {
  std::ostringstream out;
  out << "submitted      " << totals.submitted << " through " << plan.via << " in "
      << std::chrono::duration<double>(clock::now() - start).count() << " s\n"
      << "failed         " << totals.failed << "\nrefused        " << totals.refused
      << " messages\nkernel refused " << totals.kernel_refused << '\n';
  return out.str();
}

// The totals are the server's, and known with its answer only.
void report(intake_client& client, const send_plan& plan, clock::time_point start) {
  report_wanted = 0;
  std::error_code ec;
  const auto totals = client.flush(flush_timeout, ec);
  std::cerr << (ec ? "--via " + plan.via + ": no totals: " + ec.message() + "\n"
                   : text_of(totals, plan, start))
            << std::flush;
}

struct handed_over {
  std::uint64_t datagrams = 0;
  std::error_code ended_by{};  ///< Before its time; not by a signal.
};

handed_over send_all(intake_client& client, const send_plan& plan, payload_source& source) {
  handed_over out;
  const auto start = clock::now();
  std::optional<pacer> pace;
  if (plan.rate_pps) pace.emplace(*plan.rate_pps, start);
  const auto end = plan.transmit.duration_s
                       ? start + std::chrono::duration_cast<clock::duration>(
                                     std::chrono::duration<double>(*plan.transmit.duration_s))
                       : clock::time_point::max();
  std::span<const endpoint> left;  // Where the present payload is still to go.
  while (!interrupted && !(left.empty() && plan.count && source.produced() == *plan.count)) {
    if (report_wanted) report(client, plan, start);
    const auto now = clock::now();
    if (now >= end) break;
    const std::uint64_t due = pace ? pace->due(now) : plan.to.size();
    if (due == 0) {
      sleep_until(std::min(pace->next(now), end));
      continue;
    }
    const bool another = left.empty();
    if (another) left = plan.to;
    const auto to = left.first(std::min<std::uint64_t>(due, left.size()));
    left = left.subspan(to.size());
    std::error_code ec;
    client.send(another ? source.next() : source.again(), to, plan.transmit.sender.source_port, ec);
    if (ec == std::errc::interrupted) break;
    if (ec && out.datagrams == 0) throw_error(ec, "--via " + plan.via);
    if ((out.ended_by = ec)) break;
    out.datagrams += to.size();
    if (pace) pace->sent(to.size());
  }
  return out;
}

/// The totals are the service's, which did not tell them.
int end_without_totals(const send_plan& plan, bool as_json, const handed_over& out,
                       const std::string& why, double elapsed_s) {
  std::cerr << "cowire: --via " << plan.via << ": " << why << '\n';
  if (as_json) {
    const json summary{{"via", plan.via}, {"handed_over", out.datagrams}, {"elapsed_s", elapsed_s}};
    std::cout << json_line(summary) << std::endl;
  } else {
    std::cout << "handed over    " << out.datagrams << " to " << plan.via << " in " << elapsed_s
              << " s; what became of them it did not say\n"
              << std::flush;
  }
  return 1;
}

int status_of(const intake_totals& totals) {
  if (totals.failed != 0 || totals.refused != 0) return 1;
  if (totals.submitted == 0 || totals.kernel_refused != totals.submitted) return 0;
  std::cerr << "cowire: none of " << totals.submitted
            << " datagrams left this host: the kernel refused them all; 'cowire route get' tells"
               " about one destination\n";
  return 1;
}

}  // namespace

int send_via(const send_plan& plan, bool as_json) {
  payload_source source(plan.payload);
  intake_client client(plan.via);
  catch_signals();
  const auto start = clock::now();
  const auto handed = send_all(client, plan, source);
  std::error_code ec = handed.ended_by;
  std::string why = ec.message();
  intake_totals totals;
  if (!ec) {
    totals = client.flush(flush_timeout, ec);
    why = "flush: " + ec.message();
  }
  const double elapsed_s = std::chrono::duration<double>(clock::now() - start).count();
  if (ec) return end_without_totals(plan, as_json, handed, why, elapsed_s);
  if (as_json) {
    const json out{{"via", plan.via},
                   {"messages", totals.messages},
                   {"submitted", totals.submitted},
                   {"failed", totals.failed},
                   {"refused", totals.refused},
                   {"kernel_refused", totals.kernel_refused},
                   {"elapsed_s", elapsed_s}};
    std::cout << json_line(out) << std::endl;
  } else {
    std::cout << text_of(totals, plan, start) << std::flush;
  }
  return status_of(totals);
}

}  // namespace cowire::cli

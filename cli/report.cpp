// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/report.hpp>

#include <cowire/base/reason.hpp>
#include <cowire/cli/output.hpp>

#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <sstream>
#include <utility>

namespace cowire::cli {
namespace {

std::string_view reason_text(std::string_view reason) {
  for (std::size_t i = 0; i < divert_reason_count; ++i)
    if (reason == name(static_cast<divert_reason>(i)))
      return describe(static_cast<divert_reason>(i));
  return "";
}

/// What the comparisons with the kernel came to: of flows in use, and of everything by re-dumps.
json audit_json(const route_stats& routes) {
  const truth_audit_stats& truth = routes.truth;
  return {{"audited", truth.audited},
          {"mismatched", truth.mismatched},
          {"quarantined", truth.quarantined},
          {"repaired", truth.repaired},
          {"last_mismatch", truth.last_mismatch},
          {"resyncs", routes.resyncs},
          {"dumps", routes.redump_checks},
          {"dump_differences", routes.redump_differences},
          {"settling_questions", routes.settling_questions}};
}

json tracking_json(const tracking_stats& tracking) {
  return {{"flows", tracking.flows},
          {"fast", tracking.fast},
          {"capacity", tracking.capacity},
          {"asked", tracking.asked},
          {"checked", tracking.checked},
          {"refreshed", tracking.refreshed},
          {"begun_anew", tracking.begun_anew},
          {"refused", tracking.refused},
          {"without_room", tracking.without_room}};
}

}  // namespace

transmitter_stats stop_and_count(transmitter& tx) {
  auto before = tx.stats();
  tx.stop();
  auto stats = tx.stats();
  stats.interfaces = std::move(before.interfaces);
  stats.cores_in_use = before.cores_in_use;
  stats.cores_reason = std::move(before.cores_reason);
  return stats;
}

json summary_json(const transmitter_stats& stats, double elapsed_s) {
  json out;
  out["submitted"] = stats.submitted;
  out["transmitted"] = stats.transmitted;
  out["kernel_path"] = stats.kernel_path;
  out["refused"] = stats.refused;
  out["diverted"] = stats.diverted;
  out["lost_in_device"] = stats.lost_in_device;
  out["shed"] = stats.shed;
  out["mode"] = json::object();
  for (const auto& interface : stats.interfaces)
    out["mode"][interface.name] = {{"mode", name(interface.mode)},
                                   {"reason", interface.reason},
                                   {"refused_options", interface.refused_options}};
  out["cores"] = json::array();
  for (const core_stats& core : stats.cores)
    out["cores"].push_back({{"taken", core.taken},
                            {"transmitted", core.transmitted},
                            {"diverted", core.diverted},
                            {"lost_in_device", core.lost_in_device},
                            {"flow_hits", core.flow_hits},
                            {"flow_misses", core.flow_misses},
                            {"flow_pauses", core.flow_pauses}});
  out["cores_in_use"] = stats.cores_in_use;
  out["cores_reason"] = stats.cores_reason;
  out["errors_from_network"] = stats.errors_from_network;
  out["audit"] = audit_json(stats.routes);
  out["tracking"] = tracking_json(stats.tracking);
  out["output_ignored"] = stats.output_ignored;
  out["table"] = {{"routes", stats.routes.routes},
                  {"path_lists", stats.routes.path_lists},
                  {"hops", stats.routes.hops},
                  {"bytes_live", stats.routes.table_bytes},
                  {"bytes_waiting", stats.routes.waiting_bytes}};
  out["elapsed_s"] = elapsed_s;
  return out;
}

std::string summary_text(const transmitter_stats& stats, double elapsed_s) {
  std::ostringstream out;
  out.precision(3);
  out << std::fixed;
  const double rate = elapsed_s > 0 ? static_cast<double>(stats.submitted) / elapsed_s : 0;
  out << "submitted      " << stats.submitted << " in " << elapsed_s << " s ("
      << static_cast<std::uint64_t>(rate) << "/s)\n";
  for (const auto& [interface, count] : stats.transmitted)
    out << "transmitted    " << count << " by " << interface << '\n';
  out << "kernel path    " << stats.kernel_path << '\n';
  for (const auto& [reason, count] : stats.refused)
    out << "refused        " << count << " with " << reason << '\n';
  for (const auto& [reason, count] : stats.diverted)
    out << "diverted       " << count << " " << reason << ": " << reason_text(reason) << '\n';
  if (stats.lost_in_device != 0)
    out << "lost           " << stats.lost_in_device
        << " dropped by a device, or in its rings when it went away\n";
  if (stats.shed != 0) out << "shed           " << stats.shed << " for newer ones\n";
  if (stats.errors_from_network != 0) out << "network errors " << stats.errors_from_network << '\n';
  const truth_audit_stats& truth = stats.routes.truth;
  if (truth.mismatched != 0)
    out << "audit          " << truth.mismatched << " of " << truth.audited
        << " flows not as the kernel sends them, the last: " << truth.last_mismatch << '\n';
  if (const tracking_stats& tracking = stats.tracking; tracking.asked != 0)
    out << "tracked        " << tracking.fast << " of " << tracking.flows << " flows fast, "
        << tracking.refreshed << " timers set, " << tracking.begun_anew << " begun anew\n";
  for (const auto& layer : stats.output_ignored)
    out << "ignored        " << layer << " of the kernel's output path\n";
  for (const auto& interface : stats.interfaces) {
    out << "mode           " << interface.name << ": " << name(interface.mode);
    if (!interface.reason.empty()) out << " (" << interface.reason << ')';
    out << '\n';
    for (const auto& refusal : interface.refused_options)
      out << "without        " << interface.name << ": " << refusal << '\n';
  }
  if (!stats.cores_reason.empty())
    out << "cores          " << stats.cores_in_use << " of " << stats.cores.size() << " used ("
        << stats.cores_reason << ")\n";
  return out.str();
}

bool totals_add_up(const transmitter_stats& stats) {
  const auto accounted = stats.accounted();
  if (accounted == stats.submitted) return true;
  std::cerr << "cowire: totals do not add up: " << stats.submitted << " submitted, " << accounted
            << " accounted for; the rest was still on its way when the drain deadline passed\n";
  return false;
}

int status_of(const transmitter_stats& stats, std::uint64_t would_block) {
  if (!totals_add_up(stats)) return 1;
  const auto wanted = stats.submitted + would_block;
  if (wanted == 0 || stats.transmitted_total() + stats.kernel_path != 0) return 0;
  std::cerr << "cowire: none of " << wanted << " datagrams left this host:";
  for (const auto& [reason, count] : stats.refused)
    std::cerr << ' ' << count << " refused with " << reason << ';';
  if (stats.lost_in_device != 0) std::cerr << ' ' << stats.lost_in_device << " lost in devices;";
  if (stats.shed != 0) std::cerr << ' ' << stats.shed << " shed;";
  if (would_block != 0) std::cerr << ' ' << would_block << " without a free frame;";
  std::cerr << " 'cowire route get' tells about one destination\n";
  return 1;
}

progress_line::progress_line() : terminal_(::isatty(STDERR_FILENO) == 1) {}

void progress_line::clear() {
  if (std::exchange(shown_, false)) std::fputs("\r\033[K", stderr);
}

void progress_line::show(const transmitter_stats& stats, double elapsed_s) {
  if (!terminal_) return;
  const double interval_s = elapsed_s - last_elapsed_s_;
  const double rate =
      interval_s > 0 ? static_cast<double>(stats.submitted - last_submitted_) / interval_s : 0;
  std::ostringstream out;
  out << "\r" << static_cast<std::uint64_t>(elapsed_s) << " s  submitted " << stats.submitted
      << " (" << static_cast<std::uint64_t>(rate) << "/s)";
  for (const auto& [interface, count] : stats.transmitted)
    out << "  " << terminal_safe(interface) << " " << count;
  out << "  kernel " << stats.kernel_path << "  refused " << stats.refused_total() << "\033[K";
  std::fputs(out.str().c_str(), stderr);
  shown_ = true;
  last_submitted_ = stats.submitted;
  last_elapsed_s_ = elapsed_s;
}

}  // namespace cowire::cli

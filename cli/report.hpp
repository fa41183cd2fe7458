// SPDX-License-Identifier: Apache-2.0
/// What `cowire send` and `cowire run` say about their work: the summary at the end, as text or as
/// one JSON object, and the progress line meanwhile. The JSON keys are a contract with scripts.
#pragma once

#include <cowire/async/transmitter.hpp>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>

namespace cowire::cli {

/// Keeps keys in the order in which they were set.
using json = nlohmann::ordered_json;

/// Drains and stops. The counters are final; modes and cores in use are those until then.
[[nodiscard]] transmitter_stats stop_and_count(transmitter& tx);

/// submitted, transmitted {interface: n}, kernel_path, refused {reason: n}, diverted {reason: n},
/// lost_in_device, shed, mode {interface: {mode, reason}}, cores [{taken, transmitted, diverted,
/// lost_in_device, flow_hits, flow_misses, flow_pauses}], cores_in_use, cores_reason,
/// errors_from_network, audit {audited, mismatched, quarantined, repaired, last_mismatch, resyncs,
/// dumps, dump_differences}, output_ignored [layer], table {routes, path_lists, hops, bytes_live,
/// bytes_waiting}, elapsed_s.
[[nodiscard]] json summary_json(const transmitter_stats& stats, double elapsed_s);

/// The same for people, several lines.
[[nodiscard]] std::string summary_text(const transmitter_stats& stats, double elapsed_s);

/// Whether submitted == transmitted + kernel_path + refused + lost_in_device + shed; says so on
/// standard error if not.
[[nodiscard]] bool totals_add_up(const transmitter_stats& stats);

/// The exit status after sending: 1, with the reason on standard error, where the totals do not add
/// up or where nothing of all that was to be sent left this host; otherwise 0. `would_block` counts
/// datagrams that were never submitted.
[[nodiscard]] int status_of(const transmitter_stats& stats, std::uint64_t would_block = 0);

/// Rewrites one line on standard error if that is a terminal, otherwise does nothing.
class progress_line {
 public:
  progress_line();
  ~progress_line() { clear(); }
  progress_line(const progress_line&) = delete;
  progress_line& operator=(const progress_line&) = delete;

  [[nodiscard]] bool wanted() const noexcept { return terminal_; }
  void show(const transmitter_stats& stats, double elapsed_s);
  /// Leaves the terminal at the start of an empty line.
  void clear();

 private:
  bool terminal_;
  bool shown_ = false;
  std::uint64_t last_submitted_ = 0;
  double last_elapsed_s_ = 0;
};

}  // namespace cowire::cli

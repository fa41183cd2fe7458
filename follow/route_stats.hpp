// SPDX-License-Identifier: Apache-2.0
/// What following the kernel's routes has counted. Plain values; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cowire {

/// Of the questions whether the kernel would send flows in use as the forwarding table does.
struct truth_audit_stats {
  std::uint64_t audited = 0;     ///< Flows that the kernel was asked about.
  std::uint64_t mismatched = 0;  ///< Of those, where it lastingly decides otherwise.
  std::size_t quarantined = 0;   ///< Prefixes left to the kernel for that reason now.
  std::uint64_t repaired = 0;    ///< Disagreements that are over.
  std::string last_mismatch;     ///< Both answers, for people; "" = none yet.
};

/// The follower's counters; all only rise, but `routes`, `hops` and the like, which are sizes.
struct route_stats {
  std::uint64_t messages = 0;           ///< Notifications and dump entries read.
  std::uint64_t malformed = 0;          ///< Messages that broke their format.
  std::uint64_t overruns = 0;           ///< The kernel dropped notifications.
  std::uint64_t resyncs = 0;            ///< Whole re-dumps, checks not included.
  std::uint64_t interrupted_dumps = 0;  ///< The kernel's state changed meanwhile: begun anew.
  /// Re-dumps every update interval, and after a truth audit's finding.
  std::uint64_t redump_checks = 0;
  std::uint64_t redump_differences = 0;  ///< Objects that no notification had told of.
  std::uint64_t publications = 0;        ///< Of forwarding tables.
  std::uint64_t version = 0;             ///< Of the published table.
  std::uint64_t neighbour_pokes = 0;     ///< STALE entries in use that were asked to be refreshed.
  /// Questions that settle what no message tells: how devices are ordered, whether rules count.
  std::uint64_t settling_questions = 0;
  std::size_t routes = 0, rules = 0, links = 0, neighbours = 0;  ///< Objects known now.
  std::size_t hops = 0, path_lists = 0, class_tables = 0;        ///< In the published table.
  std::size_t table_bytes = 0;                                   ///< Of the published table.
  std::size_t waiting_bytes = 0;    ///< Of older ones, until no reader can see them.
  std::int64_t last_delay_ns = 0;   ///< From reading the latest notification to its publication.
  std::int64_t worst_delay_ns = 0;  ///< The longest of them.
  truth_audit_stats truth;          ///< Of the truth audit.
};

}  // namespace cowire

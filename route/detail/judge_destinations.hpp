// SPDX-License-Identifier: Apache-2.0
/// judge_output() for all destinations of a region at once.
#pragma once

#include <cowire/route/detail/destination_verdicts.hpp>
#include <cowire/route/detail/output_sets.hpp>
#include <cowire/route/detail/output_walk.hpp>
#include <cowire/route/output_path.hpp>

#include <vector>

namespace cowire::detail {

/// The first obstacle for each destination, in the order of the kernel's own path. `sets` are those
/// of the snapshot's rules, `ports` as in output_walk.
[[nodiscard]] destination_verdicts judge_destinations(const output_snapshot& state,
                                                      output_sets& sets, const output_flow& region,
                                                      asked_ports* ports = nullptr);
/// Of these destinations of the region's only.
[[nodiscard]] destination_verdicts judge_some(const output_snapshot& state, output_sets& sets,
                                              const output_flow& region, const address_set& which,
                                              asked_ports* ports);

/// The answers for a range of destination ports.
struct port_verdicts {
  port_range ports;
  destination_verdicts answer;
};
/// For all destinations and all ports: ranges within which no rule tells ports apart. Where there
/// would be many, or a large ruleset would have to be walked often, ranges stay together, and what
/// touches some of their ports counts for all. In order; together they are all ports.
[[nodiscard]] std::vector<port_verdicts> judge_all_ports(const output_snapshot& state,
                                                         output_sets& sets,
                                                         const output_flow& region);

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// judge_output() for all destinations of a region at once.
#pragma once

#include <cowire/route/detail/destination_verdicts.hpp>
#include <cowire/route/detail/output_sets.hpp>
#include <cowire/route/output_path.hpp>

namespace cowire::detail {

/// The first obstacle for each destination, in the order of the kernel's own path. `sets` are those
/// of the snapshot's rules.
[[nodiscard]] destination_verdicts judge_destinations(const output_snapshot& state,
                                                      output_sets& sets, const output_flow& region);

}  // namespace cowire::detail

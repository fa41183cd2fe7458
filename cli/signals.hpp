// SPDX-License-Identifier: Apache-2.0
/// What signals mean to commands that go on for long.
///
/// SIGINT, SIGTERM and SIGHUP end them in good order: what is on the way is drained and the summary
/// is printed; a second one ends the process at once. SIGHUP means nothing where it was ignored
/// from the start (nohup). SIGUSR1 and SIGUSR2 have the totals so far printed to standard error.
/// SIGQUIT keeps its meaning: the process ends at once, with a core where those are wanted.
#pragma once

#include <array>
#include <csignal>
#include <vector>

namespace cowire::cli {

inline constexpr std::array report_signals{SIGUSR1, SIGUSR2};

/// Those that end a command begun as this one was.
[[nodiscard]] inline std::vector<int> ending_signals() {
  struct sigaction now {};
  const bool stays = ::sigaction(SIGHUP, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;
  return stays ? std::vector{SIGINT, SIGTERM} : std::vector{SIGINT, SIGTERM, SIGHUP};
}

}  // namespace cowire::cli

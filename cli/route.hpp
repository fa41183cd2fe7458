// SPDX-License-Identifier: Apache-2.0
/// `cowire route get | show | monitor`: what cowire would do, told from the kernel's own routing
/// state. No privilege needed, nothing changed.
#pragma once

#include <string>
#include <vector>

namespace cowire::cli {

struct route_get_arguments {
  std::vector<std::string> query;
  std::string batch_file;  ///< "-" = standard input.
  bool json = false;
};

/// Exit status 2 where the kernel would refuse, as of `ip route get`. A batch answers what it can
/// (a refusal is an answer there), tells the lines that it cannot read on standard error, and
/// returns 2 if there were any.
int run_route_get(const route_get_arguments& arguments);

/// `table` is a name, a number, "all", or empty for main.
int run_route_show(const std::string& table, bool json);

/// Prints every published change until SIGINT or SIGTERM.
int run_route_monitor(bool json, int verbosity);

}  // namespace cowire::cli

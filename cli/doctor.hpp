// SPDX-License-Identifier: Apache-2.0
/// `cowire doctor`: will sending work here, how fast a rung of the mode ladder it gets, and what to
/// change.
///
/// Looks by really doing where that leaves nothing behind (sets up an io_uring, opens an AF_XDP
/// socket, loads a program without attaching it), by reading /proc and /sys elsewhere. Changes
/// nothing.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace cowire::cli {

/// fail: sending would fail, or take the kernel path for want of a permission.
enum class health { ok, warn, fail };

/// One line of the report.
struct finding {
  std::string name;  ///< "io_uring", or "eth0 driver".
  health status = health::ok;
  std::string value;  ///< What was found.
  std::string meaning;
  std::string remedy;  ///< Empty when there is nothing to mend.
};

/// What concerns the whole machine, where a transmitter would open so many AF_XDP sockets.
[[nodiscard]] std::vector<finding> examine_host(std::size_t sockets);

/// What the kernel decides, in routing and after it, that keeps datagrams off the fast path: policy
/// rules, bonds, multicast, and each layer of the output path as a sender without options meets it
/// on its way through these interfaces. Of the output path nothing fails: the kernel path sends.
[[nodiscard]] std::vector<finding> examine_decisions(std::vector<std::string> interfaces);

/// What concerns one interface; the caller has checked that it exists.
[[nodiscard]] std::vector<finding> examine_interface(const std::string& name);

/// Prints all findings and returns the exit status: 1 if any of them is health::fail. With an empty
/// `interface` every interface that is up, but loopback.
int run_doctor(const std::string& interface, bool json);

}  // namespace cowire::cli

// SPDX-License-Identifier: Apache-2.0
/// The layers of the kernel's output path that may touch a datagram after routing, and which of
/// them count (route/output_path.hpp). Plain values; any thread.
#pragma once

#include <span>
#include <string_view>
#include <vector>

namespace cowire {

/// Which layers are obeyed; an ignored one is as if it were not there: neither read nor judged.
struct output_layers {
  bool netfilter = true;        ///< Rules, NAT, hooks, legacy tables. Without it no conntrack.
  bool conntrack = true;        ///< That a flow's entry exists and stays alive.
  bool ipsec = true;            ///< Policies of XFRM.
  bool traffic_control = true;  ///< Queueing disciplines, filters, tcx programs.
  bool control_groups = true;   ///< Egress and sendmsg programs.
  /// Whether a counter that the kernel would have moved is an obstacle: of a rule, of an element,
  /// of a base chain's policy. If not, datagrams are unaffected and the numbers fall short.
  bool strict_counters = false;
  friend bool operator==(const output_layers&, const output_layers&) = default;
};

/// One of them as users write it.
struct output_layer_name {
  std::string_view name;        ///< "traffic_control"
  bool output_layers::*member;  ///< What it switches.
  std::string_view if_ignored;  ///< What it means to datagrams of the fast path.
};
/// All of them. Valid for ever.
[[nodiscard]] std::span<const output_layer_name> output_layer_names() noexcept;

/// The layers that are not obeyed; conntrack is among them where netfilter is.
[[nodiscard]] std::vector<output_layer_name> ignored_layers(const output_layers& obeyed);

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// Whether a policy rule applies to a flow, as fib_rules_lookup() and its IPv4 and IPv6 parts
/// decide it.
///
/// Pure functions; any thread.
#pragma once

#include <cowire/netlink/message.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/mirror.hpp>

#include <cstdint>
#include <optional>
#include <string_view>

namespace cowire {

/// A flow, or all flows of a class to a set of destinations that no rule tells apart.
struct rule_question {
  const flow_class* cls = nullptr;
  /// The device that next hops must be over, and the VRF that the flow is in; 0 = none.
  std::uint32_t output_interface = 0, vrf = 0;
  bool named_vrf = true;  ///< The flow is in the VRF by the device that it is bound to.
  std::optional<ip_address>
      source;             ///< As asked; unset = none, the kernel chooses after the rules.
  ip_prefix destination;  ///< A host prefix for one flow.
  std::optional<std::uint16_t>
      destination_port;  ///< Unset = any: rules that look at it are undecidable.
};

enum class rule_match : std::uint8_t { no, yes, undecidable };

/// Undecidable: the rule looks at something this question or this code does not know (a destination
/// port of a class, an unknown attribute, a provisional source), or at a VRF in a way that kernels
/// differ in.
[[nodiscard]] rule_match match_rule(const mirror& state, const netlink::rule& rule,
                                    const rule_question& question);

/// Those that every namespace begins with, in evaluation order; made by the kernel (RTPROT_KERNEL).
[[nodiscard]] const std::vector<netlink::rule>& initial_rules(ip_family family);
/// Whether it can be one of those: they may be removed and be made again by somebody, who says so.
[[nodiscard]] bool is_initial(const netlink::rule& rule);

/// What a rule looks at that a flow class does not tell, for people: datagrams that it may concern
/// are left to the kernel. Empty where every class can decide the rule.
[[nodiscard]] std::string_view undecidable_selector(const netlink::rule& rule) noexcept;

/// The rule that a `goto` leads to, as an index into the list, or unset where the target is missing
/// (then the rule is skipped).
[[nodiscard]] std::optional<std::size_t> goto_target(const std::vector<netlink::rule>& rules,
                                                     std::size_t from);

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/vrf.hpp>
#include <cowire/route/kernel_quirks.hpp>
#include <cowire/route/rules.hpp>

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

#include <algorithm>

namespace cowire {
namespace {

constexpr std::uint32_t loopback_index =
    1;  // Local output enters the rules as if it came from "lo".

bool interface_matches(const mirror& state, const std::string& name, std::uint32_t index) {
  // By name as the kernel does: a device that comes, goes or is renamed re-attaches rules without a
  // message.
  const mirror::device* named = state.find_device(name);
  return named != nullptr && named->link.index == index;
}

bool service_matches(const netlink::range<std::uint16_t>& range, std::uint16_t mask,
                     std::uint16_t port) {
  if (mask != 0xffff && mask != 0) return (port & mask) == (range.first & mask);
  return range.first <= port && port <= range.last;
}

/// IPv4 routing looks at three bits of the TOS byte, IPv6 at the upper six.
bool tos_matches(const netlink::rule& rule, std::uint8_t tos) {
  if (rule.dscp) return ((tos >> 2 ^ *rule.dscp) & rule.dscp_mask) == 0;
  if (rule.tos == 0) return true;
  const std::uint8_t mask = rule.family == ip_family::v4 ? 0x1c : 0xfc;
  return rule.tos == (tos & mask);
}

bool source_matches(const netlink::rule& rule, const std::optional<ip_address>& source) {
  if (!rule.from || rule.from->length() == 0) return true;
  if (source) return rule.from->contains(*source);
  // No source yet: IPv4 compares 0.0.0.0, IPv6 says no.
  return rule.family == ip_family::v4 && rule.from->contains(ip_address::any(ip_family::v4));
}

/// `oif VRF`: a flow that is in it is bound to no device any more, or to one of its own.
bool names_vrf_of(const mirror& state, const netlink::rule& rule, const rule_question& question) {
  return question.vrf != 0 && interface_matches(state, rule.output_interface, question.vrf);
}

/// Whether kernels differ in what this rule does with this flow, or it was not seen.
bool kernels_differ(const mirror& state, const netlink::rule& rule, const rule_question& question) {
  if (rule.l3mdev && rule.invert) return true;  // Which table it leads to then.
  const std::uint32_t version = state.settings().kernel_version;
  if (version <= kernel_quirks::vrf_rules_ignored || rule.output_interface.empty() ||
      !names_vrf_of(state, rule, question))
    return false;
  return !question.named_vrf || version < kernel_quirks::vrf_rules_match;
}

/// The selectors that every question can answer.
bool selectors_match(const mirror& state, const netlink::rule& rule,
                     const rule_question& question) {
  const flow_class& cls = *question.cls;
  return (rule.input_interface.empty() ||
          interface_matches(state, rule.input_interface, loopback_index)) &&
         (rule.output_interface.empty() ||
          interface_matches(state, rule.output_interface, question.output_interface) ||
          (names_vrf_of(state, rule, question) &&
           state.settings().kernel_version >= kernel_quirks::vrf_rules_match)) &&
         ((rule.mark ^ cls.mark) & rule.mark_mask) == 0 &&
         rule.tunnel_id == 0 &&  // Ordinary sockets have none.
         (!rule.l3mdev || question.vrf != 0) &&
         (!rule.uid || (rule.uid->first <= cls.uid && cls.uid <= rule.uid->last)) &&
         (!rule.to || rule.to->contains(question.destination)) &&
         source_matches(rule, question.source) && tos_matches(rule, cls.tos) &&
         (rule.ip_protocol == 0 || rule.ip_protocol == cls.ip_protocol) &&
         (!rule.source_port ||
          service_matches(*rule.source_port, rule.source_port_mask, cls.source_port)) &&
         (!rule.flow_label || rule.flow_label_mask == 0 ||
          (*rule.flow_label & rule.flow_label_mask) == 0);
}

}  // namespace

rule_match match_rule(const mirror& state, const netlink::rule& rule,
                      const rule_question& question) {
  if (!rule.unknown.empty() || kernels_differ(state, rule, question))
    return rule_match::undecidable;
  if (rule.find_source && rule.family == ip_family::v6 && !question.source)
    return rule_match::undecidable;
  const bool others = selectors_match(state, rule, question);
  if (rule.destination_port && others) {
    if (!question.destination_port) return rule_match::undecidable;
    const bool port = service_matches(*rule.destination_port, rule.destination_port_mask,
                                      *question.destination_port);
    return port != rule.invert ? rule_match::yes : rule_match::no;
  }
  return others != rule.invert ? rule_match::yes : rule_match::no;
}

const std::vector<netlink::rule>& initial_rules(ip_family family) {
  const auto make = [](ip_family of) {
    std::vector<netlink::rule> made;
    const auto add = [&](std::uint32_t priority, std::uint32_t table) {
      netlink::rule& rule = made.emplace_back();
      rule.family = of;
      rule.kind = FR_ACT_TO_TBL;
      rule.priority = priority;
      rule.table = table;
      rule.protocol = RTPROT_KERNEL;
    };
    add(0, RT_TABLE_LOCAL);
    add(32766, RT_TABLE_MAIN);
    if (of == ip_family::v4) add(32767, RT_TABLE_DEFAULT);
    return made;
  };
  static const std::vector<netlink::rule> v4 = make(ip_family::v4), v6 = make(ip_family::v6);
  return family == ip_family::v4 ? v4 : v6;
}

bool is_initial(const netlink::rule& rule) {
  return std::ranges::any_of(initial_rules(rule.family), [&](netlink::rule initial) {
    initial.action = rule.action;
    if (rule.protocol == RTPROT_UNSPEC) initial.protocol = RTPROT_UNSPEC;  // Not told.
    return rule == initial;
  });
}

std::string_view undecidable_selector(const netlink::rule& rule) noexcept {
  if (!rule.unknown.empty()) return "an attribute newer than this program";
  if (rule.find_source && rule.family == ip_family::v6) return "the source still to be chosen";
  if (rule.destination_port) return "the destination port";
  if (rule.l3mdev && rule.invert) return "flows that are in no VRF";
  return {};
}

std::optional<std::size_t> goto_target(const std::vector<netlink::rule>& rules, std::size_t from) {
  for (std::size_t i = from + 1; i < rules.size(); ++i)
    if (rules[i].priority == rules[from].goto_target) return i;
  return std::nullopt;
}

}  // namespace cowire

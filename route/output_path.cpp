// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/judge_destinations.hpp>
#include <cowire/route/detail/output_ipsec.hpp>
#include <cowire/route/detail/output_walk.hpp>
#include <cowire/route/detail/xt_match.hpp>
#include <cowire/route/output_path.hpp>

#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace cowire {
namespace {

namespace nft = netlink::nft;

output_verdict obstacle(divert_reason reason, std::string what) {
  output_verdict out;
  out.reason = reason;
  out.obstacle = std::move(what);
  return out;
}

// ---- netfilter beside its rules -----------------------------------------------------------------

/// Functions that do nothing by themselves, or whose rules are evaluated. AppArmor and SELinux act
/// on marks of theirs (secmark) that only rules set, and such rules are obstacles of their own;
/// SELinux's other reasons to act do not show here, so its hooks are not among these.
/// Names of linux: net/netfilter/nft_chain_*.c, nf_conntrack_proto.c, nf_defrag_*, apparmor/net.c.
constexpr std::string_view harmless_functions[] = {
    "nft_do_chain_ipv4",     "nft_do_chain_ipv6",    "nft_do_chain_inet",    "nf_route_table_hook4",
    "nf_route_table_hook6",  "nf_route_table_inet",  "nft_nat_do_chain",     "nf_nat_ipv4_local_fn",
    "nf_nat_ipv4_out",       "nf_nat_ipv6_local_fn", "nf_nat_ipv6_out",      "nf_confirm",
    "ipv4_conntrack_defrag", "ipv6_defrag",          "ipv4_confirm",         "ipv6_confirm",
    "ipv4_conntrack_local",  "ipv6_conntrack_local", "apparmor_ip_postroute"};

bool is_tracking_function(std::string_view name) {
  return name == "ipv4_conntrack_local" || name == "ipv6_conntrack_local";
}

output_verdict judge_hooks(const netfilter_state& state, ip_family family) {
  for (const output_hook& hook : *state.hooks) {
    if (hook.family != family) continue;
    if (std::ranges::find(harmless_functions, std::string_view(hook.function)) ==
        std::end(harmless_functions))
      return obstacle(divert_reason::netfilter,
                      hook.function.empty() ? "a netfilter hook that the kernel does not name"
                                            : "netfilter hook function " + hook.function);
  }
  return {};
}

output_verdict judge_unlisted_hooks(const netfilter_state& state, ip_family family) {
  const auto found = std::ranges::find(state.unlisted_hooks, family, &output_hook::family);
  if (found == state.unlisted_hooks.end()) return {};
  return obstacle(divert_reason::netfilter, "a netfilter hook " + found->function);
}

/// Base chains of the egress hook of a device see the datagram in several shapes, so only those
/// without rules are passed by.
output_verdict judge_device_chains(const nft::ruleset& rules, const output_flow& region) {
  constexpr std::uint32_t egress_hook = 1;  // NF_NETDEV_EGRESS
  if (region.devices.empty()) return {};
  for (const auto& [key, one] : rules.chains) {
    if (!one.chain.hook || one.chain.family != nft::family::netdev) continue;
    if (one.chain.hook->number != egress_hook) continue;
    const auto table = rules.tables.find({one.chain.family, one.chain.table, {}});
    if (table != rules.tables.end() && table->second.is_dormant()) continue;
    if (one.rules.empty() && one.chain.policy == 1 && !one.chain.not_understood) continue;
    std::string devices;
    for (const std::string& name : one.chain.hook->devices)
      devices += (devices.empty() ? "" : ", ") + name;
    output_verdict out =
        obstacle(divert_reason::netfilter, "table netdev " + key.table + ", chain " + key.name +
                                               ": rules at the egress hook of " +
                                               (devices.empty() ? "a device" : devices));
    out.table = "netdev " + key.table;
    out.chain = key.name;
    return out;
  }
  return {};
}

/// What is the same for all destinations.
output_verdict judge_beside_rules(const netfilter_state& state, ip_family family) {
  if (state.rules_unreadable)
    return obstacle(divert_reason::netfilter,
                    "the nf_tables ruleset cannot be read: " + *state.rules_unreadable);
  const auto& legacy = family == ip_family::v4 ? state.legacy_tables_v4 : state.legacy_tables_v6;
  if (!legacy.empty())
    return obstacle(divert_reason::netfilter,
                    "legacy iptables table " + legacy.front() + ", whose rules are not read");
  if (state.hooks) return judge_hooks(state, family);
  if (state.legacy_unreadable)
    return obstacle(
        divert_reason::netfilter,
        "whether there are legacy iptables tables cannot be seen: " + *state.legacy_unreadable);
  return judge_unlisted_hooks(state, family);
}

// ---- devices ------------------------------------------------------------------------------------

/// Work-conserving kinds that hand every datagram on unchanged while the device is not congested,
/// unless set otherwise (device_output_state::discipline::shapes). Not drr: it drops what neither a
/// filter nor the socket's priority puts into a class (drr_classify() in net/sched/sch_drr.c).
constexpr std::string_view passing_kinds[] = {
    "noqueue",  "pfifo_fast", "pfifo", "bfifo",  "mq",  "prio", "multiq", "ets",
    "fq_codel", "codel",      "pie",   "fq_pie", "sfq", "fq",   "clsact", "ingress"};

/// As tc(8) writes them.
std::string handle_text(std::uint32_t handle) {
  char text[16];
  std::snprintf(text, sizeof text, "%x:", handle >> 16);
  return text;
}

output_verdict judge_device(std::uint32_t index, const device_output_state& device) {
  const std::string where =
      " on " + (device.name.empty() ? "the device of index " + std::to_string(index) : device.name);
  if (device.unreadable_because)
    return obstacle(divert_reason::queueing_discipline,
                    "traffic control cannot be read" + where + ": " + *device.unreadable_because);
  if (!device.programs.empty())
    return obstacle(divert_reason::tc_egress,
                    "tcx program of id " + std::to_string(device.programs.front()) + where);
  if (!device.filter.empty())
    return obstacle(divert_reason::tc_egress,
                    "filter of traffic control" + where + ": " + device.filter);
  for (const auto& one : device.disciplines)
    if (one.shapes ||
        std::ranges::find(passing_kinds, std::string_view(one.kind)) == std::end(passing_kinds))
      return obstacle(
          divert_reason::queueing_discipline,
          "queueing discipline " + one.kind + " (" + handle_text(one.handle) + ")" + where);
  return {};
}

output_verdict judge_devices(const output_snapshot& state, const output_flow& region) {
  if (state.devices_unreadable)
    return obstacle(divert_reason::queueing_discipline,
                    "traffic control cannot be read: " + *state.devices_unreadable);
  for (const std::uint32_t index : region.devices)
    if (const auto device = state.devices.find(index); device != state.devices.end())
      if (auto found = judge_device(index, device->second); found.reason) return found;
  return {};
}

// ---- the other layers ---------------------------------------------------------------------------

output_verdict judge_cgroup(const cgroup_state& state, ip_family family) {
  if (state.unreadable_because)
    return obstacle(divert_reason::cgroup_program,
                    "programs of the control group cannot be read: " + *state.unreadable_because);
  const auto& sendmsg = family == ip_family::v4 ? state.sendmsg_v4 : state.sendmsg_v6;
  if (!sendmsg.empty())
    return obstacle(
        divert_reason::cgroup_program,
        "sendmsg program of id " + std::to_string(sendmsg.front()) + " of the control group");
  if (!state.egress.empty())
    return obstacle(
        divert_reason::cgroup_program,
        "egress program of id " + std::to_string(state.egress.front()) + " of the control group");
  return {};
}

/// But its policies.
output_verdict judge_ipsec(const ipsec_state& state) {
  if (state.unreadable_because)
    return obstacle(divert_reason::ipsec,
                    "IPsec policies cannot be read: " + *state.unreadable_because);
  if (state.blocks_by_default)
    return obstacle(divert_reason::ipsec, "datagrams without an IPsec policy are blocked");
  return {};
}

/// Whether an expression makes the kernel track connections as long as it is in any rule.
bool makes_kernel_track(const nft::expression& e) {
  constexpr std::string_view names[] = {"ct",           "nat",       "masq",    "redir",
                                        "flow_offload", "connlimit", "synproxy"};
  constexpr std::string_view target = "target:";
  if (const auto* match = std::get_if<nft::expressions::xt_match>(&e.content))
    return detail::uses_tracking(*match);
  if (e.name.starts_with(target))
    return detail::target_uses_tracking(std::string_view(e.name).substr(target.size()));
  return e.name == "match" || e.name == "target" ||
         std::ranges::find(names, std::string_view(e.name)) != std::end(names);
}

constexpr output_layer_name layer_names[] = {
    {"netfilter", &output_layers::netfilter,
     "firewall rules and NAT do not happen to what the fast path sends"},
    {"conntrack", &output_layers::conntrack,
     "what the fast path sends makes no entry and keeps none alive, so a stateful firewall may "
     "drop answers and ICMP errors"},
    {"ipsec", &output_layers::ipsec,
     "what the fast path sends leaves in clear, whatever IPsec policies say"},
    {"traffic_control", &output_layers::traffic_control,
     "the fast path passes queueing disciplines, filters and tcx programs by"},
    {"control_groups", &output_layers::control_groups,
     "the fast path passes programs of control groups by"}};

}  // namespace

std::span<const output_layer_name> output_layer_names() noexcept { return layer_names; }

std::vector<output_layer_name> ignored_layers(const output_layers& obeyed) {
  std::vector<output_layer_name> out;
  for (const auto& one : layer_names)
    if (!(obeyed.*one.member) || (one.name == "conntrack" && !obeyed.netfilter)) out.push_back(one);
  return out;
}

std::set<std::uint32_t> devices_with_queue(const output_snapshot& state) {
  std::set<std::uint32_t> found;
  for (const auto& [index, device] : state.devices)
    for (const device_output_state::discipline& one : device.disciplines)
      if (one.kind != "noqueue" && one.kind != "clsact" && one.kind != "ingress")
        found.insert(index);
  return found;
}

bool tracks_connections(const netfilter_state& state, ip_family family) {
  if (state.hooks) {
    for (const output_hook& hook : *state.hooks)
      if (hook.family == family && is_tracking_function(hook.function)) return true;
    // A kernel that names no functions shows nothing.
    const bool named =
        std::ranges::none_of(*state.hooks, &std::string::empty, &output_hook::function);
    if (named) return false;
  }
  const nft::family other = family == ip_family::v4 ? nft::family::ipv6 : nft::family::ipv4;
  if (!state.rules->tracking_objects.empty()) return true;
  for (const auto& [key, one] : state.rules->chains) {
    if (key.family == other) continue;
    for (const nft::rule& each : one.rules)
      if (std::ranges::any_of(each.expressions, makes_kernel_track)) return true;
  }
  return false;
}

output_verdict judge_ruleset(const nft::ruleset& rules, const output_flow& region,
                             tracking_state tracked, bool strict_counters) {
  detail::output_sets sets(rules, strict_counters);
  detail::destination_verdicts found(region.destination);
  detail::output_walk(rules, sets, region, tracked, found).run();
  return found.of(region.destination);
}

detail::destination_verdicts detail::judge_destinations(const output_snapshot& state,
                                                        output_sets& sets,
                                                        const output_flow& region,
                                                        asked_ports* ports) {
  return judge_some(state, sets, region, address_set(region.destination), ports);
}

detail::destination_verdicts detail::judge_some(const output_snapshot& state, output_sets& sets,
                                                const output_flow& region, const address_set& which,
                                                asked_ports* ports) {
  const ip_family family = region.destination.family();
  const output_layers& obeyed = state.obeyed;
  destination_verdicts found(which);
  address_set untracked;
  if (obeyed.control_groups) found.touch_rest(judge_cgroup(state.cgroup, family));
  if (obeyed.ipsec) {
    found.touch_rest(judge_ipsec(state.ipsec));
    judge_policies(state.ipsec, region, found, ports);
  }
  if (obeyed.netfilter) {
    const netfilter_state& netfilter = state.netfilter;
    found.touch_rest(judge_beside_rules(netfilter, family));
    untracked = which;
    for (const auto tracked : {tracking_state::fresh, tracking_state::established}) {
      if (found.untouched().empty()) break;
      output_walk walk(*netfilter.rules, sets, region, tracked, found, ports);
      untracked = untracked.intersection(walk.run());
      if (!walk.depends_on_tracking()) break;
    }
    found.touch_rest(judge_device_chains(*netfilter.rules, region));
  }
  if (obeyed.traffic_control) found.touch_rest(judge_devices(state, region));
  auto& tracks = sets.tracked_families[static_cast<std::size_t>(family)];
  if (!tracks) tracks = tracks_connections(state.netfilter, family);
  if (obeyed.netfilter && obeyed.conntrack && *tracks) found.track_all_but(untracked);
  // Two passes of the hooks, of which connection tracking takes part in one.
  if (!found.tracked().empty() && region.passes_vrf)
    found.touch(address_set(found.tracked()),
                obstacle(divert_reason::conntrack_new,
                         "connections are tracked, and the flow passes a VRF"));
  return found;
}

std::vector<detail::port_verdicts> detail::judge_all_ports(const output_snapshot& state,
                                                           output_sets& sets,
                                                           const output_flow& region) {
  constexpr std::size_t ranges_max = 64, steps_max = 400'000, pieces_max = 500'000;
  std::vector<port_verdicts> done;
  std::vector<port_range> open{{0, 0xffff}};
  std::size_t steps = 0, pieces = 0;
  while (!open.empty()) {
    asked_ports asked;
    asked.range = open.back();
    open.pop_back();
    auto answer = judge_destinations(state, sets, region, &asked);
    steps += asked.steps;
    pieces += answer.pieces().size();
    auto& at = asked.divided_at;
    std::ranges::sort(at);
    at.erase(std::ranges::unique(at).begin(), at.end());
    if (!asked.may_pay_to_divide(answer) || done.size() + open.size() + at.size() >= ranges_max ||
        steps > steps_max || pieces > pieces_max) {
      done.push_back({asked.range, std::move(answer)});
      continue;
    }
    std::uint16_t first = asked.range.first;
    for (const std::uint16_t next : at) {
      open.push_back({first, static_cast<std::uint16_t>(next - 1)});
      first = next;
    }
    open.push_back({first, asked.range.last});
  }
  std::ranges::sort(done, {}, &port_verdicts::ports);
  return done;
}

output_verdict judge_output(const output_snapshot& state, const output_flow& region) {
  detail::output_sets sets(*state.netfilter.rules, state.obeyed.strict_counters);
  return detail::judge_destinations(state, sets, region).of(region.destination);
}

bool is_empty(const output_snapshot& state) {
  const netfilter_state& n = state.netfilter;
  const output_layers& obeyed = state.obeyed;
  const auto passes = [](const auto& device) {
    return !judge_device(device.first, device.second).reason;
  };
  const bool no_netfilter =
      !n.rules_unreadable && n.rules->empty() && n.legacy_tables_v4.empty() &&
      n.legacy_tables_v6.empty() &&
      (n.hooks ? n.hooks->empty() : !n.legacy_unreadable && n.unlisted_hooks.empty());
  const bool no_programs = !judge_cgroup(state.cgroup, ip_family::v4).reason &&
                           !judge_cgroup(state.cgroup, ip_family::v6).reason;
  const bool no_traffic_control =
      !state.devices_unreadable && std::ranges::all_of(state.devices, passes);
  return (no_netfilter || !obeyed.netfilter) && (no_programs || !obeyed.control_groups) &&
         (no_traffic_control || !obeyed.traffic_control) &&
         ((!judge_ipsec(state.ipsec).reason && state.ipsec.policies.empty()) || !obeyed.ipsec);
}

}  // namespace cowire

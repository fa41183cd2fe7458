// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/doctor.hpp>
#include <cowire/cli/doctor_groups.hpp>
#include <cowire/cli/kernel_state.hpp>
#include <cowire/cli/privilege.hpp>
#include <cowire/route/egress_choice.hpp>
#include <cowire/route/output_path.hpp>
#include <cowire/route/rules.hpp>

#include <linux/if_bonding.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <string_view>
#include <system_error>
#include <variant>

namespace cowire::cli {
namespace {

/// The policy rules that keep datagrams off the fast path.
void examine_rules(const mirror& state, std::vector<finding>& out) {
  std::size_t count = 0, doubtful = 0;
  for (const ip_family family : ip_families)
    for (const netlink::rule& rule : state.rules(family)) {
      ++count;
      const auto selector = undecidable_selector(rule);
      if (selector.empty()) continue;
      ++doubtful;
      out.push_back(
          {(family == ip_family::v4 ? "ipv4 rule " : "ipv6 rule ") + std::to_string(rule.priority),
           health::warn, "looks at " + std::string(selector),
           "the kernel path, slower, takes all datagrams that it may concern "
           "(unsupported_rule)",
           "narrow it with `to PREFIX`, or select by mark or source"});
    }
  if (doubtful == 0)
    out.push_back({"rules", health::ok, std::to_string(count),
                   "the fast path can decide every policy rule", ""});
}

/// What a bond's way of choosing slaves means for the fast path.
finding examine_bond(const mirror::device& device, const netlink::bond_info& bond) {
  constexpr std::string_view modes[] = {"balance-rr", "active-backup", "balance-xor", "broadcast",
                                        "802.3ad",    "balance-tlb",   "balance-alb"};
  constexpr std::string_view policies[] = {"layer2",   "layer3+4", "layer2+3",
                                           "encap2+3", "encap3+4", "vlan+srcmac"};
  const std::string check = "bond " + device.link.name;
  std::string value(bond.mode < std::size(modes) ? modes[bond.mode] : "an unknown mode");
  if (bond.mode == BOND_MODE_ACTIVEBACKUP)
    return {check, health::ok, value, "frames leave by the active slave", ""};
  constexpr const char* remedy = "mode balance-xor or 802.3ad with xmit_hash_policy layer3+4";
  if (!hashes_frames(device.link))
    return {check, health::warn, value,
            "the kernel path, slower, takes all that goes through it (bond_policy)", remedy};
  value += ", " + std::string(bond.xmit_hash_policy < std::size(policies)
                                  ? policies[bond.xmit_hash_policy]
                                  : "an unknown policy");
  if (bond.xmit_hash_policy >= std::size(policies) ||
      bond.xmit_hash_policy == BOND_XMIT_POLICY_ENCAP34)
    return {check, health::warn, value,
            "the kernel path, slower, takes what has a hash made with a secret: IPv6, tunnels, and "
            "what passes a queueing discipline or several queues above the slaves (bond_policy)",
            remedy};
  return {check, health::ok, value, "frames leave by the slave that the kernel would take", ""};
}

void examine_bonds(const mirror& state, std::vector<finding>& out) {
  for (const auto& [index, device] : state.devices())
    if (const auto* bond = std::get_if<netlink::bond_info>(&device.link.info))
      out.push_back(examine_bond(device, *bond));
}

// ---- the output path ----------------------------------------------------------------------------

/// What may be done about the layers of the output path, and how it reads where nothing is there.
struct layer_advice {
  std::string_view layer;  ///< As in output_layer_names().
  const char* untouched;
  const char* remedy;
};

constexpr layer_advice all_advice[] = {
    {"netfilter", "no firewall rule, hook or legacy table can touch what is sent",
     "accept it by an earlier rule, or narrow the rule by device, user or source port "
     "(iptables-legacy: change to iptables-nft, whose rules are read)"},
    {"conntrack", "no connection is tracked", "do without rules that use `ct` or NAT"},
    {"ipsec", "there is no IPsec policy for output",
     "remove policies that are out of use (`ip xfrm policy`)"},
    {"traffic_control", "no filter, program or queueing discipline drops or holds back",
     "`tc qdisc replace dev IF root fq_codel`; remove egress filters (`tc filter show dev IF "
     "egress`, `bpftool net`)"},
    {"control_groups", "the control group has no program that looks at what is sent",
     "of a systemd unit and the slices above it: IPAccounting=no, neither IPAddressAllow= nor "
     "IPAddressDeny=; of others: `bpftool cgroup tree`"},
};

/// The flow class of a sender without options, on its way through one device; without any, through
/// nobody knows which.
output_flow region_of(const mirror& state, const output_snapshot& output, ip_family family,
                      const std::string& interface) {
  output_flow region;
  region.destination = ip_prefix::all(family);
  region.uid = ::getuid();
  for (const auto& [index, device] : state.devices()) {
    if (device.link.name != interface) continue;
    region.output_interface = index;
    region.output_name = interface;
    region.devices = {index};
    region.mark_matters_below = false;
    // Others stand on devices of their own; which ones does not matter to a warning.
    if (device.link.kind.empty() || device.link.kind == "veth") break;
    region.mark_matters_below = true;
    for (const auto& [other, any] : output.devices) region.devices.push_back(other);
    break;
  }
  return region;
}

/// What the doctor says of connection tracking where it is on; no obstacle to flows that it knows.
constexpr std::string_view tracked = "tracked";

/// An obstacle and whom it concerns.
struct obstacle_met {
  std::set<std::string> reasons, families, interfaces;
};
using obstacles = std::map<std::string, obstacle_met>;

std::string joined(const std::set<std::string>& words) {
  std::string out;
  for (const auto& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

/// `output` obeys one layer only, but for connection tracking, which is asked for apart.
obstacles look_for_obstacles(const mirror& state, const output_snapshot& output,
                             const std::vector<std::string>& interfaces) {
  obstacles found;
  for (const ip_family family : ip_families)
    for (const std::string& interface : interfaces) {
      output_verdict verdict;
      if (!output.obeyed.conntrack) {
        verdict = judge_output(output, region_of(state, output, family, interface));
      } else if (output.netfilter.rules_unreadable) {
        verdict.reason = divert_reason::conntrack_new;
        verdict.obstacle =
            "whether connections are tracked cannot be seen: " + *output.netfilter.rules_unreadable;
      } else if (tracks_connections(output.netfilter, family)) {
        verdict.reason = divert_reason::conntrack_new;
        verdict.obstacle = std::string(tracked);
      }
      if (!verdict.reason) continue;
      obstacle_met& met = found[verdict.obstacle];
      met.reasons.emplace(name(*verdict.reason));
      met.families.insert(family == ip_family::v4 ? "IPv4" : "IPv6");
      met.interfaces.insert(interface);
    }
  return found;
}

/// Whether what is obeyed could not be read.
bool is_unreadable(const output_snapshot& output) {
  const auto& obeyed = output.obeyed;
  const bool device = std::ranges::any_of(
      output.devices, [](const auto& one) { return one.second.unreadable_because.has_value(); });
  const auto& netfilter = output.netfilter;
  return ((obeyed.netfilter || obeyed.conntrack) && netfilter.rules_unreadable) ||
         (obeyed.netfilter && !netfilter.hooks && netfilter.legacy_unreadable) ||
         (obeyed.ipsec && output.ipsec.unreadable_because) ||
         (obeyed.control_groups && output.cgroup.unreadable_because) ||
         (obeyed.traffic_control && (output.devices_unreadable || device));
}

/// Where nothing is known to be there, but the kernel lists no hooks.
finding tell_that_hooks_are_not_listed(const std::string& check) {
  return {check, health::warn, "untouched, as far as can be seen",
          "this kernel does not list netfilter's hooks: of those that are neither rules nor legacy "
          "tables only IPVS, SELinux, Smack and BPF programs show, the last to root alone; what "
          "another one does is passed by",
          "a kernel with nfnetlink_hook (CONFIG_NETFILTER_NETLINK_HOOK)"};
}

finding tell(const layer_advice& advice, const obstacles& found, bool unreadable,
             std::size_t interfaces) {
  const std::string layer(advice.layer), check = "output " + layer;
  if (found.empty()) return {check, health::ok, "untouched", advice.untouched, ""};
  std::string value;
  std::set<std::string> reasons;
  for (const auto& [what, met] : found) {
    value += (value.empty() ? "" : "; ") + what + " (" + joined(met.families);
    if (met.interfaces.size() < interfaces) value += " on " + joined(met.interfaces);
    value += ")";
    reasons.insert(met.reasons.begin(), met.reasons.end());
  }
  if (found.size() == 1 && found.begin()->first == tracked)
    return {check, health::ok, value,
            "the kernel path takes the first datagram of each flow, of plain ones the rest is fast "
            "while their entry lives; tunnels whose outer datagrams are tracked stay there "
            "(conntrack_new)",
            ""};
  return {check, health::warn, value,
          "the kernel path, slower, takes all flows that it may concern (" + joined(reasons) + ")",
          (unreadable ? "run as root, or: " + std::string(setcap_remedy) : advice.remedy) +
              "; or, if it may be passed by, [output] " + layer + " = \"ignore\" in --config"};
}

void examine_output(const mirror& state, output_snapshot output,
                    const std::vector<std::string>& interfaces, std::vector<finding>& out) {
  for (const layer_advice& advice : all_advice) {
    output.obeyed = {};
    for (const output_layer_name& layer : output_layer_names())
      output.obeyed.*layer.member = layer.name == advice.layer;
    const auto found = look_for_obstacles(state, output, interfaces);
    const bool hooks_matter = output.obeyed.netfilter && !output.netfilter.hooks;
    out.push_back(found.empty() && hooks_matter
                      ? tell_that_hooks_are_not_listed("output " + std::string(advice.layer))
                      : tell(advice, found, is_unreadable(output), interfaces.size()));
  }
  out.push_back({"output taps", health::ok, "do not see AF_XDP frames",
                 "tcpdump on the sending device misses what the fast path sends; capture where it "
                 "arrives, or send with --mode kernel",
                 ""});
}

}  // namespace

std::vector<finding> examine_decisions(std::vector<std::string> interfaces) try {
  std::vector<finding> out;
  const kernel_state now;
  examine_rules(now.state(), out);
  examine_bonds(now.state(), out);
  std::ranges::move(examine_groups(now.state()), std::back_inserter(out));
  if (interfaces.empty()) interfaces.emplace_back();
  examine_output(now.state(), now.output(), interfaces, out);
  return out;
} catch (const std::system_error& failed) {
  return {{"rules", health::fail, failed.what(), "the kernel's routes cannot be read",
           "allow netlink sockets (NETLINK_ROUTE)"}};
}

}  // namespace cowire::cli

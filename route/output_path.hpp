// SPDX-License-Identifier: Apache-2.0
/// What the kernel does to a datagram after the routing decision, and whether it can touch one.
///
/// An `output_snapshot` is the state of the output path as plain data: firewall rules, hooks,
/// legacy tables, IPsec policies, queueing disciplines and filters of devices, control-group
/// programs. judge_output() says of a region of flows that *nothing* on that path can drop,
/// rewrite, delay, count against a limit or re-route a datagram of it - or names the first thing
/// that might. It errs on one side only: what was not read, or is not understood, is an obstacle.
///
/// Pure functions on plain values; any thread. Not for the fast path: tables are compiled with it.
///
/// Source: net/netfilter/nf_tables_core.c (the walk), net/netfilter/nft_*.c (expressions),
/// net/ipv4/ip_output.c, net/ipv6/ip6_output.c and net/core/dev.c (the order of the layers).
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/reason.hpp>
#include <cowire/netlink/nft_message.hpp>
#include <cowire/netlink/xfrm_message.hpp>
#include <cowire/route/output_layers.hpp>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cowire {

/// A layer that could not be read, and why: then it might hold anything.
using unreadable = std::optional<std::string>;

/// A netfilter hook function of LOCAL_OUT or POST_ROUTING, as nfnetlink_hook lists it.
struct output_hook {
  ip_family family = ip_family::v4;
  std::string function;  ///< "nft_do_chain_inet"; empty on kernels without kallsyms.
  friend bool operator==(const output_hook&, const output_hook&) = default;
};

/// A ruleset that copies share, so that a snapshot of ten thousand rules costs nothing where the
/// rules are those of the one before. Never changed once it is here; any thread.
class shared_ruleset {
 public:
  shared_ruleset() : shared_ruleset(netlink::nft::ruleset{}) {}
  shared_ruleset(netlink::nft::ruleset rules)
      : rules_(std::make_shared<const netlink::nft::ruleset>(std::move(rules))) {}

  const netlink::nft::ruleset& operator*() const noexcept { return *rules_; }
  const netlink::nft::ruleset* operator->() const noexcept { return rules_.get(); }
  /// Looks at the rules only where they are not the very same.
  friend bool operator==(const shared_ruleset& a, const shared_ruleset& b) {
    return a.rules_ == b.rules_ || *a.rules_ == *b.rules_;
  }

 private:
  std::shared_ptr<const netlink::nft::ruleset> rules_;
};

struct netfilter_state {
  shared_ruleset rules;
  unreadable rules_unreadable;
  /// Unset: the kernel cannot list them (no nfnetlink_hook), so rules and legacy tables must do.
  std::optional<std::vector<output_hook>> hooks;
  /// Where they are unset: hooks that show elsewhere, in words ("of IPVS, which has services").
  std::vector<output_hook> unlisted_hooks;
  /// Names from /proc/net/ip_tables_names and ip6_tables_names, by family. Looked at, not asked for
  /// by getsockopt(), which would create them.
  std::vector<std::string> legacy_tables_v4, legacy_tables_v6;
  unreadable legacy_unreadable;
  friend bool operator==(const netfilter_state&, const netfilter_state&) = default;
};

struct ipsec_state {
  netlink::xfrm_policies policies;  ///< Of the namespace and of its sockets, for output.
  bool blocks_by_default = false;
  unreadable unreadable_because;
  friend bool operator==(const ipsec_state&, const ipsec_state&) = default;
};

/// What stands between the IP layer and the driver of one device.
struct device_output_state {
  struct discipline {
    std::string kind;
    std::uint32_t handle = 0, parent = 0;
    /// Of a kind that need not: as it is set, this one delays, drops or marks what finds it empty.
    bool shapes = false;
    friend bool operator==(const discipline&, const discipline&) = default;
  };
  std::string name;  ///< Of the device.
  std::vector<discipline> disciplines;
  /// The first one that was found on the egress side of clsact or of any queueing discipline, in
  /// words ("matchall, preference 49152"). Empty: there is none.
  std::string filter;
  /// Their ids: tcx, egress. Nothing leaves by netkit devices past the kernel.
  std::vector<std::uint32_t> programs;
  unreadable unreadable_because;
  friend bool operator==(const device_output_state&, const device_output_state&) = default;
};

/// BPF programs in force for the sockets of this process, their ancestors' included: of its control
/// group, and of those in which sockets were made, all together.
struct cgroup_state {
  std::vector<std::uint32_t> egress, sendmsg_v4, sendmsg_v6;  ///< Their ids.
  unreadable unreadable_because;
  friend bool operator==(const cgroup_state&, const cgroup_state&) = default;
};

struct output_snapshot {
  output_layers obeyed;
  netfilter_state netfilter;
  ipsec_state ipsec;
  cgroup_state cgroup;
  std::map<std::uint32_t, device_output_state> devices;  ///< By ifindex.
  unreadable devices_unreadable;
  friend bool operator==(const output_snapshot&, const output_snapshot&) = default;
};

/// By ifindex: what has a queueing discipline that datagrams may wait in, whatever its kind.
[[nodiscard]] std::set<std::uint32_t> devices_with_queue(const output_snapshot& state);

/// A region of flows: what is not set may be anything.
struct output_flow {
  ip_prefix destination;  ///< All of these, of one family.
  std::optional<ip_address> source;
  std::optional<std::uint16_t> source_port, destination_port;  ///< Host order.
  std::uint32_t mark = 0;
  /// What IPsec policies are compared with where it is another: the route of a tunnel's outer
  /// datagrams is asked for with the tunnel's (ip_tunnel_xmit() in net/ipv4/ip_tunnel.c,
  /// ip6_tnl_xmit() in net/ipv6/ip6_tunnel.c), while rules see the sender's.
  std::optional<std::uint32_t> policy_mark;
  std::optional<std::uint8_t> tos = 0;
  /// The two lower bits of `tos` may be anything: datagrams choose ECN one by one.
  bool any_ecn = false;
  std::uint8_t ip_protocol = 17;
  std::optional<std::uint8_t> ttl;
  std::optional<std::uint32_t> priority;
  std::optional<std::uint32_t> uid, gid;
  /// The device that the route names, unset = any.
  std::optional<std::uint32_t> output_interface;
  std::optional<std::string> output_name;
  /// RTN_* of the destination in the local table, as `fib daddr type` sees it.
  std::optional<std::uint32_t> destination_type;
  /// Devices of the way, from the one that the route names down to the one that sends.
  std::vector<std::uint32_t> devices;
  /// Whether a changed mark could matter once the hooks are passed: to a tunnel's outer datagram,
  /// to a filter of traffic control.
  bool mark_matters_below = true;
  /// The hooks are passed twice, as coming from another device the second time.
  bool passes_vrf = false;
};

/// Of the flow's entry in the kernel's connection tracking.
enum class tracking_state : std::uint8_t { fresh, established };

struct output_verdict {
  std::optional<divert_reason> reason;  ///< Unset: untouched.
  /// What it is, in words: "table inet filter, chain output, rule 7: drop". Empty: untouched.
  std::string obstacle;
  std::string table, chain;  ///< Where a ruleset's is: "inet filter", "output".
  std::uint64_t rule = 0;    ///< The rule's handle; 0 = the chain's policy, or not a rule.
  /// Every datagram of the region that is new to connection tracking meets it: nothing before it
  /// was left open.
  bool certain = false;
  /// Untouched, but that the kernel's connection tracking must have an entry for each flow, and
  /// keep it: route/forwarding_table.hpp, tracked_egress.
  bool tracked = false;
  [[nodiscard]] bool untouched() const noexcept { return !reason; }
};

/// The first obstacle for any flow of the region, in the order of the kernel's own path, for
/// datagrams of flows that are new to connection tracking and of established ones.
[[nodiscard]] output_verdict judge_output(const output_snapshot& state, const output_flow& region);

/// Rulesets alone, for one state of the flow's entry. `strict_counters` as in output_layers.
[[nodiscard]] output_verdict judge_ruleset(const netlink::nft::ruleset& rules,
                                           const output_flow& region, tracking_state tracked,
                                           bool strict_counters = false);

/// Whether the kernel tracks connections of a family, as far as rules and hooks show.
[[nodiscard]] bool tracks_connections(const netfilter_state& state, ip_family family);

/// Whether nothing of this state can be an obstacle for any flow, whatever it is: the ordinary
/// case.
[[nodiscard]] bool is_empty(const output_snapshot& state);

}  // namespace cowire

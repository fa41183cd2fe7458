// SPDX-License-Identifier: Apache-2.0
/// Why a datagram does not take the fast path: the one list from which counters, JSON keys, texts
/// and documents come.
///
/// A diverted datagram is handed to the kernel path, which sends it (counted as kernel_path) or
/// hears an errno (counted as refused under the errno's name). Totals always add up: submitted ==
/// transmitted + kernel_path + refused (all reasons) + lost_in_device + shed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

/// All of them, as X(identifier, text).
#define COWIRE_DIVERT_REASONS(X)                                                                   \
  X(no_route, "the kernel has no route; it will answer with its errno")                            \
  X(rejected,                                                                                      \
    "an unreachable, prohibit or blackhole route or rule; the kernel will answer its errno")       \
  X(local_destination, "the destination is this host")                                             \
  X(broadcast_destination, "broadcast is left to the kernel")                                      \
  X(multicast_destination,                                                                         \
    "multicast of a kind, or in a place, that is left to the kernel (docs/limits.md)")             \
  X(multicast_member, "the group has members on this host, who get a copy from the kernel")        \
  X(multicast_members_unknown,                                                                     \
    "this kernel does not announce who joins groups; multicast_loop off makes it irrelevant")      \
  X(multicast_routing, "this host routes multicast, and its router gets a copy from the kernel")   \
  X(multicast_interface_unknown,                                                                   \
    "IP_MULTICAST_IF of an adopted socket cannot be read; set multicast_interface")                \
  X(scoped_destination,                                                                            \
    "the destination's scope id names another device than the one that the sender is bound to")    \
  X(new_flow_class,                                                                                \
    "no flow class of the source, DSCP, TTL and mark that the datagram chose is compiled yet")     \
  X(flow_class_limit,                                                                              \
    "the sender's datagrams have chosen too many sources, DSCPs, TTLs and marks")                  \
  X(path_mtu_probe,                                                                                \
    "a path MTU probe, longer than the path MTU; the kernel knows how long it may be")             \
  X(neighbour_unresolved, "the next hop has no valid MAC address yet; the kernel resolves it")     \
  X(no_egress_socket, "no AF_XDP socket on the output interface")                                  \
  X(egress_down, "the output interface is down")                                                   \
  X(unsupported_device, "the output interface is of a kind the fast path cannot imitate")          \
  X(vrf_queue,                                                                                     \
    "the VRF device has a queueing discipline or several queues: the kernel routes a second time") \
  X(bond_policy,                                                                                   \
    "the kernel's slave is not certain; set balance-xor or 802.3ad, xmit_hash_policy layer3+4")    \
  X(bond_unsettled, "the bond's slaves, or which of them it uses, have just changed")              \
  X(tunnel, "the output interface is a tunnel of a kind the fast path does not build")             \
  X(tunnel_sequence, "a tunnel with sequence numbers, which only the kernel can count")            \
  X(tunnel_encapsulation, "a tunnel inside UDP (FOU or GUE)")                                      \
  X(tunnel_external, "a tunnel whose outer headers come with the route (collect metadata)")        \
  X(tunnel_without_remote, "a tunnel without one remote unicast address")                          \
  X(tunnel_namespace, "a tunnel whose outer datagrams leave from another network namespace")       \
  X(tunnel_underlay, "the kernel would find no way to the tunnel's remote address, or to itself")  \
  X(tunnel_multipath, "several next hops to the tunnel's remote address; the kernel pins them")    \
  X(tunnel_depth, "more tunnels inside each other than a header template holds")                   \
  X(tunnel_not_listed, "a tunnel that the configuration does not list")                            \
  X(outside_prefixes, "a tunnel's destination outside the prefixes that the configuration lists")  \
  X(table_not_mirrored, "a rule leads to a table that the configuration does not list")            \
  X(unsupported_rule, "a policy rule that this flow class cannot decide")                          \
  X(unsupported_route, "a route with an attribute that is not modelled")                           \
  X(resilient_group, "a bucket of a resilient nexthop group that was dealt anew, not read yet")    \
  X(hidden_rules, "whether the kernel consults its list of rules at all cannot be seen")           \
  X(merged_tables, "the kernel may search the tables local and main as one")                       \
  X(own_gateway, "the gateway may have been this host's own when the route was made")              \
  X(shared_nexthop, "routes over one nexthop object differ in what the kernel caches on it")       \
  X(stale_shares, "multipath shares from before ignore_routes_with_linkdown changed")              \
  X(cached_source, "multipath prefers a hop by a source that the kernel has cached")               \
  X(rotating_default, "the kernel walks several default routes from where it last stopped")        \
  X(path_exception, "what the kernel was told about the way to this destination is being asked")   \
  X(mixed_siblings, "IPv6 multipath whose members differ in what no message shows")                \
  X(chosen_source, "IPv6 multipath hashed with a source that the socket chose itself")             \
  X(bound_multipath,                                                                               \
    "IPv6 multipath with a bound device, on a kernel whose rule for it is unknown")                \
  X(source_tree, "IPv6 source-specific routes that the kernel finds or not by order of insertion") \
  X(source_policy, "IPv6 address labels or source settings that are not the kernel's defaults")    \
  X(source_tie, "addresses between which the kernel decides by what it does not announce")         \
  X(no_source_address, "no source address; the kernel will answer with its errno")                 \
  X(exceeds_mtu, "longer than the path MTU; the kernel fragments or answers EMSGSIZE")             \
  X(needs_identification, "DF is off, so the kernel must choose the IP identification")            \
  X(audit_quarantine, "the truth audit saw the kernel decide otherwise")                           \
  X(no_table, "no forwarding table is published for this flow class yet")                          \
  X(netfilter, "a firewall rule, hook or legacy table may drop, change or count the datagram")     \
  X(nat, "a rule may translate the datagram's addresses or ports")                                 \
  X(conntrack_new, "connection tracking must see the datagram, or answers would be refused")       \
  X(conntrack_full, "as many flows are tracked as `tracked_flows` allows")                         \
  X(ipsec, "an IPsec policy may encrypt or block the datagram")                                    \
  X(tc_egress, "a filter or program of traffic control on the device")                             \
  X(queueing_discipline, "a queueing discipline on the device that delays, drops or reorders")     \
  X(cgroup_program, "a BPF program of the control group may drop or change the datagram")          \
  X(device_busy, "the egress ring stayed full past its deadline, or its device takes nothing")     \
  X(forced_kernel, "kernel mode was asked for")

namespace cowire {

/// Each of COWIRE_DIVERT_REASONS.
enum class divert_reason : std::uint8_t {
#define COWIRE_X(identifier, text) identifier,
  COWIRE_DIVERT_REASONS(COWIRE_X)
#undef COWIRE_X
};

/// How many there are.
inline constexpr std::size_t divert_reason_count = 0
#define COWIRE_X(identifier, text) +1
    COWIRE_DIVERT_REASONS(COWIRE_X)
#undef COWIRE_X
    ;

/// The identifier, as used in JSON and metrics: "neighbour_unresolved".
[[nodiscard]] std::string_view name(divert_reason reason) noexcept;
/// One sentence for people.
[[nodiscard]] std::string_view describe(divert_reason reason) noexcept;
/// Whether it is expected to end by itself, with nobody changing anything on this host: something
/// is being resolved, compiled or read. The others last until somebody does.
[[nodiscard]] bool is_transient(divert_reason reason) noexcept;

}  // namespace cowire

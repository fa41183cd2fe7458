// SPDX-License-Identifier: Apache-2.0
/// What one datagram chooses for itself, as the control messages of sendmsg(2) do for a socket's:
///
///     s.try_send(bytes, destination, {.ecn = ecn_codepoint::ect_0});
///
/// What is not set is the sender's. A plain value; any thread.
///
/// Costs. ECN is written into the headers of whatever way the datagram takes, and is free but for
/// those instructions. Each combination of source, DSCP, TTL and mark has a flow class of its own:
/// the first datagrams of a new one are the kernel path's (divert_reason::new_flow_class) until it
/// is compiled, and a sender has at most chosen_classes_max, those used first; the datagrams of
/// others are the kernel path's for good (divert_reason::flow_class_limit). A path MTU probe is,
/// where it is longer than the path MTU that is known; one that fits costs nothing, so that a
/// protocol none of whose datagrams may be fragmented sends all of them as probes. The first
/// datagram of a producer's that chooses more than ECN allocates, and so does each new combination,
/// which the control thread compiles: for all routes, and where a firewall has large sets that
/// takes tenths of a second.
///
/// Order. What takes the kernel path may be overtaken by later datagrams to the same destination
/// that do not: those of a new combination once, probes beyond the path MTU and what is beyond the
/// limit each time.
///
/// Errors. What cannot be meant is refused by the call: invalid_argument (a DSCP above 63, a source
/// of 0.0.0.0 or ::), family_mismatch (a source of another family than the destination),
/// unsupported (a probe of an adopted socket, whose option is the application's). What the kernel
/// refuses comes through async_next_error(), as the kernel says: a source that is not this host's,
/// EPERM of a mark without CAP_NET_RAW and CAP_NET_ADMIN, EMSGSIZE of a probe.
#pragma once

#include <cowire/base/address.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace cowire {

/// The two lower bits of the TOS byte or traffic class (RFC 3168, 5).
enum class ecn_codepoint : std::uint8_t { not_ect = 0, ect_1 = 1, ect_0 = 2, ce = 3 };

/// Combinations of source, DSCP, TTL and mark with which one sender's datagrams, of both families,
/// may take the fast path; of a shared_sender, those by each shared producer.
inline constexpr std::size_t chosen_classes_max = 64;

struct datagram_options {
  /// Of the destination's family. As IP_PKTINFO and IPV6_PKTINFO: one of this host's addresses.
  std::optional<ip_address> source{};
  /// 0 to 63: the six upper bits of what IP_TOS and IPV6_TCLASS are.
  std::optional<std::uint8_t> dscp{};
  std::optional<ecn_codepoint> ecn{};  ///< The two lower bits of it.
  std::uint8_t ttl = 0;  ///< As IP_TTL and IPV6_HOPLIMIT, to groups, too. 0 = the sender's.
  std::optional<std::uint32_t> mark{};  ///< As SO_MARK.
  /// May be longer than the path MTU that the kernel knows: sent with DF or, if longer than the
  /// device's MTU, refused with EMSGSIZE, but never fragmented. As IP_PMTUDISC_PROBE.
  bool path_mtu_probe = false;

  /// Whether it chooses what a flow class of its own is for.
  [[nodiscard]] bool chooses_class() const noexcept { return source || dscp || ttl != 0 || mark; }
  /// Whether anything is chosen.
  [[nodiscard]] bool any() const noexcept { return ecn || chooses_class() || path_mtu_probe; }
  friend bool operator==(const datagram_options&, const datagram_options&) noexcept = default;
};

}  // namespace cowire

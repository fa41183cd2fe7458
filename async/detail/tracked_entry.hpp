// SPDX-License-Identifier: Apache-2.0
/// What an entry of connection tracking means for a flow: whether it may be fast, and for how long
/// the kernel keeps it after a datagram. Pure functions.
///
/// Source: net/netfilter/nf_conntrack_proto_udp.c: a datagram sets the timer to the policy's
/// `unreplied` time, or to `replied` once an answer was seen and the entry is older than two
/// seconds; from then on it is ASSURED. shared by IPv4 and IPv6.
#pragma once

#include <cowire/base/reason.hpp>
#include <cowire/netlink/conntrack_codec.hpp>

#include <cstdint>
#include <optional>

namespace cowire::detail {

/// net.netfilter.nf_conntrack_udp_timeout and _udp_timeout_stream.
struct udp_timeouts {
  std::uint32_t unreplied_s = 30, replied_s = 120;
  /// Of the calling thread's network namespace; what cannot be read is the kernel's default.
  [[nodiscard]] static udp_timeouts read();
  friend bool operator==(const udp_timeouts&, const udp_timeouts&) noexcept = default;
};

/// What there is for other protocols: GRE (net.netfilter.nf_conntrack_gre_timeout and
/// _gre_timeout_stream), and any that the kernel knows nothing of (_generic_timeout), which have
/// one time for both.
struct outer_timeouts {
  udp_timeouts gre{30, 180}, other{600, 600};
  [[nodiscard]] const udp_timeouts& of(std::uint8_t protocol) const noexcept {
    return protocol == 47 ? gre : other;
  }
  /// As udp_timeouts::read().
  [[nodiscard]] static outer_timeouts read();
};

/// Why the flow of `own` may not be fast although the kernel has this entry for it; unset = it may.
/// Anything but an ordinary entry in either direction: translated, expected by a helper, with a
/// helper or a zone, kept by a flow table, dying, of a clash.
[[nodiscard]] std::optional<divert_reason> obstacle_in(const netlink::conntrack_entry& entry,
                                                       const netlink::conntrack_tuple& own);

/// How long an entry lives after a datagram.
class entry_clock {
 public:
  /// The kernel has just sent a datagram of the flow, and `left_s` seconds are left. False: nobody
  /// can tell yet whether that datagram has set the timer; the next one shows. A policy of its own
  /// (`ct timeout`) sets it to the same again, and a `notrack` rule leaves it as it was.
  [[nodiscard]] bool learn(std::uint32_t left_s, const udp_timeouts& usual) noexcept;
  /// Seconds, for an entry of this status that has been there for `age_ms` at least.
  [[nodiscard]] std::uint32_t life_s(std::uint32_t status, std::int64_t age_ms,
                                     const udp_timeouts& usual) const noexcept;
  /// Of other protocols, whose entries are none the older for it: nf_conntrack_proto_gre.c,
  /// nf_conntrack_proto_generic.c.
  static constexpr std::int64_t any_age_ms = 1'000'000;

 private:
  std::uint32_t unusual_s_ = 0;  ///< A policy of its own; 0 = not that anybody knows.
  std::uint32_t suspected_s_ = 0;
};

}  // namespace cowire::detail

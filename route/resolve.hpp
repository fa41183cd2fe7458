// SPDX-License-Identifier: Apache-2.0
/// The reference resolver: what the kernel would decide for one flow, by a plain walk over rules,
/// tables and routes.
///
/// It is written to be obviously right, not fast: the compiler is tested against it. The truth
/// audit and compiler::explain() ask for the same by search (route/resolve_by_search.hpp). It
/// never guesses: where the kernel's answer depends on something that cannot be known, `divert`
/// says so and the rest is the best knowledge.
///
/// Any thread, as long as nobody changes the mirror meanwhile. Allocates.
#pragma once

#include <cowire/base/reason.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/mirror.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace cowire {

/// Whom to imitate. RTM_GETROUTE looks once; an unbound IPv6 socket looks a second time, with a
/// source of its own choice, when the first look-up failed; a bound device is strict for a socket,
/// a preference for RTM_GETROUTE with a source. A tunnel asks about its outer datagrams as
/// RTM_GETROUTE does, but for what `oif` rules make of a VRF (detail/tunnel.hpp).
enum class route_question : std::uint8_t { get_route, send, outer };

/// One possible next hop of a decision.
struct path_member {
  std::uint32_t interface_index = 0;
  std::optional<ip_address> gateway;  ///< Only one that is really used; on-link otherwise.
  std::uint32_t weight = 1;
  std::uint32_t flags = 0;           ///< RTNH_F_*.
  std::optional<ip_address> source;  ///< What a datagram over this member would carry.
  std::uint32_t nexthop_id = 0;      ///< The object itself where it is one, 0 = a route's own.
  friend bool operator==(const path_member&, const path_member&) = default;
};

/// By hash threshold: hashes up to `bound` (and above the one before) go to `members[member]`. Of a
/// resilient group each share is a bucket and its bound the bucket's number: see share_of().
struct path_share {
  /// Which member has this bucket only the kernel knows.
  static constexpr std::uint32_t unknown_member = 0xffffffff;

  std::uint32_t bound = 0x7fffffff;
  std::uint32_t member = 0;
  [[nodiscard]] bool is_known() const noexcept { return member != unknown_member; }
  friend bool operator==(const path_share&, const path_share&) = default;
};

/// The share of a 31-bit flow hash, as the kernel has it: hashes are dealt to buckets modulo their
/// number, and thresholds cover all hashes.
[[nodiscard]] inline const path_share& share_of(std::span<const path_share> shares,
                                                std::uint32_t hash31) noexcept {
  const std::uint32_t key = hash31 % (shares.back().bound + 1);
  return *std::ranges::lower_bound(shares, key, {}, &path_share::bound);
}

struct resolution {
  int error = 0;  ///< errno the kernel answers, 0 = a route was found.
  std::optional<divert_reason>
      divert;  ///< Why the fast path cannot serve this; unset = it can, link layer permitting.
  std::uint8_t type = 0;    ///< RTN_* of the answer.
  std::uint32_t table = 0;  ///< 0 = found without a table (on-link fallback).
  /// A copy of the matched route; unset where the answer needs none.
  std::optional<netlink::route> route;
  std::uint32_t interface_index =
      0;                             ///< Output device; the loopback device for local destinations.
  std::vector<path_member> members;  ///< All of the matched route; one element without multipath.
  std::vector<path_share>
      shares;                ///< How live members divide the flows; one element without multipath.
  std::uint32_t chosen = 0;  ///< Index into members.
  bool choice_known =
      true;  ///< False: the kernel's hash is secret, `chosen` is one of the members it may take.
  /// Requested or selected; unset = there is none.
  std::optional<ip_address> source;
  std::uint32_t mtu = 0;    ///< Effective: path MTU, route metric, or device.
  bool mtu_locked = false;  ///< The kernel would send without DF.
  std::uint8_t hop_limit = 0;
};

[[nodiscard]] resolution resolve(const mirror& state, const flow& question,
                                 route_question as = route_question::send);

}  // namespace cowire

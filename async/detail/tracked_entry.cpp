// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/tracked_entry.hpp>

#include <algorithm>
#include <fstream>
#include <string>

namespace cowire::detail {
namespace {

using netlink::conntrack_status;

/// The bits of a UDP or tunnel entry that nothing unusual is done with.
constexpr std::uint32_t ordinary_bits =
    conntrack_status::seen_reply | conntrack_status::assured | conntrack_status::confirmed |
    conntrack_status::source_nat_done | conntrack_status::destination_nat_done;

/// How long this thread may be kept from asking after the datagram was sent.
constexpr std::uint32_t delay_max_s = 3;
/// After so long an answered flow is a stream (nf_conntrack_proto_udp.c: stream_ts).
constexpr std::int64_t stream_age_ms = 2000;

std::uint32_t read_seconds(const char* name, std::uint32_t fallback) {
  std::ifstream file(std::string("/proc/sys/net/netfilter/") + name);
  std::uint32_t value = fallback;
  return file >> value ? value : fallback;
}

/// Whether a timer that was set to `full` may have come down to `left` by now.
bool may_be(std::uint32_t left, std::uint32_t full) noexcept {
  return left <= full && left + delay_max_s >= full;
}

}  // namespace

udp_timeouts udp_timeouts::read() {
  const udp_timeouts usual;
  return {read_seconds("nf_conntrack_udp_timeout", usual.unreplied_s),
          read_seconds("nf_conntrack_udp_timeout_stream", usual.replied_s)};
}

outer_timeouts outer_timeouts::read() {
  const outer_timeouts usual;
  const std::uint32_t other = read_seconds("nf_conntrack_generic_timeout", usual.other.unreplied_s);
  return {{read_seconds("nf_conntrack_gre_timeout", usual.gre.unreplied_s),
           read_seconds("nf_conntrack_gre_timeout_stream", usual.gre.replied_s)},
          {other, other}};
}

std::optional<divert_reason> obstacle_in(const netlink::conntrack_entry& entry,
                                         const netlink::conntrack_tuple& own) {
  if (entry.is_translated()) return divert_reason::nat;
  const bool ours = entry.original == own || entry.reply == own;
  const bool ordinary = (entry.status & ~ordinary_bits) == 0 &&
                        (entry.status & conntrack_status::confirmed) != 0 && entry.timeout_s;
  if (!ours || !ordinary || entry.has_helper || entry.zone != 0)
    return divert_reason::conntrack_new;
  return std::nullopt;
}

bool entry_clock::learn(std::uint32_t left_s, const udp_timeouts& usual) noexcept {
  if (may_be(left_s, usual.unreplied_s) || may_be(left_s, usual.replied_s)) {
    unusual_s_ = suspected_s_ = 0;
    return true;
  }
  const std::uint32_t full_s = left_s + 1;  // Rounded down.
  const bool again =
      suspected_s_ != 0 && std::max(suspected_s_, full_s) - std::min(suspected_s_, full_s) <= 1;
  suspected_s_ = full_s;
  unusual_s_ = again ? full_s : 0;
  return again;
}

std::uint32_t entry_clock::life_s(std::uint32_t status, std::int64_t age_ms,
                                  const udp_timeouts& usual) const noexcept {
  if (unusual_s_ != 0) return unusual_s_;
  const bool replied = (status & conntrack_status::seen_reply) != 0;
  const bool stream =
      (status & conntrack_status::assured) != 0 || (replied && age_ms >= stream_age_ms);
  return stream ? usual.replied_s : usual.unreplied_s;
}

}  // namespace cowire::detail

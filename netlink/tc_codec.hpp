// SPDX-License-Identifier: Apache-2.0
/// Queueing disciplines and filters of traffic control, as far as it counts what kinds there are.
///
/// As codec.hpp: no I/O, no state, no trust. Any thread.
/// Source: include/uapi/linux/pkt_sched.h, rtnetlink.h; net/sched/sch_api.c, cls_api.c.
#pragma once

#include <cowire/netlink/codec.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cowire::netlink {

/// RTNLGRP_TC: disciplines and filters made, changed and removed by user space.
inline constexpr int tc_group = 4;

struct queueing_discipline {
  std::uint32_t interface_index = 0;
  std::uint32_t handle = 0, parent = 0;
  std::string kind;
  /// Of fq: a rate that it holds its flows to. 0xffffffff = none; unset = not told.
  std::optional<std::uint32_t> fq_flow_max_rate;
  /// How many datagrams it takes, of bfifo bytes, of fq the lesser of all and of one flow's. Told
  /// of pfifo, bfifo, fq, fq_codel, codel, pie and fq_pie; unset = not told.
  std::optional<std::uint32_t> limit;
  /// Of fq_codel: how many bytes of memory it takes. Unset = not told, and so unlimited.
  std::optional<std::uint32_t> memory_limit;
  /// Of fq, fq_codel and codel: after how long in the queue it marks ECN. Unset = never.
  std::optional<std::uint32_t> ce_threshold_us;
  std::optional<std::uint16_t> bands;  ///< Of multiq.
  bool has_size_table = false;         ///< Bytes are not counted as they are.
  friend bool operator==(const queueing_discipline&, const queueing_discipline&) = default;
};

/// Where filters hang that see what leaves a device by clsact.
inline constexpr std::uint32_t clsact_egress = 0xfffffff3;

[[nodiscard]] std::vector<std::byte> disciplines_request(std::uint32_t sequence);
/// A dump of the filters below one parent: clsact_egress, or a discipline's handle.
[[nodiscard]] std::vector<std::byte> filters_request(std::uint32_t interface_index,
                                                     std::uint32_t parent, std::uint32_t sequence);

/// Empty without error: another message, or a removal.
[[nodiscard]] std::optional<queueing_discipline> decode_discipline(const envelope& answer,
                                                                   std::error_code& ec);
/// Which one a message tells of: "matchall, preference 49152", of a block that devices share "...,
/// block 5". Empty: another message. Never empty of a filter, however little it tells.
[[nodiscard]] std::string filter_text(const envelope& answer);

}  // namespace cowire::netlink

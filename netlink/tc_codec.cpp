// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/netlink/detail/attributes.hpp>
#include <cowire/netlink/detail/request_builder.hpp>
#include <cowire/netlink/tc_codec.hpp>

#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <string_view>

namespace cowire::netlink {

using namespace detail;

static_assert(tc_group == RTNLGRP_TC);

namespace {

/// Where a kind tells of its limits; 0 = it has none of this sort.
struct limit_attributes {
  std::string_view kind;
  std::uint16_t datagrams, of_flow, memory, ce_threshold;
};
constexpr limit_attributes all_limits[] = {
    {"fq", TCA_FQ_PLIMIT, TCA_FQ_FLOW_PLIMIT, 0, TCA_FQ_CE_THRESHOLD},
    {"fq_codel", TCA_FQ_CODEL_LIMIT, 0, TCA_FQ_CODEL_MEMORY_LIMIT, TCA_FQ_CODEL_CE_THRESHOLD},
    {"codel", TCA_CODEL_LIMIT, 0, 0, TCA_CODEL_CE_THRESHOLD},
    {"pie", TCA_PIE_LIMIT, 0, 0, 0},
    {"fq_pie", TCA_FQ_PIE_LIMIT, 0, 0, 0},
};

void read_limits(byte_span options, const limit_attributes& of, queueing_discipline& out,
                 std::error_code& ec) {
  for_each_attribute(options, ec, [&](const attribute& a) {
    std::uint32_t value = 0;
    const bool known = a.type != 0 && (a.type == of.datagrams || a.type == of.of_flow ||
                                       a.type == of.memory || a.type == of.ce_threshold);
    if (!known) return;
    read(a, value, ec);
    if (a.type == of.memory)
      out.memory_limit = value;
    else if (a.type == of.ce_threshold)
      out.ce_threshold_us = value;
    else
      out.limit = std::min(value, out.limit.value_or(value));
  });
}

void read_options(byte_span options, queueing_discipline& out, std::error_code& ec) {
  if (options.empty()) return;
  if (out.kind == "fq")
    for_each_attribute(options, ec, [&](const attribute& a) {
      if (a.type == TCA_FQ_FLOW_MAX_RATE) read(a, out.fq_flow_max_rate, ec);
    });
  if (out.kind == "pfifo" || out.kind == "bfifo") {
    tc_fifo_qopt fifo{};
    if (take(options, fifo, ec)) out.limit = fifo.limit;
  } else if (out.kind == "multiq") {
    tc_multiq_qopt multiq{};
    if (take(options, multiq, ec)) out.bands = multiq.bands;
  } else if (const auto* found = std::ranges::find(all_limits, out.kind, &limit_attributes::kind);
             found != std::end(all_limits)) {
    read_limits(options, *found, out, ec);
  }
}

}  // namespace

std::vector<std::byte> disciplines_request(std::uint32_t sequence) {
  request_builder out(RTM_GETQDISC, NLM_F_DUMP, sequence);
  tcmsg all{};
  all.tcm_family = AF_UNSPEC;
  out.header(all);
  // The children that a classful discipline makes by itself, too; a flag without content.
  nlattr invisible{sizeof(nlattr), TCA_DUMP_INVISIBLE};
  out.header(invisible);
  return out.finish();
}

std::vector<std::byte> filters_request(std::uint32_t interface_index, std::uint32_t parent,
                                       std::uint32_t sequence) {
  request_builder out(RTM_GETTFILTER, NLM_F_DUMP, sequence);
  tcmsg which{};
  which.tcm_family = AF_UNSPEC;
  which.tcm_ifindex = static_cast<int>(interface_index);
  which.tcm_parent = parent;
  out.header(which);
  return out.finish();
}

std::optional<queueing_discipline> decode_discipline(const envelope& answer, std::error_code& ec) {
  if (answer.type != RTM_NEWQDISC) return std::nullopt;
  byte_span rest = answer.bytes.subspan(sizeof(nlmsghdr));
  tcmsg fixed{};
  if (!take(rest, fixed, ec)) return std::nullopt;
  queueing_discipline out;
  out.interface_index = static_cast<std::uint32_t>(fixed.tcm_ifindex);
  out.handle = fixed.tcm_handle;
  out.parent = fixed.tcm_parent;
  byte_span options;
  for_each_attribute(rest, ec, [&](const attribute& a) {
    if (a.type == TCA_KIND) read(a, out.kind, ec);
    if (a.type == TCA_OPTIONS) options = a.payload;
    out.has_size_table |= a.type == TCA_STAB;
  });
  if (!ec) read_options(options, out, ec);
  if (!ec && out.kind.empty()) ec = error::malformed;
  if (ec) return std::nullopt;
  return out;
}

std::string filter_text(const envelope& answer) {
  if (answer.type != RTM_NEWTFILTER) return {};
  byte_span rest = answer.bytes.subspan(sizeof(nlmsghdr));
  std::error_code ec;
  tcmsg fixed{};
  std::string kind;
  if (take(rest, fixed, ec))
    for_each_attribute(rest, ec, [&](const attribute& a) {
      if (a.type == TCA_KIND) read(a, kind, ec);
    });
  if (ec || kind.empty()) return "of an unknown kind";
  std::string text = kind + ", preference " + std::to_string(fixed.tcm_info >> 16);
  if (static_cast<std::uint32_t>(fixed.tcm_ifindex) == TCM_IFINDEX_MAGIC_BLOCK)
    text += ", block " + std::to_string(fixed.tcm_parent);
  return text;
}

}  // namespace cowire::netlink

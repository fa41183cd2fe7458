// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/netlink/detail/attributes.hpp>
#include <cowire/netlink/detail/request_builder.hpp>
#include <cowire/netlink/tc_codec.hpp>

#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

namespace cowire::netlink {

using namespace detail;

static_assert(tc_group == RTNLGRP_TC);

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
  });
  if (out.kind == "fq")
    for_each_attribute(options, ec, [&](const attribute& a) {
      if (a.type == TCA_FQ_FLOW_MAX_RATE) read(a, out.fq_flow_max_rate, ec);
    });
  if (!ec && out.kind.empty()) ec = error::malformed;
  if (ec) return std::nullopt;
  return out;
}

bool is_filter(const envelope& answer) noexcept { return answer.type == RTM_NEWTFILTER; }

}  // namespace cowire::netlink

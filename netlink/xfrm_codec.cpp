// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/netlink/detail/attributes.hpp>
#include <cowire/netlink/detail/request_builder.hpp>
#include <cowire/netlink/xfrm_codec.hpp>

#include <linux/xfrm.h>

namespace cowire::netlink {

using namespace detail;

namespace {

// xfrm.h since 5.15; numbers of messages are ABI.
constexpr std::uint16_t get_default = 0x28, set_default = 0x27;
constexpr std::uint8_t default_block = 1;
struct policy_default {
  std::uint8_t in, forward, out;
};

}  // namespace

static_assert(xfrm_policy_group == XFRMNLGRP_POLICY);

std::vector<std::byte> xfrm_counts_request(std::uint32_t sequence) {
  request_builder out(XFRM_MSG_GETSPDINFO, 0, sequence);
  out.header(std::uint32_t{0});
  return out.finish();
}

std::vector<std::byte> xfrm_default_request(std::uint32_t sequence) {
  request_builder out(get_default, 0, sequence);
  out.header(policy_default{});
  return out.finish();
}

std::optional<xfrm_policy_counts> decode_xfrm_counts(const envelope& answer, std::error_code& ec) {
  if (answer.type != XFRM_MSG_NEWSPDINFO) return std::nullopt;
  byte_span rest = answer.bytes.subspan(sizeof(nlmsghdr));
  std::uint32_t flags = 0;
  if (!take(rest, flags, ec)) return std::nullopt;
  std::optional<xfrm_policy_counts> out;
  for_each_attribute(rest, ec, [&](const attribute& a) {
    if (a.type != XFRMA_SPD_INFO) return;
    xfrmu_spdinfo info{};
    read(a, info, ec);
    out = xfrm_policy_counts{info.outcnt + info.outscnt};
  });
  if (!ec && !out) ec = error::malformed;
  return ec ? std::nullopt : out;
}

std::optional<bool> decode_xfrm_default_blocks(const envelope& answer, std::error_code& ec) {
  if (answer.type != get_default && answer.type != set_default) return std::nullopt;
  byte_span rest = answer.bytes.subspan(sizeof(nlmsghdr));
  policy_default found{};
  if (!take(rest, found, ec)) return std::nullopt;
  return found.out == default_block;
}

}  // namespace cowire::netlink

// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/netlink/detail/attributes.hpp>
#include <cowire/netlink/detail/request_builder.hpp>
#include <cowire/netlink/xfrm_codec.hpp>

#include <linux/xfrm.h>
#include <sys/socket.h>

#include <utility>

namespace cowire::netlink {

using namespace detail;

namespace {

// xfrm.h since 5.15; numbers of messages are ABI.
constexpr std::uint16_t get_default = 0x28, set_default = 0x27;
constexpr std::uint8_t default_block = 1;
struct policy_default {
  std::uint8_t in, forward, out;
};

/// Those of sockets have the same directions again behind the others (net/xfrm/xfrm_policy.c).
constexpr std::uint8_t socket_output = XFRM_POLICY_MAX + XFRM_POLICY_OUT;

ip_prefix read_prefix(ip_family family, const xfrm_address_t& address, unsigned length,
                      std::error_code& ec) {
  const auto whole = ip_address::from_bytes(family, &address);
  if (length > whole.bits()) ec = error::malformed;
  return {whole, ec ? 0 : length};
}

xfrm_policy read_policy(const xfrm_userpolicy_info& info, std::error_code& ec) {
  xfrm_policy out;
  out.index = info.index;
  out.of_a_socket = info.dir == socket_output;
  out.blocks = info.action != XFRM_POLICY_ALLOW;
  out.harmless = !out.blocks;
  const xfrm_selector& is_for = info.sel;
  if (is_for.family != AF_INET && is_for.family != AF_INET6) {
    ec = error::malformed;
    return out;
  }
  const ip_family family = is_for.family == AF_INET ? ip_family::v4 : ip_family::v6;
  out.source = read_prefix(family, is_for.saddr, is_for.prefixlen_s, ec);
  out.destination = read_prefix(family, is_for.daddr, is_for.prefixlen_d, ec);
  out.source_port = be16{is_for.sport}.host();
  out.source_port_mask = be16{is_for.sport_mask}.host();
  out.destination_port = be16{is_for.dport}.host();
  out.destination_port_mask = be16{is_for.dport_mask}.host();
  out.protocol = is_for.proto;
  return out;
}

void read_attribute(const attribute& a, xfrm_policy& to, std::error_code& ec) {
  switch (a.type) {
    case XFRMA_TMPL:
      to.harmless &= a.payload.empty();
      return;
    case XFRMA_MARK: {
      xfrm_mark mark{};
      read(a, mark, ec);
      to.mark = mark.v;
      to.mark_mask = mark.m;
      return;
    }
    case XFRMA_IF_ID:
      return read(a, to.if_id, ec);
    case XFRMA_POLICY:       // Read already.
    case XFRMA_POLICY_TYPE:  // Those of both types are looked at.
    case XFRMA_SEC_CTX:      // For fewer flows then.
    case XFRMA_PAD:
      return;
    default:
      to.harmless = false;  // Whatever it means.
      return;
  }
}

}  // namespace

static_assert(xfrm_policy_group == XFRMNLGRP_POLICY);

std::vector<std::byte> xfrm_counts_request(std::uint32_t sequence) {
  request_builder out(XFRM_MSG_GETSPDINFO, 0, sequence);
  out.header(std::uint32_t{0});
  return out.finish();
}

std::vector<std::byte> xfrm_policies_request(std::uint32_t sequence) {
  request_builder out(XFRM_MSG_GETPOLICY, NLM_F_DUMP, sequence);
  out.header(xfrm_userpolicy_id{});
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
    out = xfrm_policy_counts{info.outcnt, info.outscnt};
  });
  if (!ec && !out) ec = error::malformed;
  return ec ? std::nullopt : out;
}

std::optional<xfrm_policy_change> decode_xfrm_change(const envelope& answer, std::error_code& ec) {
  const bool removed = answer.type == XFRM_MSG_DELPOLICY;
  if (!removed && answer.type != XFRM_MSG_NEWPOLICY && answer.type != XFRM_MSG_UPDPOLICY)
    return std::nullopt;
  byte_span rest = answer.bytes.subspan(sizeof(nlmsghdr));
  xfrm_userpolicy_info info{};
  xfrm_userpolicy_id id{};
  if (!(removed ? take(rest, id, ec) : take(rest, info, ec))) return std::nullopt;
  bool told = !removed;
  if (removed)
    for_each_attribute(rest, ec, [&](const attribute& a) {
      if (a.type != XFRMA_POLICY) return;
      read(a, info, ec);
      told = true;
    });
  if (!ec && !told) ec = error::malformed;
  if (ec) return std::nullopt;
  xfrm_policy_change out;
  out.removed = removed;
  out.output = info.dir == XFRM_POLICY_OUT || info.dir == socket_output;
  if (!out.output) return out;
  out.policy = read_policy(info, ec);
  for_each_attribute(rest, ec, [&](const attribute& a) { read_attribute(a, out.policy, ec); });
  if (ec) return std::nullopt;
  return out;
}

std::optional<bool> decode_xfrm_default_blocks(const envelope& answer, std::error_code& ec) {
  if (answer.type != get_default && answer.type != set_default) return std::nullopt;
  byte_span rest = answer.bytes.subspan(sizeof(nlmsghdr));
  policy_default found{};
  if (!take(rest, found, ec)) return std::nullopt;
  return found.out == default_block;
}

}  // namespace cowire::netlink

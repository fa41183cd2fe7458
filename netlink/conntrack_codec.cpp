// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/netlink/conntrack_codec.hpp>
#include <cowire/netlink/detail/attributes.hpp>
#include <cowire/netlink/detail/message_builder.hpp>

#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

#include <algorithm>

namespace cowire::netlink {

using namespace detail;

namespace {

static_assert(conntrack_status::seen_reply == IPS_SEEN_REPLY &&
              conntrack_status::assured == IPS_ASSURED &&
              conntrack_status::confirmed == IPS_CONFIRMED &&
              conntrack_status::source_nat == IPS_SRC_NAT &&
              conntrack_status::destination_nat == IPS_DST_NAT &&
              conntrack_status::source_nat_done == IPS_SRC_NAT_DONE &&
              conntrack_status::destination_nat_done == IPS_DST_NAT_DONE);

/// More than any request here takes.
constexpr std::size_t request_size_max = 256;

constexpr std::uint16_t type_of(unsigned message) noexcept {
  return static_cast<std::uint16_t>(NFNL_SUBSYS_CTNETLINK << 8 | message);
}

struct address_attributes {
  std::uint16_t source, destination;
};
constexpr address_attributes attributes_of(ip_family family) noexcept {
  return family == ip_family::v4 ? address_attributes{CTA_IP_V4_SRC, CTA_IP_V4_DST}
                                 : address_attributes{CTA_IP_V6_SRC, CTA_IP_V6_DST};
}

nfgenmsg header_of(ip_family family) noexcept {
  return {static_cast<std::uint8_t>(family == ip_family::v4 ? AF_INET : AF_INET6), NFNETLINK_V0, 0};
}

void put_tuple(nlmsghdr* to, std::uint16_t type, const conntrack_tuple& tuple) {
  const auto names = attributes_of(tuple.source.family());
  nlattr* const whole = mnl_attr_nest_start(to, type);
  nlattr* const addresses = mnl_attr_nest_start(to, CTA_TUPLE_IP);
  mnl_attr_put(to, names.source, tuple.source.size(), tuple.source.bytes().data());
  mnl_attr_put(to, names.destination, tuple.destination.size(), tuple.destination.bytes().data());
  mnl_attr_nest_end(to, addresses);
  nlattr* const protocol = mnl_attr_nest_start(to, CTA_TUPLE_PROTO);
  mnl_attr_put_u8(to, CTA_PROTO_NUM, tuple.protocol);
  mnl_attr_put_u16(to, CTA_PROTO_SRC_PORT, be16::from_host(tuple.source_port).raw);
  mnl_attr_put_u16(to, CTA_PROTO_DST_PORT, be16::from_host(tuple.destination_port).raw);
  mnl_attr_nest_end(to, protocol);
  mnl_attr_nest_end(to, whole);
}

/// Numbers of ctnetlink are in network order.
template <class T>
T host_order(T value) noexcept {
  if constexpr (sizeof value == 2)
    return __builtin_bswap16(value);
  else
    return __builtin_bswap32(value);
}
template <class T>
void read_network_order(const attribute& from, T& to, std::error_code& ec) noexcept {
  T value{};
  read(from, value, ec);
  to = host_order(value);
}

void read_addresses(byte_span from, ip_family family, conntrack_tuple& to, bool (&seen)[2],
                    std::error_code& ec) {
  const auto names = attributes_of(family);
  for_each_attribute(from, ec, [&](const attribute& a) {
    if (a.type == names.source) read(a, family, to.source, ec), seen[0] = true;
    if (a.type == names.destination) read(a, family, to.destination, ec), seen[1] = true;
  });
}

void read_protocol(byte_span from, conntrack_tuple& to, bool& seen, std::error_code& ec) {
  for_each_attribute(from, ec, [&](const attribute& a) {
    if (a.type == CTA_PROTO_NUM) read(a, to.protocol, ec), seen = true;
    if (a.type == CTA_PROTO_SRC_PORT) read_network_order(a, to.source_port, ec);
    if (a.type == CTA_PROTO_DST_PORT) read_network_order(a, to.destination_port, ec);
  });
}

void read_tuple(byte_span from, ip_family family, conntrack_tuple& to, std::uint16_t& zone,
                std::error_code& ec) {
  bool addresses[2] = {}, protocol = false;
  for_each_attribute(from, ec, [&](const attribute& a) {
    if (a.type == CTA_TUPLE_IP) read_addresses(a.payload, family, to, addresses, ec);
    if (a.type == CTA_TUPLE_PROTO) read_protocol(a.payload, to, protocol, ec);
    if (a.type == CTA_TUPLE_ZONE) read_network_order(a, zone, ec);
  });
  if (!ec && !(addresses[0] && addresses[1] && protocol)) ec = error::malformed;
}

}  // namespace

void conntrack_batch::append(std::uint16_t type, ip_family family, const conntrack_tuple* tuple,
                             const std::uint32_t* timeout_s, std::uint32_t sequence) {
  if (bytes_.size() < size_ + request_size_max)
    bytes_.resize(std::max(size_ + request_size_max, 2 * bytes_.size()));
  nlmsghdr* const request = mnl_nlmsg_put_header(bytes_.data() + size_);
  request->nlmsg_type = type;
  request->nlmsg_flags = NLM_F_REQUEST;
  request->nlmsg_seq = sequence;
  *static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(request, sizeof(nfgenmsg))) =
      header_of(family);
  if (tuple != nullptr) put_tuple(request, CTA_TUPLE_ORIG, *tuple);
  if (timeout_s != nullptr) mnl_attr_put_u32(request, CTA_TIMEOUT, host_order(*timeout_s));
  size_ += aligned(request->nlmsg_len);
}

void conntrack_batch::get(const conntrack_tuple& tuple, std::uint32_t sequence) {
  append(type_of(IPCTNL_MSG_CT_GET), tuple.source.family(), &tuple, nullptr, sequence);
}
void conntrack_batch::refresh(const conntrack_tuple& tuple, std::uint32_t timeout_s,
                              std::uint32_t sequence) {
  append(type_of(IPCTNL_MSG_CT_NEW), tuple.source.family(), &tuple, &timeout_s, sequence);
}
void conntrack_batch::remove(const conntrack_tuple& tuple, std::uint32_t sequence) {
  append(type_of(IPCTNL_MSG_CT_DELETE), tuple.source.family(), &tuple, nullptr, sequence);
}
void conntrack_batch::flush(std::uint32_t sequence) {
  // Of version 0, which knows of no families here (net/netfilter/nf_conntrack_netlink.c).
  append(type_of(IPCTNL_MSG_CT_DELETE), ip_family::v4, nullptr, nullptr, sequence);
}

std::optional<conntrack_entry> decode_conntrack(const envelope& answer, std::error_code& ec) {
  if (answer.type != type_of(IPCTNL_MSG_CT_NEW)) return std::nullopt;
  byte_span rest = answer.bytes.subspan(sizeof(nlmsghdr));
  nfgenmsg fixed{};
  if (!take(rest, fixed, ec)) return std::nullopt;
  if (fixed.nfgen_family != AF_INET && fixed.nfgen_family != AF_INET6) return std::nullopt;
  const ip_family family = fixed.nfgen_family == AF_INET ? ip_family::v4 : ip_family::v6;
  conntrack_entry out;
  bool original = false, reply = false;
  for_each_attribute(rest, ec, [&](const attribute& a) {
    switch (a.type) {
      case CTA_TUPLE_ORIG:
        original = true;
        return read_tuple(a.payload, family, out.original, out.zone, ec);
      case CTA_TUPLE_REPLY:
        reply = true;
        return read_tuple(a.payload, family, out.reply, out.zone, ec);
      case CTA_STATUS:
        return read_network_order(a, out.status, ec);
      case CTA_TIMEOUT:
        return read_network_order(a, out.timeout_s.emplace(), ec);
      case CTA_MARK:
        return read_network_order(a, out.mark, ec);
      case CTA_ID:
        return read_network_order(a, out.id, ec);
      case CTA_ZONE:
        return read_network_order(a, out.zone, ec);
      case CTA_HELP:
        out.has_helper = true;
        return;
      default:
        return;
    }
  });
  if (!ec && !(original && reply)) ec = error::malformed;
  if (ec) return std::nullopt;
  return out;
}

std::vector<std::byte> encode_conntrack(const conntrack_entry& entry, std::uint32_t sequence) {
  std::vector<std::byte> bytes(2 * request_size_max);
  nlmsghdr* const answer = mnl_nlmsg_put_header(bytes.data());
  answer->nlmsg_type = type_of(IPCTNL_MSG_CT_NEW);
  answer->nlmsg_seq = sequence;
  *static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(answer, sizeof(nfgenmsg))) =
      header_of(entry.original.source.family());
  put_tuple(answer, CTA_TUPLE_ORIG, entry.original);
  put_tuple(answer, CTA_TUPLE_REPLY, entry.reply);
  if (entry.zone != 0) mnl_attr_put_u16(answer, CTA_ZONE, host_order(entry.zone));
  mnl_attr_put_u32(answer, CTA_STATUS, host_order(entry.status));
  if (entry.timeout_s) mnl_attr_put_u32(answer, CTA_TIMEOUT, host_order(*entry.timeout_s));
  if (entry.mark != 0) mnl_attr_put_u32(answer, CTA_MARK, host_order(entry.mark));
  if (entry.id != 0) mnl_attr_put_u32(answer, CTA_ID, host_order(entry.id));
  if (entry.has_helper) {
    nlattr* const help = mnl_attr_nest_start(answer, CTA_HELP);
    mnl_attr_put_strz(answer, CTA_HELP_NAME, "ftp");
    mnl_attr_nest_end(answer, help);
  }
  bytes.resize(answer->nlmsg_len);
  return bytes;
}

}  // namespace cowire::netlink

// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/detail/constants.hpp>
#include <cowire/netlink/detail/objects.hpp>

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>

namespace cowire::netlink::detail {
namespace {

void read_range(const attribute& a, std::optional<range<std::uint16_t>>& to, std::error_code& ec) {
  fib_rule_port_range ports{};
  read(a, ports, ec);
  if (!ec) to = range<std::uint16_t>{ports.start, ports.end};
}

// Attributes that name traffic; false: not one of them.
bool read_rule_selector(const attribute& a, rule& to, std::error_code& ec) {
  switch (a.type) {
    case FRA_IIFNAME:
      return read(a, to.input_interface, ec), true;
    case FRA_OIFNAME:
      return read(a, to.output_interface, ec), true;
    case FRA_FWMARK:
      return read(a, to.mark, ec), true;
    case FRA_IP_PROTO:
      return read(a, to.ip_protocol, ec), true;
    case FRA_L3MDEV:
      return read_flag<std::uint8_t>(a, to.l3mdev, ec), true;
    case FRA_SPORT_RANGE:
      return read_range(a, to.source_port, ec), true;
    case FRA_DPORT_RANGE:
      return read_range(a, to.destination_port, ec), true;
    case fra_sport_mask:
      return read(a, to.source_port_mask, ec), true;
    case fra_dport_mask:
      return read(a, to.destination_port_mask, ec), true;
    case fra_dscp:
      return read(a, to.dscp, ec), true;
    case fra_dscp_mask:
      return read(a, to.dscp_mask, ec), true;
    case FRA_TUN_ID: {
      std::uint64_t big_endian = 0;
      read(a, big_endian, ec);
      to.tunnel_id = __builtin_bswap64(big_endian);
      return true;
    }
    case FRA_UID_RANGE: {
      fib_rule_uid_range uids{};
      read(a, uids, ec);
      to.uid = range<std::uint32_t>{uids.start, uids.end};
      return true;
    }
    case fra_flowlabel: {
      be32 label;
      read(a, label, ec);
      to.flow_label = label.host();
      return true;
    }
    case fra_flowlabel_mask: {
      be32 mask;
      read(a, mask, ec);
      to.flow_label_mask = mask.host();
      return true;
    }
    default:
      return false;
  }
}

// -1 is how the kernel writes "unset".
void read_suppressor(const attribute& a, std::optional<std::uint32_t>& to, std::error_code& ec) {
  std::uint32_t value = 0;
  read(a, value, ec);
  if (!ec && value != 0xffffffff) to = value;
}

struct rule_parts {
  std::optional<ip_address> from, to;
  std::optional<std::uint32_t> mark_mask;
};

void read_rule_attribute(const attribute& a, rule& to, rule_parts& parts, std::error_code& ec) {
  if (read_rule_selector(a, to, ec)) return;
  switch (a.type) {
    case FRA_SRC:
      return read(a, to.family, parts.from, ec);
    case FRA_DST:
      return read(a, to.family, parts.to, ec);
    case FRA_FWMASK:
      return read(a, parts.mark_mask, ec);
    case FRA_PRIORITY:
      return read(a, to.priority, ec);
    case FRA_TABLE:
      return read(a, to.table, ec);
    case FRA_GOTO:
      return read(a, to.goto_target, ec);
    case FRA_SUPPRESS_PREFIXLEN:
      return read_suppressor(a, to.suppress_prefix_length, ec);
    case FRA_SUPPRESS_IFGROUP:
      return read_suppressor(a, to.suppress_group, ec);
    case FRA_PROTOCOL:
      return read(a, to.protocol, ec);
    case FRA_FLOW:  // The realm: it labels, it does not decide.
    case FRA_PAD:
      return;
    default:
      to.unknown.push_back(a.type);
      return;
  }
}

void put_range(message_builder& to, std::uint16_t type,
               const std::optional<range<std::uint16_t>>& ports) {
  if (ports) to.put(type, fib_rule_port_range{ports->first, ports->last});
}

// Masks that say "whole" are left out: a kernel that lacks them refuses them.
void put_rule_selectors(message_builder& to, const rule& from) {
  put_if_set(to, FRA_IIFNAME, from.input_interface);
  put_if_set(to, FRA_OIFNAME, from.output_interface);
  if (from.mark != 0 || from.mark_mask != 0) {
    to.put(FRA_FWMARK, from.mark);
    to.put(FRA_FWMASK, from.mark_mask);
  }
  if (from.tunnel_id != 0) to.put(FRA_TUN_ID, std::uint64_t{__builtin_bswap64(from.tunnel_id)});
  if (from.l3mdev) to.put(FRA_L3MDEV, std::uint8_t{1});
  if (from.uid) to.put(FRA_UID_RANGE, fib_rule_uid_range{from.uid->first, from.uid->last});
  put_if_set(to, FRA_IP_PROTO, from.ip_protocol);
  put_range(to, FRA_SPORT_RANGE, from.source_port);
  put_range(to, FRA_DPORT_RANGE, from.destination_port);
  if (from.source_port_mask != 0xffff) to.put(fra_sport_mask, from.source_port_mask);
  if (from.destination_port_mask != 0xffff) to.put(fra_dport_mask, from.destination_port_mask);
  put_if(to, fra_dscp, from.dscp);
  if (from.dscp_mask != 0x3f) to.put(fra_dscp_mask, from.dscp_mask);
  if (from.flow_label) to.put(fra_flowlabel, be32::from_host(*from.flow_label));
  if (from.flow_label_mask != 0) to.put(fra_flowlabel_mask, be32::from_host(from.flow_label_mask));
}

}  // namespace

std::optional<message> decode_rule(body in, std::error_code& ec) {
  fib_rule_hdr header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  const auto family = family_from(header.family);
  if (!family) return std::nullopt;

  rule to;
  to.action = in.action(RTM_DELRULE);
  to.family = *family;
  to.table = header.table;
  to.kind = header.action;
  to.tos = header.tos;
  to.invert = (header.flags & FIB_RULE_INVERT) != 0;
  to.find_source = (header.flags & FIB_RULE_FIND_SADDR) != 0;
  to.input_detached = (header.flags & FIB_RULE_IIF_DETACHED) != 0;
  to.output_detached = (header.flags & FIB_RULE_OIF_DETACHED) != 0;
  rule_parts parts;
  for_each_attribute(in.bytes, ec,
                     [&](const attribute& a) { read_rule_attribute(a, to, parts, ec); });
  if (ec) return std::nullopt;
  if (header.src_len > 0) to.from = prefix_from(parts.from, *family, header.src_len, ec);
  if (header.dst_len > 0) to.to = prefix_from(parts.to, *family, header.dst_len, ec);
  if (ec) return std::nullopt;
  // A mark without a mask is compared whole; the kernel always sends both.
  to.mark_mask = parts.mark_mask.value_or(to.mark != 0 ? 0xffffffff : 0);
  return to;
}

std::vector<std::byte> encode_object(const rule& from) {
  fib_rule_hdr header{};
  header.family = family_number(from.family);
  header.dst_len = from.to ? static_cast<std::uint8_t>(from.to->length()) : std::uint8_t{0};
  header.src_len = from.from ? static_cast<std::uint8_t>(from.from->length()) : std::uint8_t{0};
  header.tos = from.tos;
  header.table = short_table(from.table);
  header.action = from.kind;
  header.flags = (from.invert ? FIB_RULE_INVERT : 0u) |
                 (from.find_source ? FIB_RULE_FIND_SADDR : 0u) |
                 (from.input_detached ? FIB_RULE_IIF_DETACHED : 0u) |
                 (from.output_detached ? FIB_RULE_OIF_DETACHED : 0u);
  message_builder to(type_for(from.action, RTM_NEWRULE, RTM_DELRULE), 0, 0, header);
  to.put(FRA_TABLE, from.table);
  to.put(FRA_PRIORITY, from.priority);
  if (from.from) to.put(FRA_SRC, from.from->address());
  if (from.to) to.put(FRA_DST, from.to->address());
  put_rule_selectors(to, from);
  put_if_set(to, FRA_GOTO, from.goto_target);
  put_if(to, FRA_SUPPRESS_PREFIXLEN, from.suppress_prefix_length);
  put_if(to, FRA_SUPPRESS_IFGROUP, from.suppress_group);
  to.put(FRA_PROTOCOL, from.protocol);
  return std::move(to).finish();
}

}  // namespace cowire::netlink::detail

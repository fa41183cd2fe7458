// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/detail/constants.hpp>
#include <cowire/netlink/detail/objects.hpp>

#include <linux/nexthop.h>
#include <linux/rtnetlink.h>

namespace cowire::netlink::detail {
namespace {

void read_group(const attribute& a, nexthop_object& to, std::error_code& ec) {
  byte_span bytes = a.payload;
  if (bytes.size() % sizeof(nexthop_group_entry) != 0) ec = error::malformed;
  while (!bytes.empty() && !ec) {
    nexthop_group_entry entry;
    if (!take(bytes, entry, ec)) return;
    to.group.push_back({entry.id, (entry.weight_high * 256u + entry.weight_low) + 1u});
  }
}

void read_resilience(byte_span bytes, nexthop_object& to, std::error_code& ec) {
  for_each_attribute(bytes, ec, [&](const attribute& a) {
    if (a.type == NHA_RES_GROUP_BUCKETS) read(a, to.resilient_buckets, ec);
  });
}

void read_nexthop_attribute(const attribute& a, std::optional<ip_family> family, nexthop_object& to,
                            std::error_code& ec) {
  switch (a.type) {
    case NHA_ID:
      return read(a, to.id, ec);
    case NHA_OIF:
      return read(a, to.index, ec);
    case NHA_GATEWAY:
      if (!family) {
        ec = error::malformed;
        return;
      }
      return read(a, *family, to.gateway, ec);
    case NHA_GROUP:
      return read_group(a, to, ec);
    case NHA_GROUP_TYPE:
      return read(a, to.group_type, ec);
    case NHA_RES_GROUP:
      return read_resilience(a.payload, to, ec);
    case NHA_BLACKHOLE:
      to.blackhole = true;
      return;
    case NHA_FDB:
      to.fdb = true;
      return;
    case NHA_ENCAP_TYPE:
    case NHA_ENCAP:
      to.encapsulated = true;
      return;
    default:  // Up to the last known one: filters of requests and statistics.
      if (a.type > nha_hw_stats_used) to.unknown.push_back(a.type);
      return;
  }
}

void put_group(message_builder& to, const nexthop_object& from) {
  std::vector<nexthop_group_entry> entries;
  for (const auto& member : from.group)
    entries.push_back({member.id, static_cast<std::uint8_t>((member.weight - 1) & 0xff),
                       static_cast<std::uint8_t>((member.weight - 1) >> 8), 0});
  to.put(NHA_GROUP, entries.data(), entries.size() * sizeof entries[0]);
  to.put(NHA_GROUP_TYPE, from.group_type);
  if (from.resilient_buckets != 0)
    to.put_nested(NHA_RES_GROUP, [&] { to.put(NHA_RES_GROUP_BUCKETS, from.resilient_buckets); });
}

}  // namespace

std::optional<message> decode_nexthop(body in, std::error_code& ec) {
  nhmsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  const auto family = family_from(header.nh_family);
  if (!family && header.nh_family != AF_UNSPEC) return std::nullopt;

  nexthop_object to;
  to.action = in.action(RTM_DELNEXTHOP);
  to.replace = to.action == action::add && (in.flags & NLM_F_REPLACE) != 0;
  to.family = family.value_or(ip_family::v4);
  to.family_unspecified = !family;
  to.flags = header.nh_flags;
  to.scope = header.nh_scope;
  to.protocol = header.nh_protocol;
  for_each_attribute(in.bytes, ec,
                     [&](const attribute& a) { read_nexthop_attribute(a, family, to, ec); });
  if (!ec && to.id == 0) ec = error::malformed;
  if (ec) return std::nullopt;
  return to;
}

std::optional<message> decode_nexthop_bucket(body in, std::error_code& ec) {
  nhmsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;

  nexthop_bucket to;
  to.action = in.action(RTM_DELNEXTHOPBUCKET);
  std::optional<std::uint16_t> index;
  for_each_attribute(in.bytes, ec, [&](const attribute& outer) {
    if (outer.type == NHA_ID) return read(outer, to.group, ec);
    if (outer.type != NHA_RES_BUCKET) return;
    for_each_attribute(outer.payload, ec, [&](const attribute& a) {
      if (a.type == NHA_RES_BUCKET_INDEX) read(a, index, ec);
      if (a.type == NHA_RES_BUCKET_NH_ID) read(a, to.member, ec);
    });
  });
  if (!ec && (to.group == 0 || !index || to.member == 0)) ec = error::malformed;
  if (ec) return std::nullopt;
  to.index = *index;
  return to;
}

std::vector<std::byte> encode_object(const nexthop_object& from) {
  nhmsg header{};
  header.nh_family = from.family_unspecified ? std::uint8_t{AF_UNSPEC} : family_number(from.family);
  header.nh_scope = from.scope;
  header.nh_protocol = from.protocol;
  header.nh_flags = from.flags;
  message_builder to(type_for(from.action, RTM_NEWNEXTHOP, RTM_DELNEXTHOP),
                     from.replace ? std::uint16_t{NLM_F_REPLACE} : std::uint16_t{0}, 0, header);
  to.put(NHA_ID, from.id);
  if (!from.group.empty()) put_group(to, from);
  put_if_set(to, NHA_OIF, from.index);
  put_if(to, NHA_GATEWAY, from.gateway);
  if (from.blackhole) to.put_flag(NHA_BLACKHOLE);
  if (from.fdb) to.put_flag(NHA_FDB);
  if (from.encapsulated) to.put(NHA_ENCAP_TYPE, std::uint16_t{0});
  return std::move(to).finish();
}

std::vector<std::byte> encode_object(const nexthop_bucket& from) {
  message_builder to(type_for(from.action, RTM_NEWNEXTHOPBUCKET, RTM_DELNEXTHOPBUCKET), 0, 0,
                     nhmsg{});
  to.put(NHA_ID, from.group);
  to.put_nested(NHA_RES_BUCKET, [&] {
    to.put(NHA_RES_BUCKET_INDEX, from.index);
    to.put(NHA_RES_BUCKET_NH_ID, from.member);
  });
  return std::move(to).finish();
}

}  // namespace cowire::netlink::detail

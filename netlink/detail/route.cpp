// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/detail/constants.hpp>
#include <cowire/netlink/detail/objects.hpp>

#include <linux/rtnetlink.h>

namespace cowire::netlink::detail {
namespace {

void read_via(const attribute& a, std::optional<ip_address>& to, std::error_code& ec) {
  byte_span bytes = a.payload;
  std::uint16_t family_number = 0;
  if (bytes.size() < sizeof family_number) {
    ec = error::malformed;
    return;
  }
  std::memcpy(&family_number, bytes.data(), sizeof family_number);
  const auto family = family_from(family_number);
  if (!family) {
    ec = error::malformed;
    return;
  }
  read({a.type, bytes.subspan(sizeof family_number)}, *family, to, ec);
}

// Attributes that a next hop has, whether alone or in RTA_MULTIPATH. False: not one of them.
bool read_next_hop_attribute(const attribute& a, ip_family family, next_hop& to,
                             std::error_code& ec) {
  switch (a.type) {
    case RTA_GATEWAY:
      read(a, family, to.gateway, ec);
      return true;
    case RTA_VIA:
      read_via(a, to.gateway, ec);
      return true;
    case RTA_ENCAP_TYPE:
    case RTA_ENCAP:
      to.encapsulated = true;
      return true;
    case RTA_FLOW:  // The realm: it labels, it does not decide.
    case RTA_PAD:
      return true;
    default:
      return false;
  }
}

void read_multipath(byte_span bytes, ip_family family, route& to, std::error_code& ec) {
  while (!bytes.empty() && !ec) {
    rtnexthop header;
    byte_span rest = bytes;
    if (!take(rest, header, ec)) return;
    if (header.rtnh_len < sizeof header || header.rtnh_len > bytes.size()) {
      ec = error::malformed;
      return;
    }
    next_hop& hop = to.next_hops.emplace_back();
    hop.index = static_cast<std::uint32_t>(header.rtnh_ifindex);
    hop.flags = header.rtnh_flags;
    hop.weight = header.rtnh_hops + 1u;
    const auto attributes = bytes.subspan(sizeof header, header.rtnh_len - sizeof header);
    for_each_attribute(attributes, ec, [&](const attribute& a) {
      if (!read_next_hop_attribute(a, family, hop, ec)) to.unknown.push_back(a.type);
    });
    bytes = after(bytes, header.rtnh_len);
  }
}

// Metrics above the last one known are reported as an unknown RTA_METRICS.
void read_metrics(byte_span bytes, route& to, std::error_code& ec) {
  for_each_attribute(bytes, ec, [&](const attribute& a) {
    switch (a.type) {
      case RTAX_LOCK:
        return read(a, to.metrics.lock, ec);
      case RTAX_MTU:
        return read(a, to.metrics.mtu, ec);
      case RTAX_HOPLIMIT:
        return read(a, to.metrics.hop_limit, ec);
      case RTAX_ADVMSS:
        return read(a, to.metrics.advmss, ec);
      case RTAX_FEATURES:
        return read(a, to.metrics.features, ec);
      default:  // The others are TCP's.
        if (a.type > RTAX_FASTOPEN_NO_COOKIE) to.unknown.push_back(RTA_METRICS);
        return;
    }
  });
}

void read_expiry(const attribute& a, std::optional<std::uint32_t>& to, std::error_code& ec) {
  rta_cacheinfo info{};
  read(a, info, ec);
  if (ec || info.rta_expires == 0) return;
  // Negative: expired, and not yet removed.
  to = info.rta_expires < 0 ? 0u : static_cast<std::uint32_t>(info.rta_expires / clock_ticks_per_s);
}

// What the attributes of a route say before header and attributes are put together.
struct route_parts {
  std::optional<ip_address> destination, source;
  next_hop single;
  bool has_multipath = false;
};

void read_route_attribute(const attribute& a, ip_family family, route& to, route_parts& parts,
                          std::error_code& ec) {
  if (read_next_hop_attribute(a, family, parts.single, ec)) return;
  switch (a.type) {
    case RTA_DST:
      return read(a, family, parts.destination, ec);
    case RTA_SRC:
      return read(a, family, parts.source, ec);
    case RTA_OIF:
      return read(a, parts.single.index, ec);
    case RTA_MULTIPATH:
      parts.has_multipath = true;
      return read_multipath(a.payload, family, to, ec);
    case RTA_TABLE:
      return read(a, to.table, ec);
    case RTA_PRIORITY:
      return read(a, to.priority, ec);
    case RTA_PREFSRC:
      return read(a, family, to.preferred_source, ec);
    case RTA_NH_ID:
      return read(a, to.nexthop_id, ec);
    case RTA_METRICS:
      return read_metrics(a.payload, to, ec);
    case RTA_PREF:
      return read(a, to.preference, ec);
    case RTA_CACHEINFO:
      return read_expiry(a, to.expires_s, ec);
    case RTA_MARK:
      return read(a, to.mark, ec);
    case RTA_UID:
      return read(a, to.uid, ec);
    default:
      to.unknown.push_back(a.type);
      return;
  }
}

void put_gateway(message_builder& to, ip_family family, const next_hop& hop) {
  if (hop.gateway && hop.gateway->family() == family) {
    to.put(RTA_GATEWAY, *hop.gateway);
  } else if (hop.gateway) {
    std::array<std::byte, 2 + 16> via{};
    const std::uint16_t number = family_number(hop.gateway->family());
    std::memcpy(via.data(), &number, sizeof number);
    std::memcpy(via.data() + sizeof number, hop.gateway->bytes().data(), hop.gateway->size());
    to.put(RTA_VIA, via.data(), sizeof number + hop.gateway->size());
  }
  if (hop.encapsulated) to.put(RTA_ENCAP_TYPE, std::uint16_t{0});
}

void put_multipath(message_builder& to, ip_family family, const route& from) {
  to.put_nested(RTA_MULTIPATH, [&] {
    for (const next_hop& hop : from.next_hops) {
      const std::size_t offset = to.begin(sizeof(rtnexthop));
      put_gateway(to, family, hop);
      rtnexthop header{};
      header.rtnh_len = static_cast<std::uint16_t>(to.size() - offset);
      header.rtnh_flags = static_cast<std::uint8_t>(hop.flags);
      header.rtnh_hops = static_cast<std::uint8_t>(hop.weight - 1);
      header.rtnh_ifindex = static_cast<int>(hop.index);
      to.write(offset, &header, sizeof header);
    }
  });
}

// A single path can be told in the route's own attributes only if its flags and weight can.
bool is_single_path(const route& r) {
  return r.next_hops.size() == 1 && r.next_hops[0].weight == 1 &&
         r.next_hops[0].flags == (r.flags & 0xff);
}

void put_metrics(message_builder& to, const route_metrics& metrics) {
  if (metrics == route_metrics{}) return;
  to.put_nested(RTA_METRICS, [&] {
    put_if_set(to, RTAX_LOCK, metrics.lock);
    put_if_set(to, RTAX_MTU, metrics.mtu);
    put_if_set(to, RTAX_ADVMSS, metrics.advmss);
    put_if_set(to, RTAX_HOPLIMIT, metrics.hop_limit);
    put_if_set(to, RTAX_FEATURES, metrics.features);
  });
}

void put_expiry(message_builder& to, std::uint32_t expires_s) {
  rta_cacheinfo info{};
  // One tick and not none: 0 means "never".
  info.rta_expires = expires_s == 0 ? 1 : static_cast<std::int32_t>(expires_s) * clock_ticks_per_s;
  to.put(RTA_CACHEINFO, info);
}

std::uint16_t flags_of(const placement& at) noexcept {
  return static_cast<std::uint16_t>(
      (at.replace ? NLM_F_REPLACE : 0) | (at.create ? NLM_F_CREATE : 0) |
      (at.exclusive ? NLM_F_EXCL : 0) | (at.append ? NLM_F_APPEND : 0));
}

}  // namespace

std::optional<message> decode_route(body in, std::error_code& ec) {
  rtmsg header;
  if (!take(in.bytes, header, ec)) return std::nullopt;
  const auto family = family_from(header.rtm_family);
  if (!family) return std::nullopt;  // Multicast routing and MPLS share the message type.

  route to;
  to.action = in.action(RTM_DELROUTE);
  if (to.action == action::add)
    to.placement = {(in.flags & NLM_F_REPLACE) != 0, (in.flags & NLM_F_CREATE) != 0,
                    (in.flags & NLM_F_EXCL) != 0, (in.flags & NLM_F_APPEND) != 0};
  to.table = header.rtm_table;
  to.tos = header.rtm_tos;
  to.protocol = header.rtm_protocol;
  to.scope = header.rtm_scope;
  to.type = header.rtm_type;
  to.flags = header.rtm_flags;
  route_parts parts;
  for_each_attribute(in.bytes, ec,
                     [&](const attribute& a) { read_route_attribute(a, *family, to, parts, ec); });
  if (ec) return std::nullopt;
  const auto destination = prefix_from(parts.destination, *family, header.rtm_dst_len, ec);
  const auto source = prefix_from(parts.source, *family, header.rtm_src_len, ec);
  if (ec) return std::nullopt;
  to.destination = *destination;
  to.source = *source;
  if (!parts.has_multipath) {
    const bool only_nexthop_object = to.nexthop_id != 0 && parts.single == next_hop{};
    parts.single.flags = header.rtm_flags & 0xff;  // RTNH_F_* of a single path live there.
    if (!only_nexthop_object) to.next_hops.push_back(parts.single);
  }
  return to;
}

std::vector<std::byte> encode_object(const route& from) {
  const ip_family family = from.destination.family();
  rtmsg header{};
  header.rtm_family = family_number(family);
  header.rtm_dst_len = static_cast<std::uint8_t>(from.destination.length());
  header.rtm_src_len = static_cast<std::uint8_t>(from.source.length());
  header.rtm_tos = from.tos;
  header.rtm_table = short_table(from.table);
  header.rtm_protocol = from.protocol;
  header.rtm_scope = from.scope;
  header.rtm_type = from.type;
  header.rtm_flags = from.flags;
  message_builder to(type_for(from.action, RTM_NEWROUTE, RTM_DELROUTE), flags_of(from.placement), 0,
                     header);
  to.put(RTA_TABLE, from.table);
  if (from.destination.length() > 0) to.put(RTA_DST, from.destination.address());
  if (from.source.length() > 0) to.put(RTA_SRC, from.source.address());
  put_if_set(to, RTA_PRIORITY, from.priority);
  put_if(to, RTA_PREFSRC, from.preferred_source);
  put_if_set(to, RTA_NH_ID, from.nexthop_id);
  if (is_single_path(from)) {
    put_if_set(to, RTA_OIF, from.next_hops[0].index);
    put_gateway(to, family, from.next_hops[0]);
  } else if (!from.next_hops.empty()) {
    put_multipath(to, family, from);
  }
  put_metrics(to, from.metrics);
  put_if_set(to, RTA_PREF, from.preference);
  if (from.expires_s) put_expiry(to, *from.expires_s);
  put_if_set(to, RTA_MARK, from.mark);
  put_if(to, RTA_UID, from.uid);
  return std::move(to).finish();
}

}  // namespace cowire::netlink::detail

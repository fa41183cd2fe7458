// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/base/header_size.hpp>
#include <cowire/gre/tunnel.hpp>

#include <netinet/in.h>

#include <cstring>

namespace cowire::gre {
namespace {

constexpr std::uint8_t ecn_mask = 3, congestion_experienced = 3, ecn_capable_0 = 2;

/// A congestion mark starts anew outside (RFC 6040, normal mode; include/net/inet_ecn.h).
std::uint8_t with_ecn(std::uint8_t outer, std::uint8_t inner) noexcept {
  const int ecn = inner & ecn_mask;
  return static_cast<std::uint8_t>((outer & ~ecn_mask) |
                                   (ecn == congestion_experienced ? ecn_capable_0 : ecn));
}

/// Before the ECN rule.
std::uint8_t base_tos(const tunnel& through, const inner_packet& inner) noexcept {
  switch (through.tos_by) {
    case tos_rule::odd_inherits:
      return (through.tos & 1) != 0 ? inner.tos : through.tos;
    case tos_rule::one_inherits:
      return through.tos == 1 ? inner.tos : through.tos;
    case tos_rule::flag_plain:
    case tos_rule::flag_ecn:
      return through.inherits_traffic_class ? inner.tos : through.tos;
  }
  return 0;
}

class forward_writer {
 public:
  explicit forward_writer(outer_headers& to) noexcept : to_(to) {}
  std::byte* append(std::size_t size) noexcept {
    COWIRE_ASSERT(to_.size + size <= outer_headers::size_max);
    to_.size += size;
    return to_.storage.data() + to_.size - size;
  }

 private:
  outer_headers& to_;
};

void put_ipv4(forward_writer& out, const inner_packet& packet, std::uint8_t protocol,
              const ip_address& source, const ip_address& remote) noexcept {
  std::byte* ip = out.append(header_size::ipv4);
  ip[0] = std::byte{0x45};
  ip[1] = std::byte{packet.tos};
  ip[6] = std::byte{static_cast<std::uint8_t>(packet.dont_fragment ? 0x40 : 0)};
  ip[8] = std::byte{packet.hop_limit};
  ip[9] = std::byte{protocol};
  std::memcpy(ip + 12, source.bytes().data(), 4);
  std::memcpy(ip + 16, remote.bytes().data(), 4);
}

void put_ipv6(forward_writer& out, const tunnel& through, const inner_packet& packet,
              std::uint8_t protocol, const ip_address& source, const ip_address& remote) noexcept {
  std::byte* ip = out.append(header_size::ipv6);
  const be32 first =
      be32::from_host(6u << 28 | std::uint32_t{packet.tos} << 20 | through.flow_label);
  std::memcpy(ip, &first, sizeof first);
  ip[6] = std::byte{packet.encap_limit ? std::uint8_t{IPPROTO_DSTOPTS} : protocol};
  ip[7] = std::byte{packet.hop_limit};
  std::memcpy(ip + 8, source.bytes().data(), 16);
  std::memcpy(ip + 24, remote.bytes().data(), 16);
  if (!packet.encap_limit) return;
  // Next header, length 0 (8 bytes), the limit, padded by PadN.
  const std::uint8_t option[8] = {protocol, 0, 4, 1, *packet.encap_limit, 1, 1, 0};
  std::memcpy(out.append(sizeof option), option, sizeof option);
}

}  // namespace

std::uint8_t routing_tos(const tunnel& through, const inner_packet& inner) noexcept {
  const std::uint8_t tos = base_tos(through, inner);
  return through.outer == ip_family::v4 ? static_cast<std::uint8_t>(tos & ~ecn_mask) : tos;
}

ecn_rule ecn_rule_of(const tunnel& through) noexcept {
  if (through.tos_by != tos_rule::flag_plain) return ecn_rule::encapsulated;
  return through.inherits_traffic_class ? ecn_rule::copied : ecn_rule::fixed;
}

inner_packet as_ip_tunnel_sees(const tunnel& through, const inner_packet& carried,
                               const std::byte* innermost) noexcept {
  if (through.tos_by != tos_rule::odd_inherits) return carried;
  const auto byte = [&](std::size_t i) { return std::to_integer<unsigned>(innermost[i]); };
  inner_packet seen = carried;
  if (carried.family == ip_family::v4) {
    seen.tos = static_cast<std::uint8_t>(byte(1));
    seen.hop_limit = static_cast<std::uint8_t>(byte(8));
    seen.dont_fragment = (byte(6) & 0x40) != 0;
  } else {
    seen.tos = static_cast<std::uint8_t>(byte(0) << 4 | byte(1) >> 4);
    seen.hop_limit = static_cast<std::uint8_t>(byte(7));
  }
  return seen;
}

std::optional<outer_headers> encapsulate(const tunnel& through, const ip_address& source,
                                         const ip_address& remote,
                                         const inner_packet& inner) noexcept {
  const bool v4 = through.outer == ip_family::v4;
  const bool inner_v4 = inner.family == ip_family::v4;
  if (!(inner_v4 ? through.carries_ipv4 : through.carries_ipv6)) return std::nullopt;
  std::uint8_t protocol = IPPROTO_GRE;
  if (through.carries == carrier::ip) protocol = inner_v4 ? IPPROTO_IPIP : IPPROTO_IPV6;

  outer_headers made;
  made.packet.family = through.outer;
  const std::uint8_t tos = base_tos(through, inner);
  made.packet.tos = through.tos_by == tos_rule::flag_plain ? tos : with_ecn(tos, inner.tos);
  made.packet.hop_limit = through.ttl != 0 ? through.ttl : inner.hop_limit;
  const bool copies_df = through.tos_by != tos_rule::one_inherits && !through.ignore_df;
  made.packet.dont_fragment =
      through.pmtu_discovery || (copies_df && inner_v4 && inner.dont_fragment);
  if (!v4) {
    made.packet.encap_limit = through.encap_limit;
    if (inner.encap_limit) {
      if (*inner.encap_limit == 0) return std::nullopt;
      made.packet.encap_limit = static_cast<std::uint8_t>(*inner.encap_limit - 1);
    }
  }

  forward_writer out(made);
  if (v4)
    put_ipv4(out, made.packet, protocol, source, remote);
  else
    put_ipv6(out, through, made.packet, protocol, source, remote);
  if (through.carries == carrier::gre) {
    header value;
    value.key = through.key;
    value.checksum = through.checksum;
    value.protocol = through.ethernet ? protocol_ethernet
                     : inner_v4       ? protocol_ipv4
                                      : protocol_ipv6;
    std::array<std::byte, header_size_max> bytes;
    made.gre_size = encode(value, bytes, {});
    if (value.checksum) std::memset(bytes.data() + checksum_offset, 0, sizeof(std::uint16_t));
    std::memcpy(out.append(made.gre_size), bytes.data(), made.gre_size);
  }
  return made;
}

}  // namespace cowire::gre

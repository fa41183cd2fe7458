// SPDX-License-Identifier: Apache-2.0
/// Forwarding tables and frames without a compiler: the header templates and the expected bytes are
/// made here in two independent ways, so that one checks the other.
#pragma once

#include <cowire/base/checksum.hpp>
#include <cowire/route/forwarding_table.hpp>
#include <cowire/xdp/tx_request.hpp>

#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace cowire::test {

using bytes = std::vector<std::uint8_t>;

/// What a next hop looks like, in plain terms.
struct hop_spec {
  ip_family family = ip_family::v4;
  mac_address source_mac, destination_mac;
  std::optional<std::uint16_t> vlan;
  /// GRE tunnels over IPv4, from the inside out: outer source and destination.
  std::vector<std::pair<ip_address, ip_address>> outer;
  bool gre_checksums = false;  ///< In all of them.
  ip_address source;
  std::uint8_t ttl = 64;
  std::uint8_t tos = 0;  ///< Of the datagram; its ECN bits are outside, too (RFC 6040).
  egress_slot egress = 1;
  std::uint32_t interface_index = 1;
  std::uint16_t max_payload = 1472;
};

inline void append16(bytes& to, unsigned value) {
  to.push_back(static_cast<std::uint8_t>(value >> 8));
  to.push_back(static_cast<std::uint8_t>(value));
}
inline void append(bytes& to, const void* from, std::size_t size) {
  const auto* p = static_cast<const std::uint8_t*>(from);
  to.insert(to.end(), p, p + size);
}

/// RFC 1071, by the letter.
[[nodiscard]] inline std::uint16_t naive_checksum(const bytes& data) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < data.size(); i += 2) {
    const unsigned low = i + 1 < data.size() ? data[i + 1] : 0u;
    sum += static_cast<std::uint32_t>(data[i]) << 8 | low;
  }
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

[[nodiscard]] inline bytes naive_ipv4(const ip_address& from, const ip_address& to, unsigned ttl,
                                      unsigned protocol, unsigned total_length,
                                      std::uint8_t tos = 0) {
  bytes h = {0x45, tos};
  append16(h, total_length);
  append16(h, 0);
  append16(h, 0x4000);
  h.push_back(static_cast<std::uint8_t>(ttl));
  h.push_back(static_cast<std::uint8_t>(protocol));
  append16(h, 0);
  append(h, from.bytes().data(), 4);
  append(h, to.bytes().data(), 4);
  const std::uint16_t sum = naive_checksum(h);
  h[10] = static_cast<std::uint8_t>(sum >> 8);
  h[11] = static_cast<std::uint8_t>(sum);
  return h;
}

/// The whole frame, built field by field from the outside in.
[[nodiscard]] inline bytes naive_frame(const hop_spec& spec, const endpoint& to,
                                       std::uint16_t source_port, const bytes& payload) {
  const bool v4 = spec.family == ip_family::v4;
  const auto udp_length = static_cast<unsigned>(payload.size() + 8);
  bytes udp;
  append16(udp, source_port);
  append16(udp, to.port);
  append16(udp, udp_length);
  append16(udp, 0);
  append(udp, payload.data(), payload.size());
  bytes pseudo;
  append(pseudo, spec.source.bytes().data(), spec.source.size());
  append(pseudo, to.address.bytes().data(), to.address.size());
  append16(pseudo, 17);
  append16(pseudo, udp_length);
  append(pseudo, udp.data(), udp.size());
  std::uint16_t sum = naive_checksum(pseudo);
  if (sum == 0) sum = 0xffff;
  udp[6] = static_cast<std::uint8_t>(sum >> 8);
  udp[7] = static_cast<std::uint8_t>(sum);

  bytes ip;
  if (v4) {
    ip = naive_ipv4(spec.source, to.address, spec.ttl, 17, udp_length + 20, spec.tos);
  } else {
    ip = {static_cast<std::uint8_t>(0x60 | spec.tos >> 4), static_cast<std::uint8_t>(spec.tos << 4),
          0, 0};
    append16(ip, udp_length);
    ip.push_back(17);
    ip.push_back(spec.ttl);
    append(ip, spec.source.bytes().data(), 16);
    append(ip, to.address.bytes().data(), 16);
  }
  append(ip, udp.data(), udp.size());

  bytes frame;
  append(frame, spec.destination_mac.bytes.data(), 6);
  append(frame, spec.source_mac.bytes.data(), 6);
  if (spec.vlan) {
    append16(frame, 0x8100);
    append16(frame, *spec.vlan);
  }
  unsigned type = v4 ? 0x0800 : 0x86dd;
  for (const auto& [from, remote] : spec.outer) {
    bytes gre;
    append16(gre, spec.gre_checksums ? 0x8000 : 0);
    append16(gre, type);
    if (spec.gre_checksums) gre.resize(8);
    append(gre, ip.data(), ip.size());
    if (spec.gre_checksums) {
      const std::uint16_t covered = naive_checksum(gre);
      gre[4] = static_cast<std::uint8_t>(covered >> 8);
      gre[5] = static_cast<std::uint8_t>(covered);
    }
    const unsigned ecn = spec.tos & 3u;
    ip = naive_ipv4(from, remote, 255, 47, static_cast<unsigned>(gre.size()) + 20,
                    static_cast<std::uint8_t>(ecn == 3 ? 2 : ecn));
    append(ip, gre.data(), gre.size());
    type = 0x0800;
  }
  append16(frame, type);
  append(frame, ip.data(), ip.size());
  return frame;
}

/// The header template of a hop: a naive frame without payload to the zero address, with the sums
/// taken out.
[[nodiscard]] inline hop make_hop(const hop_spec& spec) {
  const bool v4 = spec.family == ip_family::v4;
  bytes frame = naive_frame(spec, {ip_address::any(spec.family), 0}, 0, {});
  hop h{};
  const std::size_t start = header_capacity - frame.size();
  const std::size_t ip_size = v4 ? 20 : 40;
  const std::size_t ip = udp_header_offset - ip_size;
  h.clear_fields();
  h.place_length(hop::ip_pair, ip + (v4 ? 2 : 4));
  if (v4) h.place_checksum(hop::ip_pair, ip + 10);
  h.length_base[hop::ip_pair] = v4 ? 28 : 8;
  h.place_length(hop::udp_pair, udp_header_offset + 4);
  h.place_checksum(hop::udp_pair, udp_header_offset + 6);
  h.length_base[hop::udp_pair] = 8;

  const auto sum_of = [&frame](std::size_t at, std::size_t size) {
    return static_cast<std::uint32_t>(sum_bytes(std::as_bytes(std::span(frame).subspan(at, size))) %
                                      0xffff);
  };
  const auto clear = [&frame](std::size_t at, std::size_t size) {
    std::memset(frame.data() + at, 0, size);
  };
  clear(frame.size() - 8, 8);
  if (v4) {
    clear(ip + 2 - start, 2);
    clear(ip + 10 - start, 2);
    h.sum[hop::ip_pair] = sum_of(ip - start, 20);
  } else {
    clear(ip + 4 - start, 2);
  }
  h.sum[hop::udp_pair] =
      sum_of(ip - start + (v4 ? 12 : 8), v4 ? 4 : 16) + be16::from_host(17).raw + 1;
  const std::size_t tunnel_size = spec.gre_checksums ? 28 : 24;
  for (std::size_t i = 0; i < spec.outer.size(); ++i) {
    const std::size_t outer = ip - tunnel_size * (i + 1);
    if (spec.gre_checksums) {
      std::uint16_t covered;
      std::memcpy(&covered, frame.data() + outer + 24 - start, sizeof covered);
      // It is of a datagram of 8 bytes to the zero address.
      const bool inner_v4 = v4 && i == 0;
      const std::uint32_t length = inner_v4 ? be16::from_host(8).raw : 0u;
      h.gre_checksums[h.gre_checksum_count++] = {
          0xffffu - covered + length, static_cast<std::uint8_t>(outer + 24), inner_v4, false, 0};
      clear(outer + 24 - start, 2);
    }
    clear(outer + 2 - start, 2);
    clear(outer + 10 - start, 2);
    const std::size_t pair = hop::outer_pair + i;
    h.sum[pair] = sum_of(outer - start, 20);
    h.length_base[pair] = static_cast<std::uint16_t>(tunnel_size * (i + 1) + ip_size + 8);
    h.place_length(pair, outer + 2);
    h.place_checksum(pair, outer + 10);
    h.ecn_at[i] = static_cast<std::uint8_t>(outer);
  }
  std::memcpy(h.header + start, frame.data(), frame.size());
  h.set_header_length(frame.size());
  h.max_payload = spec.max_payload;
  h.egress = spec.egress;
  h.interface_index = spec.interface_index;
  return h;
}

/// Collects hops and routes, then becomes a forwarding_table that lives as long as this object.
class hand_made_table {
 public:
  hand_made_table() {
    for (std::size_t i = 0; i < divert_reason_count; ++i) {
      hop h{};
      h.reason = static_cast<divert_reason>(i);
      hops_.push_back(h);
      paths_.push_back({static_cast<std::uint32_t>(i), 1});
    }
    add_class();
  }

  /// Returns the id of a path list with this hop alone.
  std::uint32_t add_hop(const hop& h) {
    hops_.push_back(h);
    paths_.push_back({static_cast<std::uint32_t>(hops_.size() - 1), 1});
    return static_cast<std::uint32_t>(paths_.size() - 1);
  }

  /// Equal shares of the path lists' hops.
  std::uint32_t add_group(const std::vector<std::uint32_t>& members) {
    std::vector<hop_group_member> group;
    for (std::size_t i = 0; i < members.size(); ++i) {
      const std::uint64_t bound = (std::uint64_t{1} << 31) * (i + 1) / members.size() - 1;
      group.push_back({static_cast<std::uint32_t>(bound), paths_[members[i]].index});
    }
    groups_.push_back(std::move(group));
    paths_.push_back({static_cast<std::uint32_t>(groups_.size() - 1),
                      static_cast<std::uint16_t>(members.size())});
    return static_cast<std::uint32_t>(paths_.size() - 1);
  }

  flow_class_id add_class() {
    tries_.emplace_back();
    return static_cast<flow_class_id>(tries_.size() - 1);
  }

  void route(const char* prefix, std::uint32_t path_list_id, flow_class_id cls = 0) {
    route(ip_prefix::parse(prefix).value(), path_list_id, cls);
  }
  void route(const ip_prefix& p, std::uint32_t path_list_id, flow_class_id cls = 0) {
    if (p.family() == ip_family::v4) {
      tries_[cls].v4.assign(to_key4(p.address()), p.length(), path_list_id);
    } else {
      tries_[cls].v6.assign(to_key6(p.address()), p.length(), path_list_id);
    }
  }

  [[nodiscard]] forwarding_table& finish() {
    for (std::size_t i = 0; i < tries_.size(); ++i) {
      classes_.push_back({tries_[i].v4.commit(), tries_[i].v6.commit()});
      class_index_.push_back(static_cast<std::uint16_t>(i));
    }
    for (const auto& group : groups_) group_pointers_.push_back(group.data());
    for (std::size_t i = 0; i < paths_.size(); i += forwarding_table::path_list_chunk)
      chunks_.push_back(paths_.data() + i);
    table_.version = 1;
    table_.class_tables = classes_.data();
    table_.class_index = class_index_.data();
    table_.class_count = static_cast<std::uint32_t>(classes_.size());
    table_.path_list_chunks = chunks_.data();
    table_.hops = hops_.data();
    table_.groups = group_pointers_.data();
    return table_;
  }

 private:
  struct tries {
    lpm_trie<lpm_key4> v4;
    lpm_trie<lpm_key6> v6;
  };
  std::vector<hop> hops_;
  std::vector<path_list> paths_;
  std::vector<std::vector<hop_group_member>> groups_;
  std::deque<tries> tries_;
  std::vector<forwarding_table::class_table> classes_;
  std::vector<std::uint16_t> class_index_;
  std::vector<const hop_group_member*> group_pointers_;
  std::vector<const path_list*> chunks_;
  forwarding_table table_;
};

}  // namespace cowire::test

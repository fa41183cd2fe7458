// SPDX-License-Identifier: Apache-2.0
// One datagram's ECN codepoint in the headers of every kind of tunnel, and of tunnels in tunnels:
// the bytes are those of the hop of a flow class that has it for all its datagrams, which are
// compared with the kernel's own elsewhere (device_fidelity).
#include "tests/route/world.hpp"

#include <cowire/base/gre_flag.hpp>
#include <cowire/route/detail/header_template.hpp>
#include <cowire/xdp/frame_writer.hpp>

#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/ip6_tunnel.h>

#include <cstdio>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

namespace cowire {
namespace {

using namespace cowire::testing;
using detail::hop_key;

constexpr std::uint32_t outermost = 10, within = 11;

struct tunnel_spec {
  std::string kind;
  std::uint8_t tos = 0;   ///< As `ip link`'s tos; an IPv6 tunnel's traffic class.
  bool inherits = false;  ///< IPv6: tclass inherit.
  bool checksum = false;
  [[nodiscard]] bool over_ipv6() const { return kind.starts_with("ip6"); }
  [[nodiscard]] bool ethernet() const { return kind.ends_with("tap"); }
  [[nodiscard]] std::string text() const {
    return kind + " tos " + std::to_string(tos) + (inherits ? " inherit" : "") +
           (checksum ? " csum" : "");
  }
};

std::vector<tunnel_spec> all_tunnels() {
  std::vector<tunnel_spec> all;
  for (const char* kind : {"gre", "gretap", "ipip", "sit"})
    for (const std::uint8_t tos : std::initializer_list<std::uint8_t>{0x00, 0x01, 0xb8, 0xb9})
      all.push_back({kind, tos});
  for (const char* kind : {"ip6gre", "ip6gretap", "ip6tnl"})
    for (const bool inherits : {false, true}) all.push_back({kind, 0x10, inherits});
  for (const char* kind : {"gre", "gretap", "ip6gre"}) all.push_back({kind, 0, false, true});
  return all;
}

/// Its ends are this host and the second address of the device below.
netlink::link made_of(const tunnel_spec& spec, std::uint32_t index, std::uint32_t below) {
  constexpr std::uint32_t can_transmit = 0x10000;
  netlink::link made = ethernet(index, "t" + std::to_string(index));
  made.kind = spec.kind;
  made.mtu = 1400;
  if (!spec.ethernet()) {
    made.hardware_type = spec.over_ipv6() ? ARPHRD_IP6GRE : ARPHRD_IPGRE;
    made.flags |= IFF_POINTOPOINT | IFF_NOARP;
  }
  netlink::tunnel_info info;
  const std::string net = spec.over_ipv6() ? "fd00:" + std::to_string(below) + "::"
                                           : "10." + std::to_string(below) + ".0.";
  info.local = ip((net + "1").c_str());
  info.remote = ip((net + "2").c_str());
  info.ttl = 64;
  info.tos = spec.tos;
  if (spec.checksum) info.output_flags = info.input_flags = gre_flag::checksum;
  if (spec.over_ipv6()) {
    info.flow_info = be32::from_host(std::uint32_t{spec.tos} << 20);
    info.flags = can_transmit | IP6_TNL_F_IGN_ENCAP_LIMIT;
    if (spec.inherits) info.flags |= IP6_TNL_F_USE_ORIG_TCLASS;
  }
  made.info = info;
  return made;
}

/// On Ethernet u2; `inner` in `outer`, if there is one.
mirror world_of(const tunnel_spec& outer, const tunnel_spec* inner) {
  mirror state = small_world();
  mirror_changes changes;
  const auto add = [&](const netlink::message& m) {
    state.apply(m, changes, message_origin::notification);
  };
  add(neighbour(2, ip("10.2.0.2")));
  add(neighbour(2, ip("fd00:2::2")));
  const auto add_tunnel = [&](const tunnel_spec& spec, std::uint32_t index, std::uint32_t below) {
    const std::string n = std::to_string(index);
    const std::string v4 = "10." + n + ".0.", v6 = "fd00:" + n + "::";
    add(made_of(spec, index, below));
    add(address(index, (v4 + "1").c_str(), 24));
    add(address(index, (v6 + "1").c_str(), 64));
    add(local_route(ip((v4 + "1").c_str()), index));
    add(local_route(ip((v6 + "1").c_str()), index));
    auto route = route_on(net((v4 + "0/24").c_str()), index);
    route.preferred_source = ip((v4 + "1").c_str());
    add(added(route));
    add(added(route_on(net((v6 + "/64").c_str()), index)));
    add(neighbour(index, ip((v4 + "2").c_str())));
    add(neighbour(index, ip((v6 + "2").c_str())));
  };
  add_tunnel(outer, outermost, 2);
  if (inner != nullptr) add_tunnel(*inner, within, outermost);
  return state;
}

std::string frame_of(const hop& via, ip_family family, std::optional<unsigned> ecn) {
  alignas(64) std::byte frame[2048] = {};
  const frame_memory memory{frame, 2048, 1};
  constexpr std::size_t size = 37;
  const endpoint to{family == ip_family::v4 ? ip("198.18.0.9") : ip("fd99::9"), 9000};
  tx_request request = make_request({0, memory.payload_address(0)}, size, 0x1234,
                                    be16::from_host(8001), request_destination::from(to), 0);
  if (ecn) with_ecn(request, *ecn);
  write_headers(memory.payload(0), via, request);
  write_second_pass(memory.payload(0), via, request);
  if (ecn) write_ecn(memory.payload(0), via, request);
  const auto* const start = reinterpret_cast<const char*>(memory.payload(0)) - via.header_length;
  return {start, via.header_length};
}

struct counts {
  std::size_t compared = 0, by_kernel = 0;
};

/// A class of every codepoint, each with datagrams of every codepoint.
void compare(const mirror& state, std::uint32_t index, bool ethernet, const std::string& name,
             counts& seen) {
  const detail::egress_slots slots = {{2, 1}};
  const std::string n = std::to_string(index);
  for (const ip_family family : ip_families) {
    const std::string net = family == ip_family::v4 ? "10." + n + ".0." : "fd00:" + n + "::";
    for (const std::uint8_t dscp : std::initializer_list<std::uint8_t>{0x00, 0x28, 0xb8}) {
      std::vector<hop> hops;
      for (unsigned ecn = 0; ecn < 4; ++ecn) {
        hop_key key;
        key.interface_index = index;
        key.family = family;
        if (ethernet) key.next_hop = ip((net + "2").c_str());
        key.source = ip((net + "1").c_str());
        key.tos = static_cast<std::uint8_t>(dscp | ecn);
        key.hop_limit = 9;
        hops.push_back(detail::build_hop(state, slots, key).only);
      }
      for (unsigned own = 0; own < 4; ++own)
        for (unsigned chosen = 0; chosen < 4; ++chosen) {
          if (hops[own].egress == divert_slot) continue;
          if (hops[own].ecn_at[0] == hop::ecn_by_kernel) {
            ++seen.by_kernel;
            continue;
          }
          ++seen.compared;
          EXPECT_EQ(frame_of(hops[chosen], family, {}), frame_of(hops[own], family, chosen))
              << name << (family == ip_family::v4 ? ", IPv4" : ", IPv6") << ", DSCP " << int{dscp}
              << ", ECN " << chosen << " of a class with " << own;
        }
    }
  }
}

TEST(EcnInTunnels, OneDatagramHasTheBytesOfAClassWithItsCodepoint) {
  counts seen;
  for (const tunnel_spec& spec : all_tunnels())
    compare(world_of(spec, nullptr), outermost, spec.ethernet(), spec.text(), seen);
  EXPECT_EQ(seen.by_kernel, 0u);
  EXPECT_GT(seen.compared, 1000u);
}

TEST(EcnInTunnels, InATunnelWithinAnotherToo) {
  counts seen;
  for (const tunnel_spec& outer : all_tunnels())
    for (const tunnel_spec& inner : all_tunnels())
      compare(world_of(outer, &inner), within, inner.ethernet(),
              inner.text() + " in " + outer.text(), seen);
  // An IPv6 header read as an IPv4 one, by a tunnel that inherits: its DSCP would change.
  EXPECT_GT(seen.by_kernel, 0u);
  EXPECT_GT(seen.compared, 10'000u);
  std::printf("%zu compared, %zu left to the kernel\n", seen.compared, seen.by_kernel);
}

}  // namespace
}  // namespace cowire

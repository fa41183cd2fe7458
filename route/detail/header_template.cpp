// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/base/checksum.hpp>
#include <cowire/route/detail/cover.hpp>
#include <cowire/route/detail/header_template.hpp>

#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/neighbour.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string_view>

namespace cowire::detail {
namespace {

constexpr std::uint16_t ethertype_ipv4 = 0x0800, ethertype_ipv6 = 0x86dd;
constexpr std::size_t udp_size = 8, ipv4_size = 20, ipv6_size = 40;
constexpr std::uint8_t udp_protocol = 17;
// Fields that a hop lacks are written here, below the start of every frame.
constexpr std::uint8_t dead_offset = 0;

template <std::size_t N>
bool one_of(const std::string& kind, const std::array<std::string_view, N>& kinds) {
  return std::ranges::find(kinds, kind) != kinds.end();
}

constexpr std::array<std::string_view, 4> direct_kinds = {"", "veth", "dummy", "tun"};
constexpr std::array<std::string_view, 15> tunnel_kinds = {
    "gre",    "gretap", "erspan", "ip6gre",    "ip6gretap", "ip6erspan", "ipip", "sit",
    "ip6tnl", "vxlan",  "geneve", "wireguard", "xfrm",      "vti",       "vti6"};

std::optional<divert_reason> obstacle(const mirror& state, const mirror::device& device) {
  if (!device.up() || !has_carrier(device.link)) return divert_reason::egress_down;
  const mirror::device* master =
      device.link.master == 0 ? nullptr : state.find_device(device.link.master);
  if (master != nullptr && master->link.kind == "vrf") return divert_reason::unsupported_device;
  const bool ethernet =
      device.link.hardware_type == ARPHRD_ETHER && device.link.address.size() == 6;
  return ethernet ? std::nullopt : std::optional(divert_reason::unsupported_device);
}

std::optional<mac_address> resolved_mac(const mirror& state, std::uint32_t index,
                                        const ip_address& next_hop) {
  constexpr int valid =
      NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY;
  const netlink::neighbour* known = state.find_neighbour(index, next_hop);
  if (known == nullptr || (known->state & valid) == 0 || known->link_address.size() != 6)
    return std::nullopt;
  mac_address mac;
  std::ranges::copy(known->link_address, mac.bytes.begin());
  return mac;
}

/// Writes headers from the payload towards the front.
class template_writer {
 public:
  explicit template_writer(hop& to) noexcept : to_(to) {}

  std::byte* prepend(std::size_t size) noexcept {
    COWIRE_ASSERT(length_ + size <= header_capacity);
    length_ += size;
    return to_.header + header_capacity - length_;
  }
  void prepend16(std::uint16_t host_order) noexcept {
    const be16 value = be16::from_host(host_order);
    std::memcpy(prepend(sizeof value), &value, sizeof value);
  }
  [[nodiscard]] std::uint8_t length() const noexcept { return static_cast<std::uint8_t>(length_); }
  /// Offset in the template of a byte of what was prepended last.
  [[nodiscard]] std::uint8_t offset(std::size_t byte) const noexcept {
    return static_cast<std::uint8_t>(header_capacity - length_ + byte);
  }

 private:
  hop& to_;
  std::size_t length_ = 0;
};

std::uint16_t sum_of(const void* bytes, std::size_t size) noexcept {
  return fold_sum(sum_bytes({static_cast<const std::byte*>(bytes), size}));
}

void prepend_ipv4(template_writer& writer, hop& to, const hop_key& key) noexcept {
  std::byte* ip = writer.prepend(ipv4_size);
  ip[0] = std::byte{0x45};
  ip[1] = std::byte{key.tos};
  ip[6] = std::byte{0x40};  // DF
  ip[8] = std::byte{key.hop_limit};
  ip[9] = std::byte{udp_protocol};
  std::memcpy(ip + 12, key.source.bytes().data(), 4);
  to.ip_sum = sum_of(ip, ipv4_size);
  to.length_base = ipv4_size + udp_size;
  to.length_offset = writer.offset(2);
  to.checksum_offset = writer.offset(10);
}

void prepend_ipv6(template_writer& writer, hop& to, const hop_key& key) noexcept {
  std::byte* ip = writer.prepend(ipv6_size);
  ip[0] = std::byte{static_cast<std::uint8_t>(0x60 | key.tos >> 4)};
  ip[1] = std::byte{static_cast<std::uint8_t>(key.tos << 4)};
  ip[6] = std::byte{udp_protocol};
  ip[7] = std::byte{key.hop_limit};
  std::memcpy(ip + 8, key.source.bytes().data(), 16);
  to.length_base = udp_size;
  to.length_offset = writer.offset(4);
  to.checksum_offset = dead_offset;
}

}  // namespace

egress_choice egress_of(const mirror& state, std::uint32_t interface_index) {
  const auto divert = [](divert_reason reason) { return egress_choice{reason, 0, {}}; };
  const mirror::device* device = state.find_device(interface_index);
  if (device == nullptr) return divert(divert_reason::egress_down);
  const netlink::link& link = device->link;
  if (one_of(link.kind, tunnel_kinds)) return divert(divert_reason::tunnel);
  if ((link.flags & IFF_LOOPBACK) != 0) return divert(divert_reason::unsupported_device);
  if (const auto reason = obstacle(state, *device)) return divert(*reason);
  if (one_of(link.kind, direct_kinds)) return {std::nullopt, interface_index, {}};
  if (link.kind != "vlan" || link.lower_in_other_namespace)
    return divert(divert_reason::unsupported_device);
  const auto* tag = std::get_if<netlink::vlan_info>(&link.info);
  const mirror::device* lower = state.find_device(link.lower);
  if (tag == nullptr || tag->has_egress_map || lower == nullptr ||
      !one_of(lower->link.kind, direct_kinds))
    return divert(divert_reason::unsupported_device);
  if (const auto reason = obstacle(state, *lower)) return divert(*reason);
  return {std::nullopt, link.lower, *tag};
}

hop divert_hop(divert_reason reason) noexcept {
  hop made{};
  made.egress = divert_slot;
  made.reason = reason;
  return made;
}

hop build_hop(const mirror& state, const egress_slots& slots, const hop_key& key) {
  const egress_choice egress = egress_of(state, key.interface_index);
  if (egress.divert) return divert_hop(*egress.divert);
  if (key.needs_identification) return divert_hop(divert_reason::needs_identification);
  const auto slot = slots.find(egress.interface_index);
  if (slot == slots.end()) return divert_hop(divert_reason::no_egress_socket);
  const auto mac =
      key.next_hop ? resolved_mac(state, key.interface_index, *key.next_hop) : std::nullopt;
  if (!mac) return divert_hop(divert_reason::neighbour_unresolved);

  const netlink::link& link = state.find_device(key.interface_index)->link;
  const std::uint32_t mtu = key.route_mtu != 0 ? std::min(key.route_mtu, link.mtu) : link.mtu;
  const bool v4 = key.family == ip_family::v4;
  const std::size_t overhead = (v4 ? ipv4_size : ipv6_size) + udp_size;
  if (mtu < overhead) return divert_hop(divert_reason::exceeds_mtu);

  hop made{};
  template_writer writer(made);
  writer.prepend(udp_size);
  if (v4)
    prepend_ipv4(writer, made, key);
  else
    prepend_ipv6(writer, made, key);
  const be16 protocol = be16::from_host(udp_protocol);
  made.udp_sum = std::uint32_t{sum_of(key.source.bytes().data(), key.source.size())} + protocol.raw;

  writer.prepend16(v4 ? ethertype_ipv4 : ethertype_ipv6);
  if (egress.tag) {
    writer.prepend16(egress.tag->id);
    writer.prepend16(egress.tag->protocol.host());
  }
  std::memcpy(writer.prepend(6), link.address.data(), 6);
  std::memcpy(writer.prepend(6), mac->bytes.data(), 6);

  made.header_length = writer.length();
  made.outer_length_offset = dead_offset;
  made.outer_checksum_offset = dead_offset;
  made.max_payload = static_cast<std::uint16_t>(std::min<std::size_t>(mtu, 0xffff) - overhead);
  made.egress = slot->second;
  made.interface_index = egress.interface_index;
  return made;
}

}  // namespace cowire::detail

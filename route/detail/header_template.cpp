// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/base/checksum.hpp>
#include <cowire/base/header_size.hpp>
#include <cowire/route/detail/bond.hpp>
#include <cowire/route/detail/cover.hpp>
#include <cowire/route/detail/header_template.hpp>
#include <cowire/route/detail/path_facts.hpp>
#include <cowire/route/detail/tunnel.hpp>
#include <cowire/route/detail/vrf.hpp>
#include <cowire/route/egress_choice.hpp>

#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_bonding.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string_view>

namespace cowire::detail {
namespace {

constexpr std::uint16_t ethertype_ipv4 = 0x0800, ethertype_ipv6 = 0x86dd;
constexpr std::uint8_t udp_protocol = 17;

template <std::size_t N>
bool one_of(const std::string& kind, const std::array<std::string_view, N>& kinds) {
  return std::ranges::find(kinds, kind) != kinds.end();
}

constexpr std::array<std::string_view, 4> direct_kinds = {"", "veth", "dummy", "tun"};

std::optional<divert_reason> device_obstacle(const mirror::device& device) {
  if (!device.up() || !has_carrier(device.link)) return divert_reason::egress_down;
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

  [[nodiscard]] bool fits(std::size_t size) const noexcept {
    return length_ + size <= header_capacity;
  }
  std::byte* prepend(std::size_t size) noexcept {
    COWIRE_ASSERT(fits(size));
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

/// What a GRE checksum covers, as far as it is the same for all datagrams.
class covered_bytes {
 public:
  /// A UDP datagram and its pseudo header add up to zero: it alone is less than that.
  static covered_bytes datagram(std::uint32_t pseudo_header_sum) noexcept {
    covered_bytes made;
    made.sum_ = 0xffffu - fold_sum(pseudo_header_sum);
    made.without_pseudo_header_ = true;
    return made;
  }
  void add(const std::byte* bytes, std::size_t size) noexcept { sum_ += sum_of(bytes, size); }
  /// An IPv6 header without destination and length, which are those of the pseudo header.
  void add_ipv6(const std::byte* ip) noexcept {
    add(ip, header_size::ipv6);
    without_pseudo_header_ = false;
  }
  /// The headers of a tunnel over IPv6 but for GRE's, without length: that is the payload's and so
  /// much more. There is one at most below another tunnel (outer_headers_max).
  void add_outer_ipv6(const std::byte* ip, std::size_t size, std::uint16_t more) noexcept {
    add(ip, size);
    sum_ += be16::from_host(more).raw;
    with_length_ = true;
  }

  [[nodiscard]] gre_checksum checksum_at(std::uint8_t offset) const noexcept {
    return {fold_sum(sum_), offset, without_pseudo_header_, with_length_, 0};
  }

 private:
  std::uint32_t sum_ = 0;
  bool without_pseudo_header_ = false;
  bool with_length_ = false;
};

void prepend_udp(template_writer& writer, hop& to, const hop_key& key) noexcept {
  writer.prepend(header_size::udp);
  const be16 protocol = be16::from_host(udp_protocol);
  to.sum[hop::udp_pair] =
      std::uint32_t{sum_of(key.source.bytes().data(), key.source.size())} + protocol.raw + 1;
  to.length_base[hop::udp_pair] = header_size::udp;
  to.place_length(hop::udp_pair, writer.offset(4));
  to.place_checksum(hop::udp_pair, writer.offset(6));
}

void prepend_ipv4(template_writer& writer, hop& to, const hop_key& key) noexcept {
  std::byte* ip = writer.prepend(header_size::ipv4);
  ip[0] = std::byte{0x45};
  ip[1] = std::byte{key.tos};
  ip[6] = std::byte{0x40};  // DF
  ip[8] = std::byte{key.hop_limit};
  ip[9] = std::byte{udp_protocol};
  std::memcpy(ip + 12, key.source.bytes().data(), 4);
  to.sum[hop::ip_pair] = sum_of(ip, header_size::ipv4);
  to.length_base[hop::ip_pair] = header_size::ipv4 + header_size::udp;
  to.place_length(hop::ip_pair, writer.offset(2));
  to.place_checksum(hop::ip_pair, writer.offset(10));
}

void prepend_ipv6(template_writer& writer, hop& to, const hop_key& key) noexcept {
  std::byte* ip = writer.prepend(header_size::ipv6);
  ip[0] = std::byte{static_cast<std::uint8_t>(0x60 | key.tos >> 4)};
  ip[1] = std::byte{static_cast<std::uint8_t>(key.tos << 4)};
  ip[6] = std::byte{udp_protocol};
  ip[7] = std::byte{key.hop_limit};
  std::memcpy(ip + 8, key.source.bytes().data(), 16);
  to.length_base[hop::ip_pair] = header_size::udp;
  to.place_length(hop::ip_pair, writer.offset(4));
}

/// The device that a frame goes to next, and what is added on the way; empty where that is more
/// than a template can say.
std::optional<std::uint32_t> lower_of(const netlink::link& link,
                                      std::optional<netlink::vlan_info>& tag) {
  if (const auto* vlan = std::get_if<netlink::vlan_info>(&link.info)) {
    if (link.lower_in_other_namespace || vlan->has_egress_map || tag) return std::nullopt;
    tag = *vlan;
    return link.lower;
  }
  if (const auto* macvlan = std::get_if<netlink::macvlan_info>(&link.info)) {
    // In bridge mode the kernel delivers to its neighbours on the same device, whatever their
    // namespace.
    constexpr std::uint32_t outward =
        MACVLAN_MODE_PRIVATE | MACVLAN_MODE_VEPA | MACVLAN_MODE_PASSTHRU;
    if (link.lower_in_other_namespace || (macvlan->mode & outward) == 0) return std::nullopt;
    return link.lower;
  }
  return std::nullopt;
}

/// Ethernet devices that hand a frame to a wire, or to a peer.
bool sends_itself(const netlink::link& link) { return one_of(link.kind, direct_kinds); }

egress_choice over_slaves(const mirror& state, const mirror::device& bond, egress_choice found) {
  auto usable = usable_slaves(state, bond);
  if (const auto* reason = std::get_if<divert_reason>(&usable)) return {*reason, 0, {}, {}, false};
  found.slaves = std::get<std::vector<std::uint32_t>>(std::move(usable));
  for (const std::uint32_t index : found.slaves)
    if (!sends_itself(state.find_device(index)->link))
      return {divert_reason::unsupported_device, 0, {}, {}, false};
  return found;
}

/// As egress_of(), without the device `gone`.
egress_choice egress_without(const mirror& state, std::uint32_t interface_index,
                             std::uint32_t gone) {
  const auto divert = [](divert_reason reason) { return egress_choice{reason, 0, {}, {}, false}; };
  egress_choice found{std::nullopt, interface_index, {}, {}, false};
  // One device above another at most three deep: a VLAN of a bond of a NIC.
  for (int depth = 0; depth < 4; ++depth) {
    const mirror::device* device = state.find_device(found.interface_index);
    if (device == nullptr || found.interface_index == gone)
      return divert(divert_reason::egress_down);
    const netlink::link& link = device->link;
    if (is_tunnel_kind(link.kind)) return divert(divert_reason::tunnel);
    if ((link.flags & IFF_LOOPBACK) != 0) return divert(divert_reason::unsupported_device);
    if (const auto reason = device_obstacle(*device)) return divert(*reason);
    if (sends_itself(link)) return found;
    // Of its own queues a bond takes one without a hash (bond_select_queue() in bond_main.c).
    const bool is_bond = std::holds_alternative<netlink::bond_info>(link.info);
    found.hashed |= state.has_queue(link.index) || (!is_bond && link.transmit_queues > 1);
    if (hashes_frames(link)) return over_slaves(state, *device, std::move(found));
    if (const auto* bond = std::get_if<netlink::bond_info>(&link.info)) {
      if (bond->mode != BOND_MODE_ACTIVEBACKUP) return divert(divert_reason::bond_policy);
      if (bond->active_slave == 0) return divert(divert_reason::egress_down);
      found.interface_index = bond->active_slave;
      continue;
    }
    const auto lower = lower_of(link, found.tag);
    if (!lower) return divert(divert_reason::unsupported_device);
    found.interface_index = *lower;
  }
  return divert(divert_reason::unsupported_device);
}

}  // namespace

hop divert_hop(divert_reason reason) noexcept {
  hop made{};
  made.egress = divert_slot;
  made.reason = reason;
  return made;
}

namespace {

/// Builds one hop: the datagram's own headers, then layer by layer what each device on its way
/// puts in front.
class hop_maker {
 public:
  hop_maker(const mirror& state, const egress_slots& slots, const hop_key& key,
            const tunnel_limits& limits, std::uint32_t gone)
      : state_(state), slots_(slots), key_(key), limits_(limits), gone_(gone), writer_(made_) {}

  built_hop make() {
    if (const auto reason = build()) {
      built_hop refused(divert_hop(*reason));
      if (*reason == divert_reason::neighbour_unresolved) refused.unresolved = unresolved_;
      return refused;
    }
    if (slaves_.empty()) return made_;
    return {std::move(slaves_), rule_};
  }

 private:
  using refusal = std::optional<divert_reason>;

  refusal build() {
    const bool v4 = key_.family == ip_family::v4;
    made_.clear_fields();
    prepend_udp(writer_, made_, key_);
    if (v4)
      prepend_ipv4(writer_, made_, key_);
    else
      prepend_ipv6(writer_, made_, key_);

    covered_ = covered_bytes::datagram(made_.sum[hop::udp_pair] - 1);
    if (!v4) covered_.add_ipv6(made_.header + writer_.offset(0));

    packet_ = {key_.family, key_.tos, key_.hop_limit, !key_.needs_identification, {}};
    const std::byte* const innermost = made_.header + writer_.offset(0);
    std::uint32_t index = key_.interface_index;
    std::optional<ip_address> next_hop = key_.next_hop;
    std::uint32_t mtu = key_.route_mtu;
    to_group_ = key_.multicast && !next_hop;
    for (std::size_t level = 0;; ++level) {
      const mirror::device* device = state_.find_device(index);
      if (device == nullptr || index == gone_) return divert_reason::egress_down;
      const netlink::link& link = device->link;
      limit_to(mtu != 0 ? std::min(mtu, link.mtu) : link.mtu);
      if (const auto reason = pass_vrf(index)) return reason;
      if (!is_tunnel_kind(link.kind)) return leave(link, next_hop, level > 0);
      if (const auto reason = keep_out(link, level)) return reason;
      const auto through = tunnel_of(link);
      if (const auto* reason = std::get_if<divert_reason>(&through)) return *reason;
      if (!device->up()) return divert_reason::egress_down;
      if (level == outer_headers_max) return divert_reason::tunnel_depth;
      const auto& tunnel = std::get<gre::tunnel>(through);
      if (tunnel.ethernet) {
        if (const auto reason = prepend_ethernet(link, next_hop, {})) return reason;
        covered_.add(made_.header + writer_.offset(0), header_size::ethernet);
      }
      if (level > 0) {
        see_ecn(tunnel);
        packet_ = gre::as_ip_tunnel_sees(tunnel, packet_, innermost);
      }
      const auto under = underlay_of(state_, link, tunnel, packet_, mirrored_tables());
      if (const auto* reason = std::get_if<divert_reason>(&under)) return *reason;
      const auto& route = std::get<underlay>(under);
      if (const auto reason = enter(link, tunnel, route.source, level)) return reason;
      index = route.interface_index;
      next_hop = route.next_hop;
      mtu = route.mtu;
      to_group_ = false;
    }
  }

  /// What goes over a device of a VRF is given to the VRF first (vrf_l3_out() in
  /// drivers/net/vrf.c), which hands it back as it is, unless it has a queue to put it in.
  [[nodiscard]] refusal pass_vrf(std::uint32_t index) const {
    const std::uint32_t vrf = vrf_of(state_, index);
    if (vrf == 0 || vrf == index) return std::nullopt;
    const mirror::device* const device = state_.find_device(vrf);
    if (!device->up() || vrf == gone_) return divert_reason::egress_down;
    const auto* const info = std::get_if<netlink::vrf_info>(&device->link.info);
    if (info == nullptr || device->link.transmit_queues > 1 || state_.has_queue(vrf))
      return divert_reason::vrf_queue;
    return std::nullopt;
  }

  /// Whether the user or the truth audit keeps datagrams from this tunnel.
  [[nodiscard]] refusal keep_out(const netlink::link& link, std::size_t level) const {
    const route_restrictions* const user = limits_.restrictions;
    if (user != nullptr && user->tunnel_interfaces &&
        std::ranges::find(*user->tunnel_interfaces, link.name) == user->tunnel_interfaces->end())
      return divert_reason::tunnel_not_listed;
    if (user != nullptr && level == 0 && key_.outside_prefixes)
      return divert_reason::outside_prefixes;
    const auto* const info = std::get_if<netlink::tunnel_info>(&link.info);
    if (limits_.quarantined == nullptr || info == nullptr) return std::nullopt;
    const ip_prefix remote(info->remote, info->remote.bits());
    const bool quarantined = std::ranges::any_of(
        *limits_.quarantined, [&](const ip_prefix& prefix) { return prefix.contains(remote); });
    return quarantined ? refusal(divert_reason::audit_quarantine) : std::nullopt;
  }

  [[nodiscard]] const std::vector<std::uint32_t>* mirrored_tables() const noexcept {
    const route_restrictions* const user = limits_.restrictions;
    return user != nullptr && user->routing_tables ? &*user->routing_tables : nullptr;
  }

  /// A packet of the layer that was just built has to fit.
  void limit_to(std::uint32_t mtu) noexcept {
    const std::ptrdiff_t room = std::ptrdiff_t{std::min(mtu, 0xffffu)} - writer_.length();
    room_ = std::min(room_, room);
  }

  refusal enter(const netlink::link& link, const gre::tunnel& tunnel, const ip_address& source,
                std::size_t level) {
    const auto& remote = std::get<netlink::tunnel_info>(link.info).remote;
    const auto outer = gre::encapsulate(tunnel, source, remote, packet_);
    if (!outer) return divert_reason::tunnel;
    if (!writer_.fits(outer->size)) return divert_reason::tunnel_depth;
    std::byte* ip = writer_.prepend(outer->size);
    std::memcpy(ip, outer->bytes().data(), outer->size);
    const std::uint8_t protocol = outer_protocol_of(link, packet_.family);
    if (key_.outer_tracked) outer_.push_back({source, remote, protocol});
    const bool v4 = tunnel.outer == ip_family::v4;
    if (v4 && !outer->packet.dont_fragment) return divert_reason::needs_identification;
    const std::size_t pair = hop::outer_pair + level;
    made_.length_base[pair] =
        static_cast<std::uint16_t>(writer_.length() - (v4 ? 0 : header_size::ipv6));
    made_.place_length(pair, writer_.offset(v4 ? 2 : 4));
    if (v4) made_.place_checksum(pair, writer_.offset(10));
    if (v4) made_.sum[pair] = sum_of(ip, header_size::ipv4);
    packet_ = outer->packet;
    follow_ecn(tunnel);
    return cover_by(tunnel, *outer, made_.length_base[pair]);
  }

  /// Where as_ip_tunnel_sees() takes the ECN bits of the packet from.
  void see_ecn(const gre::tunnel& tunnel) noexcept {
    if (tunnel.tos_by != gre::tos_rule::odd_inherits) return;
    if (packet_.family == key_.family) {
      ecn_ = gre::ecn_rule::copied;
      return;
    }
    // Of another family than it is read as, its ECN bits are taken for others, or for none.
    ecn_ = gre::ecn_rule::fixed;
    ecn_by_kernel_ |= key_.family == ip_family::v6 && (tunnel.tos & 1) != 0;
  }

  /// Says whether the newest header's ECN bits follow those of the datagram, and how.
  void follow_ecn(const gre::tunnel& tunnel) noexcept {
    const gre::ecn_rule rule = gre::ecn_rule_of(tunnel);
    if (rule == gre::ecn_rule::fixed || ecn_ == gre::ecn_rule::copied) ecn_ = rule;
    if (ecn_ == gre::ecn_rule::fixed) return;
    const bool copied = ecn_ == gre::ecn_rule::copied;
    made_.ecn_at[ecn_count_++] =
        static_cast<std::uint8_t>(writer_.offset(0) | (copied ? hop::ecn_copied : 0));
  }

  /// The headers of a tunnel are the newest. IPv4 headers, and what has a checksum, add up to zero.
  refusal cover_by(const gre::tunnel& tunnel, const gre::outer_headers& outer,
                   std::uint16_t length_base) noexcept {
    const std::size_t gre_at = outer.size - outer.gre_size;
    covered_.add(made_.header + writer_.offset(gre_at), outer.gre_size);
    if (tunnel.checksum) {
      // It would cover the group's MAC address, which the template does not have.
      if (made_.group_mac_at != 0) return divert_reason::multicast_destination;
      made_.gre_checksums[made_.gre_checksum_count++] =
          covered_.checksum_at(writer_.offset(gre_at + gre::checksum_offset));
      covered_ = {};
    }
    if (tunnel.outer == ip_family::v6)
      covered_.add_outer_ipv6(made_.header + writer_.offset(0), gre_at, length_base);
    return std::nullopt;
  }

  refusal prepend_ethernet(const netlink::link& link, const std::optional<ip_address>& next_hop,
                           const std::optional<netlink::vlan_info>& tag) {
    const auto mac = next_hop    ? resolved_mac(state_, link.index, *next_hop)
                     : to_group_ ? std::optional(group_mac(ip_address::any(packet_.family)))
                                 : std::nullopt;
    if (!mac) {
      if (next_hop) unresolved_ = {link.index, *next_hop};
      return divert_reason::neighbour_unresolved;
    }
    if (!writer_.fits(header_size::ethernet + (tag ? header_size::vlan_tag : 0)))
      return divert_reason::tunnel_depth;
    writer_.prepend16(packet_.family == ip_family::v4 ? ethertype_ipv4 : ethertype_ipv6);
    if (tag) {
      writer_.prepend16(tag->id);
      writer_.prepend16(tag->protocol.host());
    }
    std::memcpy(writer_.prepend(6), link.address.data(), 6);
    std::memcpy(writer_.prepend(6), mac->bytes.data(), 6);
    if (to_group_) made_.group_mac_at = writer_.offset(0);
    return std::nullopt;
  }

  /// The last layer: the device below is one that frames are given to.
  refusal leave(const netlink::link& link, const std::optional<ip_address>& next_hop,
                bool tunnelled) {
    const egress_choice egress = egress_without(state_, link.index, gone_);
    if (egress.divert) return egress.divert;
    if (key_.needs_identification) return divert_reason::needs_identification;
    const auto senders = egress.senders();
    const auto has_socket = [&](std::uint32_t index) { return slots_.contains(index); };
    if (std::ranges::none_of(senders, has_socket)) return divert_reason::no_egress_socket;
    if (const auto reason = prepend_ethernet(link, next_hop, egress.tag)) return reason;
    if (room_ < 0) return divert_reason::exceeds_mtu;
    if (!outer_.empty()) {
      const auto number = limits_.numbers != nullptr ? limits_.numbers->number_of(outer_)
                                                     : std::optional<outer_flows::number>();
      if (!number) return divert_reason::conntrack_new;
      made_.outer_flow = *number;
    }
    if (ecn_by_kernel_) made_.ecn_at[0] = hop::ecn_by_kernel;
    made_.set_header_length(writer_.length());
    made_.max_payload = static_cast<std::uint16_t>(room_);
    if (!egress.slaves.empty()) return leave_by_slave(egress, tunnelled);
    made_ = sent_by(egress.interface_index);
    return std::nullopt;
  }

  [[nodiscard]] hop sent_by(std::uint32_t index) const {
    if (index == gone_) return divert_hop(divert_reason::egress_down);
    const auto slot = slots_.find(index);
    if (slot == slots_.end()) return divert_hop(divert_reason::no_egress_socket);
    hop made = made_;
    made.egress = static_cast<egress_slot>(slot->second + (key_.tracked ? tracked_egress : 0));
    made.interface_index = index;
    return made;
  }

  refusal leave_by_slave(const egress_choice& egress, bool tunnelled) {
    const auto& bond =
        std::get<netlink::bond_info>(state_.find_device(egress.interface_index)->link.info);
    // Without the tag, which the kernel keeps beside the frame.
    std::array<std::byte, header_capacity> bytes;
    std::span<const std::byte> whole(made_.header + writer_.offset(0), writer_.length());
    const std::size_t cut = egress.tag ? header_size::vlan_tag : 0;
    constexpr std::size_t addresses = 12;
    std::memcpy(bytes.data(), whole.data(), addresses);
    std::memcpy(bytes.data() + addresses, whole.data() + addresses + cut,
                whole.size() - addresses - cut);
    const bond_frame frame{.bytes = std::span(bytes).first(whole.size() - cut),
                           .tag = egress.tag ? egress.tag->id : std::uint16_t{0},
                           .tunnelled = tunnelled,
                           .to_group = to_group_,
                           .hashed = egress.hashed,
                           .source = key_.source};
    const auto rule = slave_rule_of(bond.xmit_hash_policy, frame);
    if (const auto* reason = std::get_if<divert_reason>(&rule)) return *reason;
    rule_ = std::get<slave_rule>(rule);
    if (rule_.is_fixed() || egress.slaves.size() == 1) {
      const hop one = sent_by(egress.slaves[rule_.hash({}) % egress.slaves.size()]);
      if (one.egress == divert_slot) return one.reason;
      made_ = one;
      return std::nullopt;
    }
    for (const std::uint32_t index : egress.slaves) slaves_.push_back(sent_by(index));
    return std::nullopt;
  }

  const mirror& state_;
  const egress_slots& slots_;
  const hop_key& key_;
  const tunnel_limits& limits_;
  const std::uint32_t gone_;
  hop made_{};
  std::vector<hop> slaves_;  ///< Instead of it, where a bond chooses.
  slave_rule rule_;
  std::optional<neighbour_key> unresolved_;
  template_writer writer_;
  gre::inner_packet packet_;
  covered_bytes covered_;
  std::vector<outer_flow> outer_;  ///< Where they are tracked.
  /// What the packet in the making has of the datagram's ECN bits.
  gre::ecn_rule ecn_ = gre::ecn_rule::copied;
  std::size_t ecn_count_ = 0;
  bool ecn_by_kernel_ = false;
  std::ptrdiff_t room_ = 0xffff;  ///< For the payload.
  bool to_group_ = false;         ///< The layer in the making goes to a group's own MAC address.
};

}  // namespace

built_hop build_hop(const mirror& state, const egress_slots& slots, const hop_key& key,
                    const tunnel_limits& limits, std::uint32_t gone) {
  return hop_maker(state, slots, key, limits, gone).make();
}

bool leaves_by_itself(const mirror& state, std::uint32_t index) noexcept {
  const mirror::device* const device = state.find_device(index);
  return device != nullptr && device->link.master == 0 && sends_itself(device->link);
}

}  // namespace cowire::detail

namespace cowire {

egress_choice egress_of(const mirror& state, std::uint32_t interface_index) {
  return detail::egress_without(state, interface_index, 0);
}

}  // namespace cowire

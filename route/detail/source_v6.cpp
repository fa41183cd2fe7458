// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/route/detail/cover.hpp>
#include <cowire/route/detail/source_v6.hpp>
#include <cowire/route/detail/vrf.hpp>

#include <linux/if_addr.h>

#include <algorithm>
#include <array>
#include <tuple>
#include <vector>

namespace cowire::detail {
namespace {

ip_prefix parsed(const char* text) {
  const auto prefix = ip_prefix::parse(text);
  COWIRE_ASSERT(prefix);
  return *prefix;
}

std::uint32_t label_of(const ip_address& address) {
  for (const address_label& entry : default_address_labels())
    if (entry.prefix.contains(address)) return entry.label;
  return 0;
}

constexpr int link_local = 2, site_local = 5, global = 14;

/// RFC 4291 scope values as __ipv6_addr_src_scope() gives them.
int scope_of(const ip_address& address) {
  if (address.is_unspecified()) return 0;
  if (address.is_multicast()) return address.bytes()[1] & 0x0f;
  if (address.is_loopback() || address.is_link_local_v6()) return link_local;
  if (address.bytes()[0] == 0xfe && (address.bytes()[1] & 0xc0) == 0xc0) return site_local;
  return global;
}

bool is_orchid(const ip_address& address) {
  static const ip_prefix orchid = parsed("2001:10::/28");
  return orchid.contains(address);
}

using score = std::array<int, 9>;

/// In the order of the rules; larger is better. An own address inside the region is none of its
/// destinations, even where the region begins with it: it has a region of its own.
score score_of(const netlink::address& own, std::uint32_t output, const ip_prefix& region,
               std::uint32_t label, int scope, bool prefers_temporary) {
  const ip_address& to = region.address();
  const unsigned common = std::min(common_length(own.local, to), region.length());
  const int own_scope = scope_of(own.local);
  const bool old = (own.flags & (IFA_F_DEPRECATED | IFA_F_OPTIMISTIC)) != 0;
  return {region.is_host() && own.local == to,
          own_scope >= scope ? -own_scope : own_scope - 128,
          !old,
          output == 0 || own.index == output,
          label_of(own.local) == label,
          own.is_temporary() == prefers_temporary,
          is_orchid(own.local) == is_orchid(to),
          static_cast<int>(std::min<unsigned>(common, own.prefix_length)),
          (own.flags & IFA_F_OPTIMISTIC) == 0};
}

bool is_candidate(const netlink::address& own) {
  return !is_in_detection(own) && !own.local.is_multicast() && !own.local.is_unspecified();
}

constexpr int last = 2;  // Rank of devices that no VRF prefers.

}  // namespace

source_choice select_source_v6(const mirror& state, std::uint32_t index,
                               const ip_prefix& destinations) {
  const ip_address& destination = destinations.address();
  const std::uint32_t label = label_of(destination);
  const int scope = scope_of(destination);
  const std::uint32_t vrf = vrf_of(state, index);
  // In a VRF the output device and the VRF's own are looked at before the others.
  const auto rank = [&](const mirror::device& device) {
    return vrf == 0 ? last : device.link.index == index ? 0 : device.link.index == vrf ? 1 : last;
  };
  const bool only_output = index != 0 && (destination.is_multicast() || scope <= link_local);
  std::vector<const mirror::device*> devices;
  for (const auto& [i, device] : state.devices())
    if ((!only_output || i == index) && vrf_of(state, device) == vrf) devices.push_back(&device);
  std::ranges::sort(devices, {}, [&](const mirror::device* device) {
    return std::tuple(rank(*device), device->position(ip_family::v6), device->link.index);
  });

  const auto& prefers = state.settings().prefers_temporary;
  source_choice best, best_of_first;
  score best_score{};
  const mirror::device* best_device = nullptr;
  for (const mirror::device* device : devices) {
    for (const netlink::address& own : device->v6) {
      if (!is_candidate(own)) continue;
      const bool prefers_temporary = prefers.contains(own.index) && prefers.at(own.index);
      const score now = score_of(own, index, destinations, label, scope, prefers_temporary);
      if (best.address && now <= best_score) {
        // A tie between devices goes to the one registered first.
        const bool unordered = device != best_device && rank(*best_device) == last &&
                               !device->is_order_known(*best_device, ip_family::v6);
        if (now == best_score && unordered) best.certain = false;
        continue;
      }
      best = {own.local, true};
      best_score = now;
      best_device = device;
    }
    if (rank(*device) != last) best_of_first = best;
  }
  // Whether the kernel looks further depends on a score that it may not have computed
  // (ipv6_dev_get_saddr(), scopedist).
  if (best_of_first.address && best_of_first.address != best.address) best.certain = false;
  // Whether a device prefers them is not read yet; home addresses count if the kernel was built for
  // Mobile IPv6.
  const auto unclear = [&](const netlink::address& own) {
    return is_candidate(own) && ((own.is_temporary() && !prefers.contains(own.index)) ||
                                 (own.flags & IFA_F_HOMEADDRESS) != 0);
  };
  for (const mirror::device* device : devices)
    if (std::ranges::any_of(device->v6, unclear)) best.certain = false;
  return best;
}

std::span<const ip_prefix> source_policy_prefixes() {
  static const std::vector<ip_prefix> prefixes = [] {
    std::vector<ip_prefix> all;
    for (const address_label& entry : default_address_labels()) all.push_back(entry.prefix);
    all.push_back(parsed("fe80::/10"));
    return all;
  }();
  return prefixes;
}

}  // namespace cowire::detail

namespace cowire {

std::span<const address_label> default_address_labels() {
  static const std::vector<address_label> table = {
      {detail::parsed("::1/128"), 0},       {detail::parsed("::/96"), 3},
      {detail::parsed("::ffff:0:0/96"), 4}, {detail::parsed("2001::/32"), 6},
      {detail::parsed("2001:10::/28"), 7},  {detail::parsed("3ffe::/16"), 12},
      {detail::parsed("2002::/16"), 2},     {detail::parsed("fec0::/10"), 11},
      {detail::parsed("fc00::/7"), 5},      {detail::parsed("::/0"), 1}};
  return table;
}

}  // namespace cowire

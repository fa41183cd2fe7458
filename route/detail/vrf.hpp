// SPDX-License-Identifier: Apache-2.0
/// Which VRF a device belongs to. Sources are chosen within one VRF, or outside of all of them
/// (net/ipv6/addrconf.c, ipv6_dev_get_saddr; net/ipv4/devinet.c, inet_select_addr), and a flow that
/// is bound to the VRF or to one of its devices meets `l3mdev` rules (net/l3mdev/l3mdev.c).
#pragma once

#include <cowire/route/mirror.hpp>

#include <algorithm>
#include <cstdint>
#include <variant>

namespace cowire::detail {

/// ifindex of the VRF that a device is or belongs to, 0 = none.
[[nodiscard]] inline std::uint32_t vrf_of(const mirror& state, const mirror::device& device) {
  if (device.link.kind == "vrf") return device.link.index;
  const mirror::device* master =
      device.link.master == 0 ? nullptr : state.find_device(device.link.master);
  return master != nullptr && master->link.kind == "vrf" ? master->link.index : 0;
}

[[nodiscard]] inline std::uint32_t vrf_of(const mirror& state, std::uint32_t index) {
  const mirror::device* device = state.find_device(index);
  return device == nullptr ? 0 : vrf_of(state, *device);
}

/// Whether a tried IPv6 address is of a device of this VRF; 0 = of one that is in none
/// (ipv6_chk_addr_and_flags() in net/ipv6/addrconf.c).
[[nodiscard]] inline bool has_address_v6(const mirror& state, const ip_address& address,
                                         std::uint32_t vrf) {
  return std::ranges::any_of(state.devices(), [&](const auto& entry) {
    return vrf_of(state, entry.second) == vrf &&
           std::ranges::any_of(entry.second.v6, [&](const netlink::address& own) {
             return own.local == address && !is_in_detection(own);
           });
  });
}

[[nodiscard]] inline bool is_vrf(const mirror& state, std::uint32_t index) {
  const mirror::device* device = state.find_device(index);
  return device != nullptr && device->link.kind == "vrf";
}

[[nodiscard]] inline bool has_vrfs(const mirror& state) {
  return std::ranges::any_of(state.devices(),
                             [](const auto& item) { return item.second.link.kind == "vrf"; });
}

/// The table of a VRF device; 0 = it is none.
[[nodiscard]] inline std::uint32_t table_of_vrf(const mirror& state, std::uint32_t vrf) {
  const mirror::device* device = state.find_device(vrf);
  const auto* info =
      device == nullptr ? nullptr : std::get_if<netlink::vrf_info>(&device->link.info);
  return info == nullptr ? 0 : info->table;
}

/// The VRF that a device is in by whatever master it has, as tunnels look for it
/// (__l3mdev_master_upper_ifindex_by_index() in net/l3mdev/l3mdev.c); 0 = none.
[[nodiscard]] inline std::uint32_t vrf_above(const mirror& state, std::uint32_t index) {
  constexpr int depth_max = 8;  // Masters upon masters; more are nowhere allowed.
  for (int depth = 0; depth < depth_max; ++depth) {
    const mirror::device* device = state.find_device(index);
    if (device == nullptr) return 0;
    if (device->link.kind == "vrf") return index;
    index = device->link.master;
  }
  return 0;
}

}  // namespace cowire::detail

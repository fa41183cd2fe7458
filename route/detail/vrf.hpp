// SPDX-License-Identifier: Apache-2.0
/// Which VRF a device belongs to. Sources are chosen within one VRF, or outside of all of them
/// (net/ipv6/addrconf.c, ipv6_dev_get_saddr; net/ipv4/devinet.c, inet_select_addr).
#pragma once

#include <cowire/route/mirror.hpp>

#include <cstdint>

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

}  // namespace cowire::detail

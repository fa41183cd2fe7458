// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/known_trouble.hpp>

#include <algorithm>

namespace cowire {
namespace {

constexpr known_trouble troubles[] = {
    {"ena", send_mode::zero_copy, true,
     "zero-copy sends half as many datagrams a second as copy mode, and the device resets itself "
     "under load",
     "https://github.com/amzn/amzn-drivers/issues/221"},
    {"igb", send_mode::zero_copy, false,
     "attaching the XDP program resets the device: no carrier for three seconds",
     "igb_xdp_setup() in drivers/net/ethernet/intel/igb/igb_main.c"},
    {"mlx5_core", send_mode::zero_copy, false,
     "frames of 128 to 512 bytes reach half the rate of 64-byte ones",
     "https://github.com/xdp-project/bpf-examples/issues/61"},
    {"stmmac", send_mode::zero_copy, false,
     "a receive queue that has run out of buffers does not start again by itself",
     "https://github.com/analogdevicesinc/linux/issues/3517"},
};

}  // namespace

std::span<const known_trouble> known_troubles() noexcept { return troubles; }

std::string trouble_to_avoid(const device_facts& device, send_mode mode) {
  const auto found = std::ranges::find_if(troubles, [&](const known_trouble& t) {
    return t.avoid && t.mode == mode && t.driver == device.driver;
  });
  if (found == std::end(troubles)) return {};
  return "known trouble of driver " + device.driver + ": " + std::string(found->what) + " (" +
         std::string(found->source) + "); ask for " + std::string(name(mode)) +
         " by name to try it all the same";
}

}  // namespace cowire

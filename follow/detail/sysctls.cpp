// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/address_labels.hpp>
#include <cowire/follow/detail/sysctls.hpp>

#include <net/if.h>
#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

namespace cowire::detail {
namespace {

long read_number(const std::string& path, long fallback) {
  std::ifstream file(path);
  long value = fallback;
  return file >> value ? value : fallback;
}

/// "user U kernel K" or a bare number, by kernel version; 0 = random.
std::uint32_t read_hash_seed() {
  return static_cast<std::uint32_t>(read_number("/proc/sys/net/ipv4/fib_multipath_hash_seed", 0));
}

}  // namespace

mirror_settings read_mirror_settings(const mirror& state) {
  const std::string v4 = "/proc/sys/net/ipv4/", v6 = "/proc/sys/net/ipv6/";
  mirror_settings out;
  const auto small = [](long value) { return static_cast<std::uint8_t>(value); };
  out.ipv4_default_ttl = small(read_number(v4 + "ip_default_ttl", out.ipv4_default_ttl));
  out.ipv6_hop_limit = small(read_number(v6 + "conf/default/hop_limit", out.ipv6_hop_limit));
  const auto only_output = [&](const std::string& name) {
    return read_number(v6 + "conf/" + name + "/use_oif_addrs_only", 0) != 0;
  };
  out.default_source_policy = has_default_address_labels() && !only_output("all");
  const auto localnet = [&](const std::string& name) {
    return read_number(v4 + "conf/" + name + "/route_localnet", 0) != 0;
  };
  const bool localnet_everywhere = localnet("all");
  for (const auto& [index, device] : state.devices()) {
    // Its name of now, which may still have to be told: a change is remembered for long.
    std::array<char, IF_NAMESIZE> now{};
    const char* const name = ::if_indextoname(index, now.data());
    if (localnet_everywhere || (name != nullptr && localnet(name)))
      out.route_localnet.insert(index);
    if (std::ranges::any_of(device.v6, &netlink::address::is_temporary)) {
      if (const long value = read_number(v6 + "conf/" + device.link.name + "/use_tempaddr", -1);
          value >= 0)
        out.prefers_temporary[index] = value >= 2;
    }
    if (only_output(device.link.name)) out.default_source_policy = false;
    if (const long value = read_number(v6 + "conf/" + device.link.name + "/hop_limit", -1);
        value > 0)
      out.device_hop_limits[index] = small(value);
    if (const long value = read_number(v6 + "conf/" + device.link.name + "/mtu", 0);
        value > 0 && value < static_cast<long>(device.link.mtu))
      out.device_mtus_v6[index] = static_cast<std::uint32_t>(value);
  }
  const auto multipath = [&](const std::string& folder) {
    const long fields = read_number(folder + "fib_multipath_hash_fields", 0x07);
    return multipath_settings{small(read_number(folder + "fib_multipath_hash_policy", 0)),
                              static_cast<std::uint32_t>(fields)};
  };
  out.multipath_v4 = multipath(v4);
  out.multipath_v6 = multipath(v6);
  out.multipath_hash_seed = read_hash_seed();
  out.multipath_use_neighbours = read_number(v4 + "fib_multipath_use_neigh", 0) != 0;
  out.no_path_mtu_discovery =
      state.settings().no_path_mtu_discovery || read_number(v4 + "ip_no_pmtu_disc", 0) != 0;
  utsname system{};
  unsigned major = 0, minor = 0;
  if (::uname(&system) == 0 && std::sscanf(system.release, "%u.%u", &major, &minor) == 2)
    out.kernel_version = major * 1000 + minor;
  return out;
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/device_order.hpp>
#include <cowire/follow/detail/ioctl_socket.hpp>

#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

namespace cowire::detail {
namespace {

constexpr std::chrono::seconds first_pause{1}, longest_pause{60};

/// What SIOCGIFCONF fills in: an entry for each address.
std::optional<std::vector<ifreq>> read_entries(int ioctl_socket) {
  ifconf told{};
  if (::ioctl(ioctl_socket, SIOCGIFCONF, &told) < 0) return std::nullopt;
  // With room for some that come meanwhile: a full answer may be a cut one.
  std::vector<ifreq> entries(static_cast<std::size_t>(told.ifc_len) / sizeof(ifreq) + 8);
  told.ifc_len = static_cast<int>(entries.size() * sizeof(ifreq));
  told.ifc_req = entries.data();
  if (::ioctl(ioctl_socket, SIOCGIFCONF, &told) < 0) return std::nullopt;
  const std::size_t count = static_cast<std::size_t>(told.ifc_len) / sizeof(ifreq);
  if (count >= entries.size()) return std::nullopt;
  entries.resize(count);
  return entries;
}

/// An entry names the address's label, which usually is the device's name, and perhaps more after a
/// colon. 0: another one, or the device has another name by now.
std::uint32_t device_of(int ioctl_socket, const ifreq& entry, const mirror& state) {
  const std::string label(entry.ifr_name, ::strnlen(entry.ifr_name, IFNAMSIZ));
  ifreq named{};  // As if_nametoindex(), which makes a socket each time.
  label.copy(named.ifr_name, std::min(label.find(':'), std::size_t{IFNAMSIZ - 1}));
  const auto index = ::ioctl(ioctl_socket, SIOCGIFINDEX, &named) == 0
                         ? static_cast<std::uint32_t>(named.ifr_ifindex)
                         : 0;
  const mirrored_device* const device = state.find_device(index);
  if (device == nullptr) return 0;
  sockaddr_in own{};
  std::memcpy(&own, &entry.ifr_addr, sizeof own);
  const ip_address address = ip_address::v4(ntohl(own.sin_addr.s_addr));
  return std::ranges::find(device->v4, address, &netlink::address::local) != device->v4.end()
             ? index
             : 0;
}

std::optional<std::vector<std::uint32_t>> read_v4(int ioctl_socket, const mirror& state) {
  const auto entries = read_entries(ioctl_socket);
  if (!entries) return std::nullopt;
  std::vector<std::uint32_t> order;
  for (const ifreq& entry : *entries)
    if (const std::uint32_t index = device_of(ioctl_socket, entry, state); index != 0)
      order.push_back(index);
  return order;
}

std::optional<std::vector<std::uint32_t>> read_v6() {
  std::ifstream file("/proc/thread-self/net/igmp6");
  if (!file) return std::nullopt;
  std::vector<std::uint32_t> order;
  std::uint32_t index = 0;
  for (std::string rest; file >> index && std::getline(file, rest);) order.push_back(index);
  return order;
}

}  // namespace

device_order_reader::device_order_reader() : ioctl_socket_(open_ioctl_socket()) {}

std::uint64_t device_order_reader::settle(mirror& state, time_point now, mirror_changes& changes) {
  std::uint64_t asked = 0;
  for (const ip_family family : ip_families) {
    time_point& next = next_[number_of(family)];
    bool& settled = settled_[number_of(family)];
    if (settled || now < next) continue;
    settled = !state.has_hidden_order(family);
    if (settled) continue;
    ++asked;
    const auto order = family == ip_family::v4 ? read_v4(ioctl_socket_.get(), state) : read_v6();
    if (order) state.set_device_order(family, *order, changes);
    std::chrono::seconds& pause = pauses_[number_of(family)];
    settled = !state.has_hidden_order(family);
    pause = settled ? std::chrono::seconds(0) : std::clamp(2 * pause, first_pause, longest_pause);
    next = now + pause;
  }
  return asked;
}

}  // namespace cowire::detail

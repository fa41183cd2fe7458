// SPDX-License-Identifier: Apache-2.0
/// Reads the order in which devices were registered.
///
/// It decides between addresses that are equally good as a source (inet_select_addr() in
/// net/ipv4/devinet.c, ipv6_dev_get_saddr() in net/ipv6/addrconf.c), and dumps hide it: they are
/// sorted by ifindex. Who goes through all devices in order and tells is, for IPv4, SIOCGIFCONF
/// (dev_ifconf() in net/core/dev_ioctl.c, those with addresses), and for IPv6 /proc/net/igmp6
/// (igmp6_mc_get_first() in net/ipv6/mcast.c, those with any group, which all that speak IPv6
/// have). Two devices never change places; later ones come last, and are announced.
///
/// SIOCGIFCONF waits for the kernel's RTNL lock, microseconds as a rule. One thread at a time.
/// Network namespace: the calling thread's, which is the one that made it.
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/route/mirror.hpp>

#include <chrono>
#include <cstdint>

namespace cowire::detail {

class device_order_reader {
 public:
  using time_point = std::chrono::steady_clock::time_point;

  /// Throws std::system_error.
  device_order_reader();

  /// Reads the order of each family of which a mirror does not know it. What cannot be read stays
  /// hidden, and is tried again after a second, and then less and less often, up to a minute.
  /// Returns how often the kernel was asked. Where nothing was hidden it costs nothing until
  /// on_changes().
  std::uint64_t settle(mirror& state, time_point now, mirror_changes& changes);
  /// Devices or addresses are others.
  void on_changes() noexcept { settled_[0] = settled_[1] = false; }

 private:
  const unique_fd ioctl_socket_;
  bool settled_[2]{};  ///< Nothing is hidden.
  time_point next_[2]{};
  std::chrono::seconds pauses_[2]{};  ///< 0: the last reading told all.
};

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// Devices, their addresses and per-device settings, each in the kernel's own order.
///
/// A value, part of a mirror; the mirror's thread only. What a change here does to routes and
/// nexthop objects is the mirror's concern.
#pragma once

#include <cowire/route/mirror_changes.hpp>
#include <cowire/route/mirrored_device.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace cowire::detail {

[[nodiscard]] constexpr std::size_t number_of(ip_family family) noexcept {
  return static_cast<std::size_t>(family);
}

struct neighbour_key_hash {
  std::size_t operator()(const neighbour_key& key) const noexcept {
    return std::hash<ip_address>{}(key.destination) * 31 + key.index;
  }
};

class device_store {
 public:
  /// NETCONFA_* of one device, or of "all" and "default"; unset = not told.
  struct device_settings {
    std::optional<bool> forwarding, ignore_linkdown, multicast_forwarding;
    friend bool operator==(const device_settings&, const device_settings&) = default;
  };

  [[nodiscard]] const std::map<std::uint32_t, mirrored_device>& all() const noexcept {
    return devices_;
  }
  [[nodiscard]] const mirrored_device* find(std::uint32_t index) const noexcept;
  [[nodiscard]] mirrored_device* find(std::uint32_t index) noexcept;
  [[nodiscard]] const mirrored_device* find(std::string_view name) const noexcept;
  [[nodiscard]] const std::map<std::int32_t, device_settings>& netconf(
      ip_family family) const noexcept {
    return netconf_[static_cast<std::size_t>(family)];
  }
  [[nodiscard]] bool forwarding(ip_family family) const noexcept;
  [[nodiscard]] bool ignores_linkdown(ip_family family, std::uint32_t index) const noexcept;
  /// As mirror::routes_multicast().
  [[nodiscard]] bool routes_multicast(ip_family family, std::uint32_t index) const noexcept;
  /// As mirror::shows_all_dead().
  [[nodiscard]] bool shows_all_dead(ip_family family, std::uint32_t index) const noexcept;
  /// Configured on any device, and not in detection.
  [[nodiscard]] bool has_address(const ip_address& address) const noexcept;

  /// The device of a message, made if new: then it has its link. The peer learns of its end.
  [[nodiscard]] std::pair<mirrored_device*, bool> take_in(const netlink::link& message,
                                                          message_origin origin);
  /// With its settings. Nothing else follows it.
  void erase(std::uint32_t index);
  void insert_address(mirrored_device& on, const netlink::address& message, message_origin origin);
  /// Of a refresh: this address was named.
  void name_address(const netlink::address& message, message_origin origin);
  /// Next hops look their source up anew (dev_addr_genid in net/ipv4/fib_frontend.c).
  void source_caches_are_void(message_origin origin, mirror_changes& changes);
  void apply(const netlink::netconf& message, message_origin origin, mirror_changes& changes);
  /// As mirror::has_hidden_order().
  [[nodiscard]] bool has_hidden_order(ip_family family) const noexcept;
  /// As mirror::set_device_order(); whether anything is known now that was not.
  bool set_order(ip_family family, std::span<const std::uint32_t> order);
  /// Devices on which route_localnet is in force now.
  void set_route_localnet(const std::set<std::uint32_t>& devices);

  void begin_link_refresh() noexcept { ++generation_; }
  /// Devices that no take_in() has named since.
  [[nodiscard]] std::vector<std::uint32_t> unnamed_devices() const;
  void begin_address_refresh();
  /// Puts those that a dump has named into its order; tells those that were not named.
  [[nodiscard]] std::vector<netlink::address> end_address_refresh(mirror_changes& changes);

  /// What a dump cannot tell, from before the dump that this was built from.
  void keep_from(const device_store& before);
  void forget_devices() noexcept { devices_.clear(); }
  void forget_addresses(ip_family family);
  void forget_netconf(ip_family family) { netconf_[static_cast<std::size_t>(family)].clear(); }

 private:
  void tell_peer(const netlink::link& end);
  void sort_as_dumped(mirrored_device& on, ip_family family, mirror_changes& changes);

  std::map<std::uint32_t, mirrored_device> devices_;
  std::map<std::int32_t, device_settings> netconf_[2];
  std::uint32_t generation_ = 0;
  std::uint32_t registrations_ = 0;
  bool refreshing_addresses_ = false;
  /// Seen since begin_address_refresh(): the place in the dump, 0 = only announced.
  std::unordered_map<neighbour_key, std::size_t, neighbour_key_hash> named_addresses_;
  std::size_t dumped_addresses_ = 0;
};

}  // namespace cowire::detail

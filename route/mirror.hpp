// SPDX-License-Identifier: Apache-2.0
/// The kernel's routing state as plain data: links, addresses, rules, routes, nexthop objects,
/// neighbours.
///
/// Fed with netlink messages in the order in which the kernel sent them (dump objects and
/// notifications alike), it keeps every list in the kernel's own order, because order decides:
/// which of two equal routes wins, which address becomes the source. What the kernel changes
/// without a message (routes that vanish with their link, nexthop objects that vanish with a
/// carrier, ...) is derived here from the message that does arrive. What no message can tell is
/// marked, so that the resolver can divert instead of guessing.
///
/// A mirror decides nothing: resolve.hpp does. It is a value: copy it, build a second one from a
/// new dump beside it (a shadow) and let exchange_with() take it over, compare two with
/// mirror_comparison.hpp.
///
/// One thread at a time. Allocates. Never blocks, does no I/O.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/netlink/message.hpp>
#include <cowire/route/detail/device_store.hpp>
#include <cowire/route/detail/route_store.hpp>
#include <cowire/route/mirror_changes.hpp>
#include <cowire/route/mirrored_device.hpp>
#include <cowire/route/path_exception.hpp>
#include <cowire/route/route_table.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace cowire {

/// net.ipv4.fib_multipath_hash_policy and _fields, or their IPv6 twins.
struct multipath_settings {
  std::uint8_t policy = 0;
  std::uint32_t fields = 0x07;  ///< What policy 3 looks at.
  friend bool operator==(const multipath_settings&, const multipath_settings&) = default;
};

/// Sysctls and other facts that netlink does not announce; the owner of the mirror reads and feeds
/// them.
struct mirror_settings {
  std::uint8_t ipv4_default_ttl = 64;  ///< net.ipv4.ip_default_ttl
  std::uint8_t ipv6_hop_limit = 64;    ///< net.ipv6.conf.default.hop_limit
  std::map<std::uint32_t, std::uint8_t>
      device_hop_limits;  ///< net.ipv6.conf.DEV.hop_limit by ifindex
  /// net.ipv6.conf.DEV.mtu by ifindex, where it is less than the device's: routers advertise it.
  std::map<std::uint32_t, std::uint32_t> device_mtus_v6;
  multipath_settings multipath_v4, multipath_v6;
  std::uint32_t multipath_hash_seed =
      0;  ///< net.ipv4.fib_multipath_hash_seed; 0 = nobody can know it
  bool multipath_use_neighbours = false;  ///< net.ipv4.fib_multipath_use_neigh
  /// net.ipv4.conf.{all,DEV}.route_localnet, by ifindex: devices on which it is in force.
  std::set<std::uint32_t> route_localnet;
  /// net.ipv6.conf.DEV.use_tempaddr is 2 or more, by ifindex; of devices with temporary addresses.
  std::map<std::uint32_t, bool> prefers_temporary;
  /// IPv6 address labels are the kernel's default ones, use_oif_addrs_only is 0 everywhere.
  bool default_source_policy = true;
  /// net.ipv4.ip_no_pmtu_disc is not 0, or was not: sockets keep what they were made with.
  bool no_path_mtu_discovery = false;
  std::uint32_t kernel_version = 6018;  ///< major * 1000 + minor: a few choices differ by version
  friend bool operator==(const mirror_settings&, const mirror_settings&) = default;
};

class mirror {
 public:
  using device = mirrored_device;

  struct nexthop_entry {
    netlink::nexthop_object object;
    /// Resilient groups: the member of each bucket, 0 = not told yet.
    std::vector<std::uint32_t> buckets;
    std::uint32_t generation = 0;
  };

  /// Takes one message in and adds to `changes` what it changed, directly or silently. A message
  /// that says nothing new adds nothing. Removal of something unknown is ignored: a silent change
  /// was derived before it was announced. Objects of a dump come in the kernel's order;
  /// notifications are placed by the kernel's rules, and tell of things that a dump hides.
  void apply(const netlink::message& message, mirror_changes& changes, message_origin origin);

  /// Mark and sweep of one kind: everything of `kind` that no apply() or confirm() between the two
  /// calls named is removed. Calls nest per kind, not within one kind; another begin_refresh()
  /// begins anew. Sweeping routes takes as long as there are any to remove, plus some nanoseconds
  /// for every hundred.
  void begin_refresh(object_kind kind);
  /// Whether apply() would change nothing, as it is known already: then it is marked. May be false
  /// for what is known, too.
  [[nodiscard]] bool confirm(const netlink::message& message);
  void end_refresh(object_kind kind, mirror_changes& changes);

  /// Takes over a mirror that was built from a complete new dump, and gives it the old contents.
  /// What a dump cannot tell (device order, learned path MTUs, settings, whether rules were ever
  /// configured) is kept. Takes no longer for a large table; what differs is not told
  /// (mirror_comparison does).
  void exchange_with(mirror& shadow);

  /// The dump of this kind begins again: what it has told so far is void. Only for a mirror that
  /// was told nothing but this dump and those before it in the monitor's order. Unset = both
  /// families.
  void forget(object_kind kind, std::optional<ip_family> family);
  /// Frees up to `count` routes or neighbours of a mirror that nobody will ask any more; true while
  /// there are some left. Destroying a large one at once takes long.
  [[nodiscard]] bool dismantle(std::size_t count) noexcept;

  void set_settings(const mirror_settings& settings, mirror_changes& changes);
  /// A path MTU smaller than the route's for one destination, until `expires`. 0 forgets it.
  void set_path_mtu(const ip_address& destination, std::uint32_t mtu,
                    std::chrono::steady_clock::time_point expires, mirror_changes& changes);
  /// What the kernel knows about one destination beyond its routes; unset forgets it.
  void set_path_exception(const ip_address& destination, std::optional<path_exception> known,
                          mirror_changes& changes);
  /// Bonds in balance-xor or 802.3ad of which something changed that the order of their slaves or
  /// the active aggregator depends on. Until settle_bond() they are left to the kernel.
  [[nodiscard]] std::vector<std::uint32_t> unsettled_bonds() const;
  /// Ignored where it does not name the slaves that the mirror has: then a message is under way.
  void settle_bond(std::uint32_t index, const bond_reading& read, mirror_changes& changes);
  /// Whether the order of devices decides among addresses of this family as sources and is not
  /// known: of those that a dump told of. Until set_device_order() ties are left to the kernel.
  [[nodiscard]] bool has_hidden_order(ip_family family) const noexcept {
    return devices_.has_hidden_order(family);
  }
  /// Devices (ifindex) in the kernel's order, as far as anybody tells of them: those with addresses
  /// of the family, and perhaps others. The order of two never changes while both exist.
  void set_device_order(ip_family family, std::span<const std::uint32_t> order,
                        mirror_changes& changes);
  /// What the kernel's own decisions tell about rules_configured(), where messages do not. Void
  /// with a message that tells it, and with the next dump. Unset: forget it.
  void set_rules_configured(ip_family family, std::optional<bool> known, mirror_changes& changes);
  /// The devices that have a queueing discipline other than noqueue. Only VRFs and what may be a
  /// bond or above one matter here.
  void set_queues(std::set<std::uint32_t> devices, mirror_changes& changes);
  /// Forgets what expired before `now`: path exceptions and routes with a lifetime.
  void expire(std::chrono::steady_clock::time_point now, mirror_changes& changes);

  [[nodiscard]] const mirror_settings& settings() const noexcept { return settings_; }
  [[nodiscard]] bool has_queue(std::uint32_t index) const { return queues_.contains(index); }
  [[nodiscard]] const std::map<std::uint32_t, device>& devices() const noexcept {
    return devices_.all();
  }
  [[nodiscard]] const device* find_device(std::uint32_t index) const noexcept {
    return devices_.find(index);
  }
  [[nodiscard]] const device* find_device(std::string_view name) const noexcept {
    return devices_.find(name);
  }
  /// In evaluation order.
  [[nodiscard]] const std::vector<netlink::rule>& rules(ip_family family) const noexcept {
    return rules_[static_cast<std::size_t>(family)].list;
  }
  /// Whether rules were configured in this namespace beyond the initial ones, ever: until then the
  /// kernel does not consult them. Unset = not known until set_rules_configured().
  [[nodiscard]] std::optional<bool> rules_configured(ip_family family) const noexcept;
  /// One of the initial rules is gone from the list, and the kernel may act upon it nevertheless.
  [[nodiscard]] bool initial_rules_may_count(ip_family family) const noexcept;
  [[nodiscard]] const std::map<std::uint32_t, route_table>& tables(
      ip_family family) const noexcept {
    return routes_.tables(family);
  }
  [[nodiscard]] const route_table* find_table(ip_family family, std::uint32_t id) const noexcept {
    return routes_.find_table(family, id);
  }
  [[nodiscard]] const netlink::nexthop_object* find_nexthop(std::uint32_t id) const noexcept;
  /// The members (by id) that serve the buckets of a resilient group. One that the group does not
  /// have (any more), or 0: only the kernel knows until the next re-dump.
  [[nodiscard]] std::span<const std::uint32_t> buckets_of(std::uint32_t group) const noexcept;
  /// Routes over this object differ in what the kernel caches per object, so its answers depend on
  /// history.
  [[nodiscard]] bool nexthop_is_ambiguous(ip_family family, std::uint32_t id) const;
  [[nodiscard]] const netlink::neighbour* find_neighbour(
      std::uint32_t index, const ip_address& destination) const noexcept;
  /// Calls f(const netlink::neighbour&) for each.
  template <class F>
  void for_each_neighbour(F&& f) const {
    for (const auto& [key, entry] : neighbours_) f(entry.neighbour);
  }
  [[nodiscard]] std::size_t neighbour_count() const noexcept { return neighbours_.size(); }
  [[nodiscard]] bool forwarding(ip_family family) const noexcept {
    return devices_.forwarding(family);
  }
  [[nodiscard]] bool ignores_linkdown(ip_family family, std::uint32_t index) const noexcept {
    return devices_.ignores_linkdown(family, index);
  }
  /// Whether this host routes multicast that leaves by this device: then who routes it gets a copy.
  [[nodiscard]] bool routes_multicast(ip_family family, std::uint32_t index) const noexcept {
    return devices_.routes_multicast(family, index);
  }
  /// Whether anybody on this host is a member of a group on this device, whatever the sources it
  /// wants to hear.
  [[nodiscard]] bool has_member(std::uint32_t index, const ip_address& group) const noexcept {
    const auto found = members_.find(group);
    return found != members_.end() && found->second.contains(index);
  }
  /// On any device.
  [[nodiscard]] bool has_member(const ip_address& group) const noexcept {
    return members_.contains(group);
  }
  /// Groups with members on this host.
  [[nodiscard]] std::vector<ip_address> groups(ip_family family) const;
  /// Whether memberships are announced: has_member() can be relied upon.
  [[nodiscard]] bool follows_members() const noexcept;
  /// Whether a dump shows every next hop over this device as DEAD, those that are and those that
  /// only have no carrier: then nobody is told which it is.
  [[nodiscard]] bool shows_all_dead(ip_family family, std::uint32_t index) const noexcept {
    return devices_.shows_all_dead(family, index);
  }
  /// 0 = none learned.
  [[nodiscard]] std::uint32_t path_mtu(const ip_address& destination) const noexcept;
  /// Null: there is none. Until the next change.
  [[nodiscard]] const path_exception* find_path_exception(
      const ip_address& destination) const noexcept;
  [[nodiscard]] std::vector<ip_address> path_exception_destinations() const;
  [[nodiscard]] std::size_t path_exception_count() const noexcept {
    return path_exceptions_.size();
  }
  /// Whether an address is this host's own: configured on any device, or a local route of table
  /// 255.
  [[nodiscard]] bool is_local_address(const ip_address& address) const noexcept {
    return routes_.is_local_address(address, devices_);
  }
  [[nodiscard]] std::size_t route_count() const noexcept { return routes_.count(); }

 private:
  using key_hash = detail::neighbour_key_hash;
  struct neighbour_entry {
    netlink::neighbour neighbour;
    std::uint32_t generation = 0;
  };
  struct rule_list {
    std::vector<netlink::rule> list;
    std::vector<std::uint32_t> generations;
    bool added_live = false, removed_live = false;  ///< While we watched.
    std::optional<bool> found_configured;           ///< As set_rules_configured() told.
  };
  void apply_one(const netlink::link& message, mirror_changes& changes);
  void apply_one(const netlink::address& message, mirror_changes& changes);
  void apply_one(const netlink::route& message, mirror_changes& changes);
  void apply_one(const netlink::rule& message, mirror_changes& changes);
  void apply_one(const netlink::neighbour& message, mirror_changes& changes);
  void apply_one(const netlink::nexthop_object& message, mirror_changes& changes);
  void apply_one(const netlink::nexthop_bucket& message, mirror_changes& changes);
  void apply_one(const netlink::netconf& message, mirror_changes& changes);
  void apply_one(const netlink::membership& message, mirror_changes& changes);

  void link_state_changed(device& now, const netlink::link& before, mirror_changes& changes);
  void mtu_changed(const device& now, std::uint32_t before, mirror_changes& changes);
  [[nodiscard]] bool named_by_rule(std::string_view name) const noexcept;
  void remove_device(std::uint32_t index, mirror_changes& changes);
  /// Those memberships that are gone, by device and generation.
  template <class Gone>
  void remove_members(Gone&& gone, mirror_changes& changes);
  [[nodiscard]] bool negotiates(std::uint32_t index) const;
  void unsettle_bond(std::uint32_t index);
  void remove_nexthop(std::uint32_t id, mirror_changes& changes);
  void remove_nexthops_on(std::uint32_t index, mirror_changes& changes);
  [[nodiscard]] static bool same_link(const netlink::link& a, const netlink::link& b);

  mirror_settings settings_;
  std::set<std::uint32_t> queues_;  ///< As set_queues() was told.
  detail::device_store devices_;
  std::set<std::uint32_t> unsettled_;  ///< Devices that may be unsettled bonds.
  detail::route_store routes_;
  rule_list rules_[2];
  std::unordered_map<std::uint32_t, nexthop_entry> nexthops_;
  std::unordered_map<neighbour_key, neighbour_entry, key_hash> neighbours_;
  std::unordered_map<ip_address, path_exception> path_exceptions_;
  /// By group, the devices on which it has members, with the refresh that named each.
  std::unordered_map<ip_address, std::map<std::uint32_t, std::uint32_t>> members_;
  std::uint32_t generations_[netlink::object_kind_count] = {};
  message_origin origin_ = message_origin::notification;  ///< Of the message being applied.

  friend class mirror_comparison;
};

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/cover.hpp>
#include <cowire/route/detail/device_store.hpp>

#include <linux/if_addr.h>
#include <linux/netconf.h>

#include <algorithm>

namespace cowire {

bool is_in_detection(const netlink::address& address) noexcept {
  return address.local.is_v6() && (address.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) != 0;
}

namespace detail {
namespace {

/// RFC 4007 order of scopes is hidden in RT_SCOPE_*: a larger number is a narrower scope.
bool goes_before_v6(const netlink::address& fresh, const netlink::address& listed) noexcept {
  return fresh.scope <= listed.scope;
}

}  // namespace

// ----------------------------------------------------------------------------------------------
// look-ups

const mirrored_device* device_store::find(std::uint32_t index) const noexcept {
  const auto found = devices_.find(index);
  return found == devices_.end() ? nullptr : &found->second;
}

mirrored_device* device_store::find(std::uint32_t index) noexcept {
  const auto found = devices_.find(index);
  return found == devices_.end() ? nullptr : &found->second;
}

const mirrored_device* device_store::find(std::string_view name) const noexcept {
  for (const auto& [index, known_device] : devices_)
    if (known_device.link.name == name) return &known_device;
  return nullptr;
}

bool device_store::forwarding(ip_family family) const noexcept {
  const auto all = netconf_[number_of(family)].find(NETCONFA_IFINDEX_ALL);
  return all != netconf_[number_of(family)].end() && all->second.forwarding.value_or(false);
}

bool device_store::ignores_linkdown(ip_family family, std::uint32_t index) const noexcept {
  const auto& settings = netconf_[number_of(family)];
  const auto ignores = [&](std::int32_t key) {
    const auto found = settings.find(key);
    return found != settings.end() && found->second.ignore_linkdown.value_or(false);
  };
  // IPv4 looks at both; IPv6 copies "all" to every device when it is written.
  return ignores(static_cast<std::int32_t>(index)) ||
         (family == ip_family::v4 && ignores(NETCONFA_IFINDEX_ALL));
}

bool device_store::routes_multicast(ip_family family, std::uint32_t index) const noexcept {
  const auto& settings = netconf_[number_of(family)];
  const auto is_on = [&](std::int32_t of) {
    const auto known = settings.find(of);
    return known != settings.end() && known->second.multicast_forwarding.value_or(false);
  };
  // IN_DEV_MFORWARD in include/linux/inetdevice.h; mroute6_is_socket() in net/ipv6/ip6mr.c.
  return is_on(NETCONFA_IFINDEX_ALL) &&
         (family == ip_family::v6 || is_on(static_cast<std::int32_t>(index)));
}

bool device_store::shows_all_dead(ip_family family, std::uint32_t index) const noexcept {
  const mirrored_device* on = find(index);
  return on != nullptr && on->up() && !has_carrier(on->link) && ignores_linkdown(family, index);
}

bool device_store::has_address(const ip_address& address) const noexcept {
  for (const auto& [index, known_device] : devices_)
    for (const netlink::address& own : known_device.addresses(address.family()))
      if (own.local == address && !is_in_detection(own)) return true;
  return false;
}

// ----------------------------------------------------------------------------------------------
// devices

std::pair<mirrored_device*, bool> device_store::take_in(const netlink::link& message,
                                                        message_origin origin) {
  const auto [found, fresh] = devices_.try_emplace(message.index);
  mirrored_device& now = found->second;
  now.generation = generation_;
  tell_peer(message);
  if (fresh) {
    now.link = message;
    if (origin == message_origin::notification) now.registered = ++registrations_;
  }
  return {&now, fresh};
}

/// The first end of a new pair is announced before it has a peer, and not again when it gets one
/// (veth_newlink() in drivers/net/veth.c); the other end's announcement names the first.
void device_store::tell_peer(const netlink::link& end) {
  if (end.kind != "veth" || end.lower == 0 || end.lower_in_other_namespace) return;
  const auto peer = devices_.find(end.lower);
  if (peer == devices_.end() || peer->second.link.kind != "veth") return;
  if (peer->second.link.lower == 0) peer->second.link.lower = end.index;
}

void device_store::erase(std::uint32_t index) {
  devices_.erase(index);
  for (auto& settings : netconf_) settings.erase(static_cast<std::int32_t>(index));
}

std::vector<std::uint32_t> device_store::unnamed_devices() const {
  std::vector<std::uint32_t> gone;
  for (const auto& [index, known_device] : devices_)
    if (known_device.generation != generation_) gone.push_back(index);
  return gone;
}

// ----------------------------------------------------------------------------------------------
// addresses

void device_store::source_caches_are_void(message_origin origin, mirror_changes& changes) {
  if (origin == message_origin::dump) return;
  for (auto& [index, known_device] : devices_)
    if (std::exchange(known_device.localnet_changed, false)) changes.decisions_v4 = true;
}

void device_store::insert_address(mirrored_device& on, const netlink::address& message,
                                  message_origin origin) {
  auto& list = message.local.is_v4() ? on.v4 : on.v6;
  auto at = list.end();
  if (origin == message_origin::dump) {
    // A dump is in list order.
  } else if (message.local.is_v6()) {
    at = std::ranges::find_if(list,
                              [&](const auto& listed) { return goes_before_v6(message, listed); });
  } else if ((message.flags & IFA_F_SECONDARY) == 0) {
    // After the last primary whose scope number is not smaller.
    at = list.begin();
    for (auto i = list.begin(); i != list.end(); ++i)
      if ((i->flags & IFA_F_SECONDARY) == 0 && i->scope >= message.scope) at = i + 1;
  }
  list.insert(at, message);
}

void device_store::begin_address_refresh() {
  refreshing_addresses_ = true;
  named_addresses_.clear();
  dumped_addresses_ = 0;
}

void device_store::name_address(const netlink::address& message, message_origin origin) {
  if (!refreshing_addresses_) return;
  std::size_t& place = named_addresses_[{message.index, message.local}];
  if (origin == message_origin::dump && place == 0) place = ++dumped_addresses_;
}

std::vector<netlink::address> device_store::end_address_refresh(mirror_changes& changes) {
  std::vector<netlink::address> gone;
  for (const auto& [index, known_device] : devices_)
    for (const auto* list : {&known_device.v4, &known_device.v6})
      for (const netlink::address& listed : *list)
        if (!named_addresses_.contains({listed.index, listed.local})) gone.push_back(listed);
  for (auto& [index, known_device] : devices_)
    for (const ip_family family : ip_families) sort_as_dumped(known_device, family, changes);
  named_addresses_.clear();
  refreshing_addresses_ = false;
  return gone;
}

/// The addresses that a dump has named change places until they are in its order.
void device_store::sort_as_dumped(mirrored_device& on, ip_family family, mirror_changes& changes) {
  auto& list = family == ip_family::v4 ? on.v4 : on.v6;
  std::vector<std::size_t> places;
  std::vector<std::pair<std::size_t, netlink::address>> named;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto at = named_addresses_.find({list[i].index, list[i].local});
    if (at == named_addresses_.end() || at->second == 0) continue;
    places.push_back(i);
    named.emplace_back(at->second, list[i]);
  }
  const auto position = [](const auto& one) { return one.first; };
  if (std::ranges::is_sorted(named, {}, position)) return;
  std::ranges::sort(named, {}, position);
  for (std::size_t i = 0; i < places.size(); ++i) list[places[i]] = std::move(named[i].second);
  (family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6) = true;
}

// ----------------------------------------------------------------------------------------------
// settings

void device_store::apply(const netlink::netconf& message, message_origin origin,
                         mirror_changes& changes) {
  if (message.action == netlink::action::remove) {
    auto& settings = netconf_[number_of(message.family)];
    const auto known = settings.find(message.index);
    if (known == settings.end()) return;
    if (known->second.ignore_linkdown.value_or(false) ||
        known->second.multicast_forwarding.value_or(false))
      (message.family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6) = true;
    settings.erase(known);
    return;
  }
  // Devices without a setting of their own follow the default without a word
  // (devinet_copy_dflt_conf() in net/ipv4/devinet.c), and which those are nobody tells.
  changes.netconf_advised |= origin == message_origin::notification &&
                             message.family == ip_family::v4 &&
                             message.index == NETCONFA_IFINDEX_DEFAULT;
  device_settings& settings = netconf_[number_of(message.family)][message.index];
  bool& decisions = message.family == ip_family::v4 ? changes.decisions_v4 : changes.decisions_v6;
  if (message.forwarding && settings.forwarding != message.forwarding) {
    settings.forwarding = message.forwarding;
    decisions |= message.index == NETCONFA_IFINDEX_ALL;
  }
  if (message.multicast_forwarding &&
      settings.multicast_forwarding.value_or(false) != *message.multicast_forwarding)
    decisions = true;
  if (message.multicast_forwarding) settings.multicast_forwarding = message.multicast_forwarding;
  if (message.ignore_routes_with_linkdown &&
      settings.ignore_linkdown != message.ignore_routes_with_linkdown) {
    const bool first = !settings.ignore_linkdown.has_value();
    settings.ignore_linkdown = message.ignore_routes_with_linkdown;
    decisions = true;
    // Unknown counts as off: a device that gets a new name is told of anew, after a removal.
    if (first && (origin == message_origin::dump || !*message.ignore_routes_with_linkdown)) return;
    // Shares are recomputed at the next carrier event, not now. IPv6 tells of each device.
    const bool all = message.family == ip_family::v4 && message.index < 0;
    for (auto& [index, known_device] : devices_)
      if (!has_carrier(known_device.link) &&
          (all || static_cast<std::uint32_t>(message.index) == index))
        known_device.stale_shares[number_of(message.family)] = true;
  }
}

bool device_store::has_hidden_order(ip_family family) const noexcept {
  // Those of one dump came before all that were announced, which are told apart.
  std::map<std::uint32_t, std::pair<std::size_t, bool>> groups;  // By `registered`.
  for (const auto& [index, known_device] : devices_) {
    if (known_device.addresses(family).empty()) continue;
    const auto [registered, place] = known_device.position(family);
    auto& [count, any_hidden] = groups[registered];
    ++count;
    any_hidden |= place == 0;
  }
  return std::ranges::any_of(
      groups, [](const auto& group) { return group.second.first > 1 && group.second.second; });
}

bool device_store::set_order(ip_family family, std::span<const std::uint32_t> order) {
  std::unordered_map<std::uint32_t, std::uint32_t> places;
  for (const std::uint32_t index : order)
    places.try_emplace(index, static_cast<std::uint32_t>(places.size() + 1));
  bool changed = false;
  for (auto& [index, known_device] : devices_) {
    const auto at = places.find(index);
    const std::uint32_t now = at == places.end() ? 0 : at->second;
    changed |= std::exchange(known_device.place[number_of(family)], now) != now;
  }
  return changed;
}

void device_store::set_route_localnet(const std::set<std::uint32_t>& devices) {
  for (auto& [index, known_device] : devices_) {
    const bool localnet = devices.contains(index);
    const auto before = std::exchange(known_device.localnet, localnet);
    known_device.localnet_changed |= before && *before != localnet;
  }
}

// ----------------------------------------------------------------------------------------------
// re-sync

void device_store::keep_from(const device_store& before) {
  // Those that nobody announced came after all that were known, in whatever order.
  registrations_ = before.registrations_ + 1;
  for (auto& [index, fresh] : devices_) {
    const mirrored_device* known = before.find(index);
    if (known == nullptr) {
      if (!before.devices_.empty()) fresh.registered = registrations_;
      continue;
    }
    fresh.registered = known->registered;
    fresh.stale_shares = known->stale_shares;
    fresh.renumbered = known->renumbered;
    fresh.localnet_changed = known->localnet_changed;
    fresh.localnet = known->localnet;
  }
}

void device_store::forget_addresses(ip_family family) {
  for (auto& [index, known_device] : devices_)
    (family == ip_family::v4 ? known_device.v4 : known_device.v6).clear();
}

}  // namespace detail
}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// A network device as the mirror has it.
///
/// A plain value; any thread.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/netlink/message.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace cowire {

/// Duplicate address detection is under way, or has failed: a dump shows the address, nothing
/// announces it, and nothing can be sent from it.
[[nodiscard]] bool is_in_detection(const netlink::address& address) noexcept;

/// What must be read of a bond, as messages do not tell it, or not in time.
struct bond_reading {
  struct slave {
    std::uint32_t index = 0;          ///< ifindex.
    std::uint16_t aggregator_id = 0;  ///< 802.3ad.
  };
  std::vector<slave> slaves;        ///< In the order of enslaving.
  std::uint16_t aggregator_id = 0;  ///< The active one; 802.3ad.
};

struct mirrored_device {
  netlink::link link;
  std::vector<netlink::address> v4, v6;  ///< In the kernel's list order.
  /// Position in the kernel's device list, where known: devices of a dump have 0 (their order is
  /// hidden), later ones count up.
  std::uint32_t registered = 0;
  /// By family: position among those of the same `registered`, from 1; 0 = to be read
  /// (mirror::has_hidden_order()).
  std::array<std::uint32_t, 2> place{};
  /// By family: multipath shares were computed under another ignore_routes_with_linkdown; until
  /// the next carrier event.
  std::array<bool, 2> stale_shares{};
  /// An IPv4 address left while we watched: cached per-hop sources may be stale.
  bool renumbered = false;
  /// route_localnet changed while we watched: next hops may have cached a source from before,
  /// until any IPv4 address comes or goes or any device comes up.
  bool localnet_changed = false;
  /// It was given to a VRF or taken from one while up, and has still to be set down and up for it.
  bool changes_vrf = false;
  std::optional<bool> localnet;  ///< As set_settings() told last.
  /// Of a bond that chooses among its slaves: these (ifindex) in the order of enslaving, which no
  /// message tells. Unset: to be read (mirror::unsettled_bonds()).
  std::optional<std::vector<std::uint32_t>> slaves;
  std::uint32_t generation = 0;

  [[nodiscard]] bool up() const noexcept { return (link.flags & 1u) != 0; }  // IFF_UP
  [[nodiscard]] const std::vector<netlink::address>& addresses(ip_family family) const noexcept {
    return family == ip_family::v4 ? v4 : v6;
  }
  /// Where the kernel meets it when it goes through its devices; to be compared by those of which
  /// is_order_known().
  [[nodiscard]] std::pair<std::uint32_t, std::uint32_t> position(ip_family family) const noexcept {
    return {registered, place[static_cast<std::size_t>(family)]};
  }
  /// Whether it is known which of two is the first.
  [[nodiscard]] bool is_order_known(const mirrored_device& other, ip_family family) const noexcept {
    const auto own = position(family), others = other.position(family);
    return own.first != others.first || (own.second != 0 && others.second != 0);
  }
  [[nodiscard]] bool has_stale_shares(ip_family family) const noexcept {
    return stale_shares[static_cast<std::size_t>(family)];
  }
};

}  // namespace cowire

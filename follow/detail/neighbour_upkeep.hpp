// SPDX-License-Identifier: Apache-2.0
/// Keeps the neighbours fresh that the fast path sends to: the kernel hears nothing of that
/// traffic, so their entries would grow STALE and their addresses old without anybody asking.
///
/// A poke (an entry's state set to what a used one gets) has the kernel probe by itself, at its own
/// pace. Ring thread. Network namespace: the creating thread's.
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/netlink/message.hpp>
#include <cowire/route/mirror.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace cowire::detail {

class neighbour_upkeep {
 public:
  /// Whether datagrams leave through an AF_XDP socket of an interface these days.
  using interface_use = std::function<bool(std::uint32_t interface_index)>;

  /// Pokes a call at most: an idle subnet full of STALE entries must not become an ARP storm.
  static constexpr std::size_t pokes_max = 128;

  /// `state` outlives it. Throws std::system_error.
  explicit neighbour_upkeep(const mirror& state);

  /// Pokes STALE neighbours behind interfaces in use, in turn; how many.
  std::uint64_t poke(const interface_use& in_use);
  /// Has the kernel resolve an address that it does not know, as a first datagram would; nothing to
  /// do where it is at it or knows it. Needs CAP_NET_ADMIN; without it the kernel refuses.
  void resolve(const neighbour_key& wanted);

 private:
  [[nodiscard]] std::vector<const netlink::neighbour*> stale(const interface_use& in_use) const;
  [[nodiscard]] bool send_poke(const netlink::neighbour& to) const;
  void drop_answers() const;

  const mirror& state_;
  const unique_fd fd_;
  std::size_t turn_ = 0;  ///< Where among the STALE neighbours the next pokes begin.
};

}  // namespace cowire::detail

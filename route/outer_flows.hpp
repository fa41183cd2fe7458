// SPDX-License-Identifier: Apache-2.0
/// Numbers for the outer headers of tunnels, as connection tracking tells them apart: a hop names
/// by one what else must have an entry besides the flow itself.
///
/// The control thread only.
#pragma once

#include <cowire/base/address.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace cowire {

/// An outer header: what it says of addresses and protocol. It has no ports, and keys of GRE count
/// for nobody but PPTP (gre_pkt_to_tuple() in net/netfilter/nf_conntrack_proto_gre.c).
struct outer_flow {
  ip_address source, destination;
  std::uint8_t protocol = 0;
  friend bool operator==(const outer_flow&, const outer_flow&) noexcept = default;
};

class outer_flows {
 public:
  using number = std::uint8_t;
  /// Of a hop that needs no entry but the flow's own.
  static constexpr number none = 0;

  /// Of all outer headers of a frame. The same ones always get the same number, and no other ever
  /// does. Unset: 255 are in use.
  [[nodiscard]] std::optional<number> number_of(std::span<const outer_flow> headers) {
    for (std::size_t i = 0; i < all_.size(); ++i)
      if (std::ranges::equal(all_[i], headers)) return static_cast<number>(i + 1);
    if (all_.size() == 255) return std::nullopt;
    all_.emplace_back(headers.begin(), headers.end());
    return static_cast<number>(all_.size());
  }
  /// Of a number that number_of() has given.
  [[nodiscard]] const std::vector<outer_flow>& of(number which) const { return all_[which - 1]; }

 private:
  std::vector<std::vector<outer_flow>> all_;
};

}  // namespace cowire

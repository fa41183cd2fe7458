// SPDX-License-Identifier: Apache-2.0
/// The kernel's own UDP socket as an oracle of multicast: datagrams to groups really leave, and are
/// seen on the devices that they leave by and by a socket of this host that would hear a copy.
///
/// Only groups that are sent to at their own MAC address: through a gateway a datagram would make a
/// neighbour entry, and so another world of this one.
#pragma once

#include "inventor.hpp"

#include <cowire/base/unique_fd.hpp>
#include <cowire/route/resolve.hpp>

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace cowire::testing {

/// Of the namespace of the thread that makes it.
class group_oracle {
 public:
  struct answer {
    int error = 0;  ///< errno of sendto().
    /// What left, by device (ifindex).
    struct frame {
      ip_address source;
      std::uint8_t hop_limit = 0;
    };
    std::map<std::uint32_t, frame> left;
    /// Where a socket of this host heard it: a copy where it left, and perhaps the frame itself at
    /// the other end of the device, which may be in this namespace.
    std::set<std::uint32_t> heard;
  };

  group_oracle();

  /// Sends one datagram for each question that such a socket can be had for.
  [[nodiscard]] std::vector<std::optional<answer>> ask(const std::vector<flow>& questions);

 private:
  void collect(std::vector<std::optional<answer>>& answers);

  std::array<unique_fd, 2> ears_;  ///< By ip_family.
  unique_fd packets_;
};

/// Whether the answer to such a question is one to compare: that of a group, at its own address.
[[nodiscard]] bool is_comparable(const resolution& ours);

/// Ours, resolved as route_question::send, beside what the socket did; "" = they agree.
[[nodiscard]] std::string group_disagreement(const mirror& state, const flow& question,
                                             const resolution& ours,
                                             const group_oracle::answer& kernel);

}  // namespace cowire::testing

// SPDX-License-Identifier: Apache-2.0
/// The kernel's own UDP socket as an oracle of frames: datagrams that the fast path would send
/// really leave, and are seen where they arrive, beside what a published hop makes of them.
///
/// Only what has a fast hop: elsewhere a datagram might ask for a neighbour, and so make another
/// world of this one. That they arrive tells the slave of a bond, and a tunnel's device, as well.
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/forwarding_table.hpp>
#include <cowire/route/mirror.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace cowire::testing {

struct frame_question {
  flow of;
  hop via;  ///< Its published one.
};

/// Of the namespace of the thread that makes it.
class frame_oracle {
 public:
  /// A frame that has the datagram, with its VLAN tag.
  struct sighting {
    std::uint32_t device = 0;
    bool leaving = false;     ///< Else it arrived.
    bool unfinished = false;  ///< The device has to complete the UDP checksum.
    std::string frame;
  };
  struct answer {
    int error = 0;  ///< errno of sendto().
    std::vector<sighting> seen;
  };

  frame_oracle();

  /// Sends one datagram for each question that such a socket can be had for.
  [[nodiscard]] std::vector<std::optional<answer>> ask(const mirror& state,
                                                       std::span<const frame_question> questions);

 private:
  void collect(std::vector<std::optional<answer>>& answers, const std::vector<bool>& arrive);

  unique_fd packets_;
};

/// What the fast path sends for the datagram of that number by this hop.
[[nodiscard]] std::string frame_of(const hop& via, const flow& of, std::uint32_t number);

/// The hop's device and bytes, beside what the socket did; "" = they agree.
[[nodiscard]] std::string frame_disagreement(const mirror& state, const frame_question& asked,
                                             std::uint32_t number,
                                             const frame_oracle::answer& kernel);

}  // namespace cowire::testing

// SPDX-License-Identifier: Apache-2.0
/// Follows IPsec policies by what the kernel announces of each, so that one more of ten thousand
/// need not be read with all others.
///
/// Without I/O: datagrams of a socket in xfrm_policy_group go in. The kernel sends them in the
/// order in which policies change (net->xfrm.xfrm_cfg_mutex, which a request holds until it is
/// announced), and names each by its index: what is told of one that is known already, or no more,
/// changes nothing, so that a dump may be older or newer than what is heard next. Policies that
/// expire and those of sockets are not announced here: compare numbers (xfrm_policy_counts).
///
/// One thread at a time. Source: net/xfrm/xfrm_user.c, xfrm_send_policy_notify().
#pragma once

#include <cowire/netlink/xfrm_codec.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace cowire::netlink {

class xfrm_follower {
 public:
  void on_datagram(std::span<const std::byte> datagram);
  /// An announcement was lost.
  void on_loss();

  /// Applies what was heard, and forgets it. False: `policies` is as it was, and must be read.
  [[nodiscard]] bool follow(xfrm_policies& policies);

  /// Changes that are remembered; with more they are read.
  static constexpr std::size_t changes_max = 4096;

 private:
  std::vector<xfrm_policy_change> changes_;
  bool understood_ = true;
};

/// Puts it where it belongs, instead of one with its index.
void add(xfrm_policies& to, const xfrm_policy& one);

}  // namespace cowire::netlink

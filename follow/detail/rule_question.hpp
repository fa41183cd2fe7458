// SPDX-License-Identifier: Apache-2.0
/// Finds out whether the kernel consults its list of rules, by a question about a route.
///
/// Until a rule was ever added to a namespace the kernel acts as if the initial rules were there,
/// whatever the list says, and searches the tables local and main as one (fib_lookup() in
/// include/net/ip_fib.h, fib6_rule_lookup() in net/ipv6/fib6_rules.c). A dump does not tell. But
/// where the two readings lead to different places, the kernel's answer to one RTM_GETROUTE does;
/// and it stays true until a rule is added, which is announced.
///
/// An answer may come from a kernel that is ahead of the mirror: it counts when it was given twice,
/// by a mirror that had nothing left to read. One thread at a time. Network namespace: the creating
/// thread's.
#pragma once

#include <cowire/netlink/request_socket.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/mirror.hpp>

#include <cstdint>
#include <optional>
#include <vector>

namespace cowire::detail {

class rule_question {
 public:
  /// Throws std::system_error.
  rule_question() = default;

  /// Call from time to time while the mirror is what the kernel has announced. Asks where it does
  /// not know whether rules count, and they matter; tells the mirror when it is certain. Returns
  /// how often the kernel was asked.
  std::uint64_t settle(mirror& state, mirror_changes& changes);
  /// The mirror is doubtful: what was answered once proves nothing.
  void forget() noexcept { said_[0] = said_[1] = std::nullopt; }

 private:
  [[nodiscard]] std::optional<bool> ask(mirror& state, const ip_address& destination);

  netlink::request_socket kernel_;
  std::optional<bool> said_[2];  ///< By family: what the answer before this one meant.
  std::uint64_t asked_ = 0;
};

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// What is different between two rulesets, where that is little: so that only the destinations that
/// it concerns need to be judged anew.
///
/// Pure; any thread.
#pragma once

#include <cowire/netlink/nft_message.hpp>

#include <cstddef>
#include <map>
#include <optional>
#include <vector>

namespace cowire::detail {

/// Pointers are into the two rulesets.
struct ruleset_difference {
  struct changed_rule {
    const netlink::nft::ruleset::chain_rules* chain = nullptr;
    const netlink::nft::rule* rule = nullptr;
  };
  std::vector<changed_rule> gone, come;
  /// Elements that only one of the two has, by set; the set itself is in both.
  std::map<netlink::nft::object_key, std::vector<const netlink::nft::element*>> elements;
  [[nodiscard]] bool empty() const noexcept {
    return gone.empty() && come.empty() && elements.empty();
  }

  /// Rules and elements together; what differs by more is told apart as a whole.
  static constexpr std::size_t size_max = 256;
};

/// Unset: they differ in more than single rules and elements, or in many of them. Rules that stay
/// are in the same order.
[[nodiscard]] std::optional<ruleset_difference> difference_between(
    const netlink::nft::ruleset& before, const netlink::nft::ruleset& now);

}  // namespace cowire::detail

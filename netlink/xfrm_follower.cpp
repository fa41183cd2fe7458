// SPDX-License-Identifier: Apache-2.0
#include <cowire/netlink/xfrm_follower.hpp>

#include <utility>

namespace cowire::netlink {
namespace {

auto find_place(const xfrm_policies& in, std::uint32_t index) {
  return in.partition_point([&](const xfrm_policy& one) { return one.index < index; });
}

bool is_at(const xfrm_policies& in, const xfrm_policies::iterator& at, std::uint32_t index) {
  return at != in.end() && at->index == index;
}

void remove(xfrm_policies& from, std::uint32_t index) {
  const auto at = find_place(from, index);
  if (is_at(from, at, index)) static_cast<void>(from.erase(at));
}

}  // namespace

void add(xfrm_policies& to, const xfrm_policy& one) {
  remove(to, one.index);
  to.insert(find_place(to, one.index), one);
}

void xfrm_follower::on_datagram(std::span<const std::byte> datagram) {
  std::error_code ec;
  while (const auto one = next_envelope(datagram, ec)) {
    // The default is asked for whenever something was heard.
    if (decode_xfrm_default_blocks(*one, ec)) continue;
    const auto heard = decode_xfrm_change(*one, ec);
    understood_ &= heard && !ec && changes_.size() < changes_max;
    if (understood_ && heard->output) changes_.push_back(*heard);
    ec.clear();
  }
  understood_ &= !ec;
}

void xfrm_follower::on_loss() { understood_ = false; }

bool xfrm_follower::follow(xfrm_policies& policies) {
  const auto changes = std::exchange(changes_, {});
  if (!std::exchange(understood_, true)) return false;
  for (const xfrm_policy_change& one : changes) {
    if (one.removed)
      remove(policies, one.policy.index);
    else
      add(policies, one.policy);
  }
  return true;
}

}  // namespace cowire::netlink

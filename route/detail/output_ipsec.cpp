// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/output_ipsec.hpp>
#include <cowire/route/detail/shared_list_difference.hpp>

#include <algorithm>
#include <optional>
#include <string>

namespace cowire::detail {
namespace {

using netlink::xfrm_policy;

/// Whether it may be one for the region, its destinations and ports apart.
bool may_match(const xfrm_policy& policy, const output_flow& region) noexcept {
  return !policy.harmless && policy.if_id == 0 &&
         policy.destination.family() == region.destination.family() &&
         (region.policy_mark.value_or(region.mark) & policy.mark_mask) == policy.mark &&
         (policy.protocol == 0 || policy.protocol == region.ip_protocol) &&
         (!region.source || policy.source.contains(*region.source));
}

/// Ports are those of UDP: of GRE the kernel compares parts of the key.
bool source_port_may_match(const xfrm_policy& policy, const output_flow& region) noexcept {
  if (region.ip_protocol != 17 || !region.source_port) return true;
  return ((*region.source_port ^ policy.source_port) & policy.source_port_mask) == 0;
}

bool destination_port_may_match(const xfrm_policy& policy, const output_flow& region,
                                asked_ports* ports) {
  const std::uint16_t port = policy.destination_port, mask = policy.destination_port_mask;
  if (mask == 0 || region.ip_protocol != 17) return true;
  if (region.destination_port) return ((*region.destination_port ^ port) & mask) == 0;
  if (ports == nullptr || mask != 0xffff) return true;
  if (!ports->range.contains(port)) return false;
  if (port != ports->range.first) ports->divided_at.push_back(port);
  if (port != ports->range.last) ports->divided_at.push_back(static_cast<std::uint16_t>(port + 1));
  return true;
}

output_verdict obstacle_of(const xfrm_policy& policy) {
  output_verdict out;
  out.reason = divert_reason::ipsec;
  out.obstacle = "IPsec policy of index " + std::to_string(policy.index) +
                 (policy.of_a_socket ? " (of a socket)" : "") + " for " +
                 policy.destination.to_string() + ": " + (policy.blocks ? "block" : "transform");
  return out;
}

}  // namespace

void judge_policies(const ipsec_state& state, const output_flow& region, destination_verdicts& into,
                    asked_ports* ports) {
  if (state.policies.empty() || into.untouched().empty()) return;
  // Few of many policies concern a small part.
  const auto& parts = into.untouched().intervals();
  const address_number low = parts.front().first, high = parts.back().last;
  for (const xfrm_policy& policy : state.policies) {
    if (ports != nullptr) ++ports->steps;
    if (!may_match(policy, region) || !source_port_may_match(policy, region)) continue;
    if (number_of(policy.destination.address()) > high ||
        number_of(policy.destination.last()) < low)
      continue;
    const address_set where = into.untouched().intersection(address_set(policy.destination));
    if (!where.empty() && destination_port_may_match(policy, region, ports))
      into.touch(where, obstacle_of(policy));
  }
}

address_set concerned_by(const xfrm_policy& policy, const output_flow& region) {
  if (!may_match(policy, region) || !source_port_may_match(policy, region)) return {};
  return address_set(policy.destination).intersection(address_set(region.destination));
}

std::vector<const xfrm_policy*> differing_policies(const netlink::xfrm_policies& before,
                                                   const netlink::xfrm_policies& now) {
  return differing(before, now,
                   [](const xfrm_policy& a, const xfrm_policy& b) { return a.index < b.index; });
}

}  // namespace cowire::detail

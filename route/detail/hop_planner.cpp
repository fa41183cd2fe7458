// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/hop_planner.hpp>
#include <cowire/route/detail/path_facts.hpp>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace cowire::detail {
namespace {

hop_plan diverted(divert_reason reason, const decision* decided = nullptr) {
  planned_share all;
  all.divert = reason;
  return {{all}, decided};
}

/// Has a hop divert the ports that do not pass.
void close_ports(hop& of, divert_reason reason, const port_filter& passing) {
  if (of.egress == divert_slot) return;
  if (of.gre_checksum_count != 0) {  // There is no room.
    of = divert_hop(reason);
    return;
  }
  of.egress_of_ports = std::exchange(of.egress, divert_slot);
  of.reason = reason;
  of.ports = passing.ranges;
  of.ports_inside = passing.inside;
}

/// Has a tracked hop ask nobody about the ports that pass.
void free_ports(hop& of, const port_filter& passing) {
  if (!of.is_tracked() || of.gre_checksum_count != 0) return;  // There is no room.
  of.egress_of_ports = static_cast<egress_slot>(of.egress - tracked_egress);
  of.ports = passing.ranges;
  of.ports_inside = passing.inside;
}

}  // namespace

std::optional<divert_reason> hop_planner::reason_before_routing(const ip_prefix& region) const {
  const bool quarantine = std::ranges::any_of(
      quarantined_, [&](const ip_prefix& prefix) { return prefix.contains(region); });
  if (quarantine) return divert_reason::audit_quarantine;
  return std::nullopt;
}

/// Whether the user keeps tunnels from a region that no listed prefix divides.
bool hop_planner::is_outside(const ip_prefix& region) const {
  const auto& prefixes = restrictions_.tunnel_prefixes;
  return prefixes && std::ranges::none_of(*prefixes, [&](const ip_prefix& prefix) {
           return prefix.contains(region);
         });
}

hop_plan hop_planner::plan(decider& decides, const flow_class& cls, const ip_prefix& region,
                           const std::optional<ip_prefix>& out) {
  if (const auto reason = reason_before_routing(region)) return diverted(*reason);
  decision_question question;
  question.cls = &cls;
  question.region = region;
  const decision& decided = decides.decide(question);
  // The source of a socket's second question goes by the scope: such regions have many of them.
  if (decided.error != 0 && question.is_multicast() && !is_known_multicast(region))
    return diverted(divert_reason::multicast_destination, &decided);
  if (decided.error != 0)
    return diverted(
        decided.error == ENETUNREACH ? divert_reason::no_route : divert_reason::rejected, &decided);
  if (decided.divert) return diverted(*decided.divert, &decided);
  hop_plan made;
  made.decided = &decided;
  for (const path_share& share : decided.shares) {
    planned_share& one = made.shares.emplace_back();
    one.bound = share.bound;
    if (!share.is_known()) {
      one.divert = divert_reason::resilient_group;
      continue;
    }
    const path_member& member = decided.members[share.member];
    one.on_link = !member.gateway;
    auto hop = hop_key_of(state_, decided, member, cls, region);
    if (!hop) {
      const bool on_link = std::ranges::any_of(made.shares, &planned_share::on_link);
      made.shares = diverted(divert_reason::no_source_address).shares;
      made.shares.front().on_link = on_link;
      return made;
    }
    one.output_asked = true;
    const auto told = output_.judge(cls, *hop, out.value_or(region), !out);
    hop->tracked = told.tracked;
    hop->untracked_ports = told.untracked_ports;
    hop->outer_tracked = told.outer_tracked;
    if (told.ports) {
      hop->closed_because = told.reason;
      hop->ports = *told.ports;
    } else {
      one.divert = told.reason;
    }
    hop->outside_prefixes = is_outside(region);
    one.hop = *hop;
  }
  return made;
}

const planned_share& hop_planner::share_for(const hop_plan& plan, std::uint32_t hash31) {
  const std::uint32_t key = hash31 % (plan.shares.back().bound + 1);
  return *std::ranges::lower_bound(plan.shares, key, {}, &planned_share::bound);
}

built_hop hop_planner::build(const hop_key& key) const {
  if (closed_because_) return divert_hop(*closed_because_);
  built_hop made =
      build_hop(state_, egress_, key, {&quarantined_, &restrictions_, numbers_}, gone_);
  const auto tell_ports_apart = [&](hop& one) {
    if (key.closed_because) close_ports(one, *key.closed_because, key.ports);
    if (key.untracked_ports) free_ports(one, *key.untracked_ports);
  };
  tell_ports_apart(made.only);
  for (hop& one : made.slaves) tell_ports_apart(one);
  return made;
}

}  // namespace cowire::detail

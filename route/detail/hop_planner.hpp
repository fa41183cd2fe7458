// SPDX-License-Identifier: Apache-2.0
/// What becomes of a class's datagrams in a region: the one ladder of checks from a decision of the
/// kernel to hops, for the tables that readers use and for the explanation of a single flow.
///
/// In this order: quarantine, what the kernel decides, sources, the output path, what
/// the user keeps from tunnels, what a template can imitate.
///
/// The compiler's thread only.
#pragma once

#include <cowire/route/detail/decision.hpp>
#include <cowire/route/detail/header_template.hpp>
#include <cowire/route/detail/output_judge.hpp>
#include <cowire/route/flow.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/restrictions.hpp>

#include <cstdint>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace cowire::detail {

/// The flows of a region, or those among them whose hash has this share.
struct planned_share {
  std::uint32_t bound = 0x7fffffff;     ///< As path_share has it.
  std::optional<divert_reason> divert;  ///< Why there is no hop.
  hop_key hop;
  bool output_asked = false;  ///< About `hop`.
  bool on_link = false;       ///< The hop depends on the host.
};

struct hop_plan {
  std::vector<planned_share> shares;  ///< At least one; by rising bound.
  const decision* decided = nullptr;  ///< Null: not asked. Until the decider's next answer.
};

class hop_planner {
 public:
  /// All outlive it. `numbers` as compiler_options has them.
  hop_planner(const mirror& state, const route_restrictions& restrictions, outer_flows* numbers)
      : state_(state), restrictions_(restrictions), numbers_(numbers), output_(state) {}

  /// Any address of the region stands for all: nothing divides it but, perhaps, the output path,
  /// which is asked about the destinations in `out`; unset = about the region, for an explanation,
  /// which divides no zones. Known to no port: a class is not, and what differs between ports is
  /// left to the kernel.
  [[nodiscard]] hop_plan plan(decider& decides, const flow_class& cls, const ip_prefix& region,
                              const std::optional<ip_prefix>& out = std::nullopt);
  /// The share that a flow's hash takes.
  [[nodiscard]] static const planned_share& share_for(const hop_plan& plan, std::uint32_t hash31);
  /// As devices, neighbours and sockets are now.
  [[nodiscard]] built_hop build(const hop_key& key) const;
  /// From now on every hop that is built diverts, or none does for this. False: as it was.
  bool close(const std::optional<divert_reason>& because) noexcept {
    return std::exchange(closed_because_, because) != because;
  }

  /// From now on no hop that is built leaves over this device (ifindex); 0 = all may again.
  void take_for_gone(std::uint32_t device) noexcept { gone_ = device; }

  /// Tables that rules may lead to; null = all.
  [[nodiscard]] const std::vector<std::uint32_t>* mirrored_tables() const noexcept {
    return restrictions_.routing_tables ? &*restrictions_.routing_tables : nullptr;
  }
  [[nodiscard]] const route_restrictions& restrictions() const noexcept { return restrictions_; }
  [[nodiscard]] std::set<ip_prefix>& quarantined() noexcept { return quarantined_; }
  [[nodiscard]] const std::set<ip_prefix>& quarantined() const noexcept { return quarantined_; }
  [[nodiscard]] egress_slots& egress() noexcept { return egress_; }
  [[nodiscard]] output_judge& output() noexcept { return output_; }
  [[nodiscard]] const output_judge& output() const noexcept { return output_; }

 private:
  [[nodiscard]] std::optional<divert_reason> reason_before_routing(const ip_prefix& region) const;
  [[nodiscard]] bool is_outside(const ip_prefix& region) const;

  const mirror& state_;
  const route_restrictions& restrictions_;
  outer_flows* const numbers_;
  std::set<ip_prefix> quarantined_;
  egress_slots egress_;
  std::optional<divert_reason> closed_because_;
  std::uint32_t gone_ = 0;
  output_judge output_;
};

}  // namespace cowire::detail

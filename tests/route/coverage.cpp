// SPDX-License-Identifier: Apache-2.0
#include "coverage.hpp"

#include <cowire/follow/detail/path_exceptions.hpp>
#include <cowire/route/egress_choice.hpp>

#include <linux/if_bonding.h>
#include <linux/if_ether.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <initializer_list>
#include <sstream>

namespace cowire::testing {
namespace {

bool has_tag(const hop& via) {
  const std::byte* const type = via.header + header_capacity - via.header_length + 12;
  const unsigned number =
      std::to_integer<unsigned>(type[0]) << 8 | std::to_integer<unsigned>(type[1]);
  return number == ETH_P_8021Q || number == ETH_P_8021AD;
}

}  // namespace

void coverage::count(const resolution& answer, const netlink::route_answer& kernel, bool v4) {
  const bool known = answer.choice_known && answer.shares.size() > 1;
  (v4 ? members_v4 : members_v6) += known;
  (v4 ? rejected_v4 : rejected_v6) += answer.error != 0 && answer.error != ENETUNREACH;
  if (!answer.route) return;
  (v4 ? groups_v4 : groups_v6) += known && answer.route->nexthop_id != 0;
  (v4 ? buckets_v4 : buckets_v6) += known && answer.shares.back().bound < 0x7fffffff;
  source_specific += answer.route->source.length() != 0;
  custom_tables += answer.table >= 100 && answer.table < 200;
  if (answer.members.size() != 1 || answer.route->nexthop_id != 0) return;
  if (!detail::shows_exception(kernel)) return;
  (v4 ? path_mtus_v4 : path_mtus_v6) += kernel.route.metrics.mtu != answer.route->metrics.mtu;
  (v4 ? redirected_v4 : redirected_v6) += std::ranges::none_of(
      answer.route->next_hops,
      [&](const netlink::next_hop& hop) { return hop.gateway == answer.members.front().gateway; });
}

void coverage::count_socket(const asked_flow& query) {
  const endpoint& to = query.as_written;
  const std::uint32_t device = query.question.cls.output_interface;
  if (to.address.is_v4_mapped())
    ++mapped;
  else if (!to.address.needs_scope_id())
    ++plain_v6;
  else if (to.scope_id != 0)
    ++(device != 0 ? bound_scoped : scoped);
  else
    ++(device != 0 ? bound : unscoped);
}

void coverage::count_group(const group_oracle::answer& kernel, const flow& question) {
  const bool v4 = question.destination.is_v4();
  (v4 ? group_frames_v4 : group_frames_v6) += !kernel.left.empty();
  (v4 ? copies_v4 : copies_v6) += !kernel.heard.empty();
  silenced += !question.cls.multicast_loop && !kernel.left.empty();
}

void coverage::count_frame(const mirror& state, const frame_question& asked) {
  ++(asked.of.destination.is_v4() ? frames_v4 : frames_v6);
  const auto* const sender = state.find_device(asked.via.interface_index);
  const auto* const bond = state.find_device(sender != nullptr ? sender->link.master : 0);
  const bool bonded = bond != nullptr && hashes_frames(bond->link);
  if (bonded) {
    const bool is_xor = std::get<netlink::bond_info>(bond->link.info).mode == BOND_MODE_XOR;
    ++(is_xor ? by_xor : by_lacp);
    by_other_slave += bond->slaves && bond->slaves->front() != sender->link.index;
  }
  const resolution way = resolve(state, asked.of);
  const auto* const first = state.find_device(way.interface_index);
  const auto* const tunnel =
      first != nullptr ? std::get_if<netlink::tunnel_info>(&first->link.info) : nullptr;
  if (tunnel == nullptr) return;
  ++in_tunnels;
  over_bond += bonded;
  over_vlan += has_tag(asked.via);
  over_vrf += std::ranges::any_of(state.devices(), [&](const auto& item) {
    const auto& [index, device] = item;
    const auto& own = tunnel->local.is_v4() ? device.v4 : device.v6;
    const egress_choice under = egress_of(state, index);
    return device.link.slave_kind == "vrf" &&
           std::ranges::count(own, tunnel->local, &netlink::address::local) != 0 &&
           std::ranges::count(under.senders(), asked.via.interface_index) != 0;
  });
}

bool coverage::complete(flavour kind) const {
  const auto has = [](std::initializer_list<std::size_t> all) {
    return std::ranges::none_of(all, [](std::size_t one) { return one == 0; });
  };
  return has({members_v4,  members_v6,  groups_v4,       groups_v6,       buckets_v4, custom_tables,
              rejected_v4, rejected_v6, mapped,          plain_v6,        scoped,     bound_scoped,
              bound,       unscoped,    group_frames_v4, group_frames_v6, copies_v4,  copies_v6,
              silenced,    frames_v4,   frames_v6}) &&
         (kind != flavour::devices ||
          has({by_xor, by_lacp, by_other_slave, over_vlan, over_bond, over_vrf})) &&
         (kind != flavour::everything || has({buckets_v6, source_specific, redirected_v4,
                                              redirected_v6, path_mtus_v4, path_mtus_v6}));
}

std::string coverage::text() const {
  std::ostringstream out;
  out << "  very members " << members_v4 << " and " << members_v6 << " (IPv6), of groups "
      << groups_v4 << " and " << groups_v6 << ", by bucket " << buckets_v4 << " and " << buckets_v6
      << ", source-specific " << source_specific << "\n  redirected " << redirected_v4 << " and "
      << redirected_v6 << ", path MTUs " << path_mtus_v4 << " and " << path_mtus_v6
      << "\n  by sockets: mapped " << mapped << ", IPv6 " << plain_v6 << ", scope ids " << scoped
      << ", of the bound device " << bound_scoped << ", none but bound " << bound
      << ", none at all " << unscoped << "\n  to groups: left " << group_frames_v4 << " and "
      << group_frames_v6 << ", copies " << copies_v4 << " and " << copies_v6 << ", without loop "
      << silenced << "\n  frames to one host: " << frames_v4 << " and " << frames_v6 << "\n";
  if (by_xor + by_lacp + in_tunnels == 0) return out.str();
  out << "    by balance-xor " << by_xor << ", by 802.3ad " << by_lacp << ", not the first slave "
      << by_other_slave << "; in tunnels " << in_tunnels << ", over a VLAN " << over_vlan
      << ", a bond " << over_bond << ", in a VRF " << over_vrf << "\n";
  return out.str();
}

}  // namespace cowire::testing

// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/output_judge.hpp>

#include <algorithm>
#include <variant>

namespace cowire::detail {
namespace {

bool is_vrf(const mirror& state, std::uint32_t index) {
  const mirror::device* device = state.find_device(index);
  return device != nullptr && std::holds_alternative<netlink::vrf_info>(device->link.info);
}

}  // namespace

void output_judge::set(std::shared_ptr<const output_snapshot> snapshot) {
  snapshot_ = std::move(snapshot);
  empty_ = !snapshot_ || is_empty(*snapshot_);
  forget();
}

const output_verdict& output_judge::judge(const flow_class& cls, const hop_key& hop) {
  if (!has_something_to_say()) return nothing_;
  const auto known = std::ranges::find_if(answers_, [&](const answer& a) {
    return a.interface_index == hop.interface_index && a.source == hop.source && a.tos == hop.tos &&
           a.hop_limit == hop.hop_limit && a.cls == cls && a.source.family() == hop.family;
  });
  if (known != answers_.end()) return known->verdict;
  answers_.push_back({cls, hop.interface_index, hop.source, hop.tos, hop.hop_limit, ask(cls, hop)});
  return answers_.back().verdict;
}

output_flow output_judge::region_of(const flow_class& cls, const hop_key& hop) const {
  output_flow region;
  region.destination = ip_prefix::all(hop.family);
  region.source = hop.source;
  if (cls.source_port != 0) region.source_port = cls.source_port;
  region.mark = cls.mark;
  region.tos = hop.tos;
  if (hop.hop_limit != 0) region.ttl = hop.hop_limit;
  region.uid = cls.uid;
  const mirror::device* device = state_.find_device(hop.interface_index);
  if (device == nullptr) return region;
  const egress_choice below = egress_of(state_, hop.interface_index);
  const bool plain = !below.divert && below.interface_index == hop.interface_index && !below.tag;
  region.mark_matters_below = !plain;
  if (plain) {
    region.devices = {hop.interface_index};
  } else {
    // Every device there is, rather than which of them lie below this one.
    for (const auto& [index, any] : state_.devices()) region.devices.push_back(index);
  }
  region.passes_vrf = is_vrf(state_, device->link.master) || is_vrf(state_, hop.interface_index);
  if (region.passes_vrf) return region;
  region.output_interface = hop.interface_index;
  region.output_name = device->link.name;
  return region;
}

/// What a tunnel wraps around passes the same hooks again; mark and owner are those of the inner.
output_verdict output_judge::ask_outer(const netlink::tunnel_info& tunnel,
                                       const output_flow& inner) const {
  constexpr std::uint8_t ipip = 4, ipv6_in = 41, gre = 47;
  output_flow outer;
  outer.destination = {tunnel.remote, tunnel.remote.bits()};
  if (!tunnel.local.is_unspecified()) outer.source = tunnel.local;
  outer.mark = inner.mark;
  outer.uid = inner.uid;
  outer.tos.reset();
  outer.devices = inner.devices;
  outer.mark_matters_below = true;
  for (const std::uint8_t protocol : {gre, ipip, ipv6_in}) {
    outer.ip_protocol = protocol;
    auto found = judge_output(*snapshot_, outer);
    if (!found.reason) continue;
    found.obstacle = "of the tunnel's outer datagrams: " + found.obstacle;
    return found;
  }
  return {};
}

output_verdict output_judge::ask(const flow_class& cls, const hop_key& hop) const {
  const output_flow region = region_of(cls, hop);
  if (auto found = judge_output(*snapshot_, region); found.reason) return found;
  const mirror::device* device = state_.find_device(hop.interface_index);
  const auto* tunnel =
      device != nullptr ? std::get_if<netlink::tunnel_info>(&device->link.info) : nullptr;
  return tunnel != nullptr ? ask_outer(*tunnel, region) : output_verdict{};
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/tunnel.hpp>
#include <cowire/route/outer_questions.hpp>
#include <cowire/route/resolve_by_search.hpp>

#include <netinet/in.h>

#include <algorithm>
#include <variant>

namespace cowire {

using namespace detail;

namespace {

/// RTM_GETROUTE knows no other protocols than UDP, TCP and ICMP (rtm_getroute_parse_ip_proto() in
/// net/ipv4/fib_frontend.c). Unset: the route of UDP is another one.
std::optional<flow> as_udp(const mirror& state, const flow& outer) {
  flow asked = outer;
  asked.cls.ip_protocol = IPPROTO_UDP;
  const resolution theirs = resolve_by_search(state, outer, route_question::get_route);
  const resolution ours = resolve_by_search(state, asked, route_question::get_route);
  const bool same = theirs.error == ours.error && theirs.divert == ours.divert &&
                    theirs.route == ours.route && theirs.table == ours.table;
  return same ? std::optional(asked) : std::nullopt;
}

std::optional<flow> outer_question_of(const mirror& state, const netlink::link& link,
                                      const gre::inner_packet& packet) {
  if (!is_tunnel_kind(link.kind)) return std::nullopt;
  const auto through = tunnel_of(link);
  if (!std::holds_alternative<gre::tunnel>(through)) return std::nullopt;
  const auto outer = outer_flow_of(state, link, std::get<gre::tunnel>(through), packet);
  return outer ? as_udp(state, *outer) : std::nullopt;
}

}  // namespace

std::optional<flow> outer_question_below(const mirror& state, const flow& inner) {
  const resolution ours = resolve_by_search(state, inner, route_question::get_route);
  if (ours.divert || ours.error != 0 || ours.chosen >= ours.members.size()) return std::nullopt;
  const mirror::device* device = state.find_device(ours.members[ours.chosen].interface_index);
  if (device == nullptr) return std::nullopt;
  gre::inner_packet packet;
  packet.family = inner.destination.family();
  packet.tos = inner.cls.tos;
  return outer_question_of(state, device->link, packet);
}

std::vector<flow_class> outer_classes_to(const mirror& state, const ip_address& remote) {
  std::vector<flow_class> found;
  for (const auto& [index, device] : state.devices()) {
    const auto outer = outer_question_of(state, device.link, {});
    if (outer && outer->destination == remote &&
        std::ranges::find(found, outer->cls) == found.end())
      found.push_back(outer->cls);
  }
  return found;
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/neighbour_upkeep.hpp>
#include <cowire/follow/detail/question_socket.hpp>
#include <cowire/netlink/request.hpp>
#include <cowire/route/egress_choice.hpp>
#include <cowire/route/forwarding_table.hpp>
#include <cowire/route/resolve_by_search.hpp>

#include <linux/neighbour.h>
#include <sys/socket.h>

#include <algorithm>
#include <map>
#include <variant>

namespace cowire::detail {
namespace {

/// The devices whose sockets send what goes to a neighbour on `index`: itself or those below, of a
/// tunnel the ones towards its other end.
std::vector<std::uint32_t> egresses_below(const mirror& state, std::uint32_t index) {
  for (std::size_t level = 0; level <= outer_headers_max; ++level) {
    const egress_choice found = egress_of(state, index);
    const auto senders = found.senders();
    if (!found.divert) return {senders.begin(), senders.end()};
    const mirror::device* device = state.find_device(index);
    const auto* tunnel =
        device != nullptr ? std::get_if<netlink::tunnel_info>(&device->link.info) : nullptr;
    if (tunnel == nullptr) return {};
    flow outer;
    outer.destination = tunnel->remote;
    index = resolve_by_search(state, outer, route_question::send).interface_index;
  }
  return {};
}

}  // namespace

neighbour_upkeep::neighbour_upkeep(const mirror& state) : state_(state), fd_(open_questions()) {}

std::uint64_t neighbour_upkeep::poke(const interface_use& in_use) {
  const auto found = stale(in_use);
  std::uint64_t pokes = 0;
  // That one was poked is not told, so the next ones have their turn.
  for (std::size_t i = 0; i < std::min(found.size(), pokes_max); ++i)
    pokes += send_poke(*found[turn_++ % found.size()]);
  drop_answers();
  return pokes;
}

void neighbour_upkeep::resolve(const neighbour_key& wanted) {
  netlink::neighbour to;
  to.index = wanted.index;
  to.destination = wanted.destination;
  if (const auto* known = state_.find_neighbour(wanted.index, wanted.destination)) {
    // A managed entry the kernel resolves by itself, and the poke would end that.
    if (known->state != NUD_FAILED && known->state != NUD_NONE) return;
    if (known->extended_flags != 0) return;
    to = *known;
  }
  static_cast<void>(send_poke(to));
  drop_answers();
}

bool neighbour_upkeep::send_poke(const netlink::neighbour& to) const {
  const auto request = netlink::neighbour_poke(to, 0);
  return ::send(fd_.get(), request.data(), request.size(), MSG_DONTWAIT) >= 0;
}

/// Only refusals are answered: the entry is gone, or we lack the privilege.
void neighbour_upkeep::drop_answers() const {
  char answer[4096];
  while (::recv(fd_.get(), answer, sizeof answer, MSG_DONTWAIT) > 0) continue;
}

std::vector<const netlink::neighbour*> neighbour_upkeep::stale(const interface_use& in_use) const {
  std::vector<const netlink::neighbour*> found;
  std::map<std::uint32_t, bool> used;
  state_.for_each_neighbour([&](const netlink::neighbour& n) {
    // STALE alone: the poke would strip a PERMANENT, NOARP or managed entry of that state.
    if (n.state != NUD_STALE || n.extended_flags != 0) return;
    const auto [device, fresh] = used.try_emplace(n.index);
    if (fresh) device->second = std::ranges::any_of(egresses_below(state_, n.index), in_use);
    if (device->second) found.push_back(&n);
  });
  return found;
}

}  // namespace cowire::detail

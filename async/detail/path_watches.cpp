// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/path_watches.hpp>
#include <cowire/follow/route_service.hpp>
#include <cowire/netlink/message.hpp>
#include <cowire/xdp/tx_request.hpp>

#include <algorithm>
#include <iterator>
#include <set>
#include <span>
#include <tuple>
#include <utility>
#include <variant>

namespace cowire::detail {
namespace {

using namespace std::chrono_literals;

/// How often an unresolved neighbour is asked for, which the kernel tries for about three seconds.
constexpr auto asking_period = 1s;
/// So that many who wait are no storm of ARP requests.
constexpr std::size_t asked_at_once_max = 128;
/// From so many routes on it takes longer to compare them than to ask in full.
constexpr std::size_t routes_compared_max = 64;

std::int64_t unix_now_ns() noexcept {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

}  // namespace

void path_watches::add(path_question what, std::shared_ptr<queue> whom, bool until_settled) {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_) {
      auto& made = added_.emplace_back(std::make_unique<watch>());
      made->what = std::move(what);
      made->whom = whom;
      if (until_settled) made->kept = std::move(whom);
      return;
    }
  }
  whom->close();
}

void path_watches::begin_added() {
  watches fresh;
  {
    const std::lock_guard lock(mutex_);
    fresh.swap(added_);
  }
  std::ranges::move(fresh, std::back_inserter(all_));
  for (const auto& one : std::span(all_).last(fresh.size())) one->ended = examine(*one);
  erase_ended();
}

void path_watches::on_published(const publication& done) {
  version_ = done.version;
  published_ns_ = unix_now_ns();
  examine_if(&path_watches::concerns, done.reflected);
}

void path_watches::on_chosen() { examine_if(&path_watches::concerns, {}); }

void path_watches::examine_if(bool (*concerned)(const mirror_changes&, const watch&),
                              const mirror_changes& changes) {
  for (const auto& one : all_) {
    const bool refused =
        one->kept && one->what.number && one->what.chosen->is_refused(*one->what.number);
    if (refused || one->rules_being_read || hop_of(one->what) != one->seen ||
        concerned(changes, *one))
      one->ended = examine(*one);
  }
  erase_ended();
}

void path_watches::erase_ended() noexcept {
  std::erase_if(all_, [](const auto& one) { return one->ended; });
}

void path_watches::on_tick(clock::time_point now) {
  if (now < next_asking_) return;
  next_asking_ = now + asking_period;
  std::erase_if(all_, [](const auto& one) { return is_unwanted(*one); });
  std::set<std::pair<std::uint32_t, ip_address>> wanted;
  for (const auto& one : all_)
    if (one->kept && one->unresolved)
      wanted.emplace(one->unresolved->index, one->unresolved->destination);
  auto next = wanted.upper_bound(asked_last_);
  for (std::size_t i = 0; i < std::min(wanted.size(), asked_at_once_max); ++i, ++next) {
    if (next == wanted.end()) next = wanted.begin();
    asked_last_ = *next;
    routes_.resolve({next->first, next->second});
  }
}

void path_watches::forget(std::uint32_t sender) {
  std::erase_if(all_, [&](const std::unique_ptr<watch>& one) {
    if (one->what.sender != sender) return false;
    if (const auto whom = one->whom.lock()) whom->close();
    return true;
  });
}

void path_watches::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    std::ranges::move(added_, std::back_inserter(all_));
    added_.clear();
  }
  for (const auto& one : std::exchange(all_, {}))
    if (const auto whom = one->whom.lock()) whom->close();
}

// One of them
// ---------------------------------------------------------------------------------------

bool path_watches::concerns(const mirror_changes& changes, const watch& one) {
  const ip_address& to = one.what.asked.destination;
  if (to.is_v4() ? changes.decisions_v4 : changes.decisions_v6) return true;
  if (!changes.links.empty() || !changes.nexthops.empty()) return true;
  if (!changes.groups.empty() && to.is_multicast()) return true;
  // Neighbours have a say in which of several next hops is taken.
  if (!changes.neighbours.empty() && one.several) return true;
  if (changes.routes.size() > routes_compared_max) return true;
  return std::ranges::any_of(changes.routes,
                             [&](const auto& route) { return route.destination.contains(to); }) ||
         std::ranges::find(changes.path_mtus, to) != changes.path_mtus.end();
}

hop path_watches::hop_of(const path_question& what) const {
  const flow_class_id id = what.number ? what.chosen->id_of(*what.number) : what.compiled;
  if (id < first_without_table) return routes_.compiler().published_hop(id, what.asked);
  hop none{};
  none.reason = reason_without_table(id);
  return none;
}

bool path_watches::examine(watch& one) {
  const auto whom = one.whom.lock();
  if (is_unwanted(one)) return true;
  path_state now = describe(one);
  if (one.kept) {
    if (is_settled(one, now)) {
      now.number = 1;
      whom->replace_all(std::move(now));
      return true;
    }
    if (one.unresolved) routes_.resolve(*one.unresolved);
    return false;
  }
  if (one.told && one.told->same_way(now)) return false;
  now.number = one.told ? one.told->number + 1 : 1;
  one.told = now;
  whom->replace_all(std::move(now));
  return false;
}

path_state path_watches::describe(watch& one) const {
  const flow& asked = one.what.asked;
  const explanation told = routes_.compiler().explain(asked);
  one.seen = hop_of(one.what);
  one.several = told.decision.members.size() > 1;
  one.rules_being_read = told.rules_being_read;
  path_state out;
  out.version = version_;
  out.publish_time_ns = published_ns_;
  const resolution& kernel = told.decision;
  set_service(out, one, told);
  const bool unresolved = out.reason == divert_reason::neighbour_unresolved;
  one.unresolved = unresolved ? told.unresolved : std::nullopt;
  if (out.refusal) return out;
  out.interface_index = kernel.interface_index;
  out.device = name_of(kernel.interface_index);
  const auto* const device = routes_.state().find_device(kernel.interface_index);
  out.tunnel = device != nullptr && std::holds_alternative<netlink::tunnel_info>(device->link.info);
  if (kernel.chosen < kernel.members.size()) out.gateway = kernel.members[kernel.chosen].gateway;
  out.source = kernel.source;
  out.mtu = kernel.mtu;
  return out;
}

void path_watches::set_service(path_state& out, const watch& one, const explanation& told) const {
  const hop via = one.seen.for_port(one.what.asked.destination_port);
  const bool kernels_ecn = one.what.own_ecn && via.ecn_at[0] == hop::ecn_by_kernel;
  const bool never_known = via.is_tracked() && !tracks_;
  if (via.egress != divert_slot && !kernels_ecn && !never_known) {
    out.service = via.is_tracked() ? path_service::tracked : path_service::fast;
    out.egress = name_of(via.interface_index);
    out.destination_mac = told.destination_mac;
    out.max_payload = via.max_payload;
    return;
  }
  out.reason = via.egress == divert_slot ? via.reason
               : never_known             ? divert_reason::conntrack_new
                                         : divert_reason::tunnel;
  if (kernel_only_ && out.reason == divert_reason::no_egress_socket)
    out.reason = divert_reason::forced_kernel;
  out.service = told.decision.error != 0 ? path_service::refused : path_service::kernel_path;
  if (told.decision.error != 0) out.refusal = errno_code(told.decision.error);
  if (out.reason == told.output.reason) out.obstacle = told.output.obstacle;
}

std::string path_watches::name_of(std::uint32_t interface_index) const {
  const auto* const device = routes_.state().find_device(interface_index);
  return device != nullptr ? device->link.name : "if" + std::to_string(interface_index);
}

bool path_watches::is_settled(const watch& one, const path_state& state) const {
  if (one.rules_being_read && state.reason == divert_reason::netfilter) return false;
  if (!state.reason || state.refusal || !is_transient(*state.reason)) return true;
  return one.what.number && one.what.chosen->is_refused(*one.what.number);
}

bool path_watches::is_unwanted(const watch& one) {
  return one.kept ? !one.kept->read_waits() : one.whom.expired();
}

}  // namespace cowire::detail

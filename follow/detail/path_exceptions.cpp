// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/path_exceptions.hpp>
#include <cowire/follow/detail/truth_audit.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/route/agreement.hpp>
#include <cowire/route/exception_owner.hpp>
#include <cowire/route/outer_questions.hpp>
#include <cowire/route/resolve_by_search.hpp>

#include <linux/in_route.h>
#include <linux/rtnetlink.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

namespace cowire::detail {
namespace {

using namespace std::chrono_literals;

/// A redirect is read just before the kernel acts upon it, and acts only once it knows the new
/// gateway's MAC address.
constexpr std::array repeat_delays{std::chrono::milliseconds(200), std::chrono::milliseconds(20)};
/// How long an exception that the kernel has dropped may stay: a redirect sends elsewhere, a path
/// MTU only leaves more to the kernel.
constexpr auto redirect_check = 1s, path_mtu_check = 30s;
/// Between two questions about a redirect in its last second.
constexpr auto ending_check = 100ms;

bool is_v4(const netlink::route& route) { return route.destination.family() == ip_family::v4; }

netlink::next_hop hop_of(const netlink::route& route) {
  return route.next_hops.empty() ? netlink::next_hop{} : route.next_hops.front();
}

}  // namespace

bool shows_exception(const netlink::route_answer& answer) {
  if (!answer) return false;
  const netlink::route& route = answer.route;
  // IPv4 answers are all RTM_F_CLONED (rt_fill_info in net/ipv4/route.c), of IPv6 ones those from
  // an exception are (rt6_fill_node in net/ipv6/route.c).
  if (is_v4(route)) return (route.flags & RTCF_REDIRECTED) != 0 || route.expires_s.has_value();
  return (route.flags & RTM_F_CLONED) != 0;
}

std::optional<ip_address> redirected_destination(ip_family family,
                                                 std::span<const std::byte> datagram) {
  const auto at = [&](std::size_t i) { return std::to_integer<unsigned>(datagram[i]); };
  if (family == ip_family::v6) {
    // RFC 4861, 4.5: type, code, checksum, reserved, target, destination.
    if (datagram.size() < 40 || at(0) != ND_REDIRECT) return std::nullopt;
    return ip_address::from_bytes(family, datagram.data() + 24);
  }
  if (datagram.size() < 20) return std::nullopt;
  const std::size_t header = (at(0) & 0x0f) * 4;
  // RFC 792: type, code, checksum, gateway, then the header of what was redirected.
  if (header < 20 || datagram.size() < header + 8 + 20 || at(header) != ICMP_REDIRECT)
    return std::nullopt;
  return ip_address::from_bytes(family, datagram.data() + header + 8 + 16);
}

void path_exceptions::ask(const ip_address& destination, time_point now) {
  const auto found = records_.find(destination);
  if (found == records_.end() && records_.size() >= state_.path_exception_count() + unknown_max)
    return;  // The truth audit finds it in time.
  record& of = found != records_.end() ? found->second : records_[destination];
  // However often it is said: a round at a time, and some time between two.
  const bool is_going_on = of.repeats != 0 || !of.questions.empty();
  of.repeats = static_cast<int>(repeat_delays.size());
  if (is_going_on)
    set_due(of, std::min(of.due, now + repeat_delays.back()));
  else
    begin(destination, of, now);
}

void path_exceptions::set_due(record& of, time_point when) {
  of.due = when;
  next_due_ = std::min(next_due_, when);
}

/// Asks once for every next hop that a flow in use may take.
void path_exceptions::begin(const ip_address& destination, record& of, time_point now) {
  of.questions.clear();
  of.asks_all = true;
  set_due(of, now + truth_audit::answer_timeout);
  std::vector<flow_class> classes = classes_();
  const std::vector<flow_class> outer = outer_classes_to(state_, destination);
  classes.insert(classes.begin(), outer.begin(), outer.end());
  for (const flow_class& cls : classes) {
    question next;
    next.about = {cls, destination, 0};
    next.owner = exception_owner_of(state_, next.about);
    const auto same = [&](const question& q) {
      return q.owner == next.owner && (q.owner || q.about.cls == cls);
    };
    if (std::ranges::any_of(of.questions, same)) continue;
    if (!next.owner) {
      const auto ours = resolve_by_search(state_, next.about, route_question::get_route);
      const bool asked_about = !ours.divert || ours.divert == divert_reason::path_exception;
      if (ours.error != 0 || ours.type != RTN_UNICAST || !asked_about) continue;
    }
    of.asks_all = of.questions.size() < questions_max;
    if (!of.asks_all) break;
    of.questions.push_back(std::move(next));
  }
  if (of.questions.empty())
    set_due(of, now);  // Nobody could send there.
  else
    to_send_.push_back(destination);
}

std::optional<std::vector<std::byte>> path_exceptions::next_request() {
  while (!to_send_.empty()) {
    const ip_address destination = to_send_.front();
    const auto found = records_.find(destination);
    if (found != records_.end()) {
      auto& questions = found->second.questions;
      const auto next = std::ranges::find(questions, 0u, &question::sequence);
      if (next != questions.end()) {
        if (++sequence_ == 0) ++sequence_;
        next->sequence = sequence_;
        awaited_[sequence_] = destination;
        return netlink::route_request(query_of(next->about), sequence_);
      }
    }
    to_send_.pop_front();
  }
  return std::nullopt;
}

void path_exceptions::on_answer_datagram(std::span<const std::byte> datagram, time_point now,
                                         mirror_changes& changes) {
  std::error_code ec;
  while (const auto reply = netlink::next_envelope(datagram, ec)) {
    const auto awaited = awaited_.extract(reply->sequence);
    if (awaited.empty()) continue;
    const auto at = records_.find(awaited.mapped());
    if (at == records_.end()) continue;
    auto& questions = at->second.questions;
    const auto q = std::ranges::find(questions, reply->sequence, &question::sequence);
    if (q == questions.end()) continue;  // Of a round that was given up.
    q->answer = read_route_answer(*reply);
    if (!q->answer) q->answer.emplace().error_number = -1;  // Nothing that can be understood.
    if (std::ranges::all_of(questions, [](const question& one) { return one.answer.has_value(); }))
      conclude(at, now, changes);
  }
}

/// IPv6 does not say what kind of exception it is: one that leads to a gateway of the route's own
/// is no redirect.
bool path_exceptions::is_redirected(const question& q) const {
  const netlink::route& route = q.answer->route;
  if (is_v4(route)) return (route.flags & RTCF_REDIRECTED) != 0;
  if (q.owner) return hop_of(route).gateway != q.owner->gateway;
  const auto ours = resolve_by_search(state_, q.about, route_question::get_route);
  return std::ranges::none_of(ours.members, [&](const path_member& member) {
    return member.interface_index == hop_of(route).index && member.gateway == hop_of(route).gateway;
  });
}

void path_exceptions::add_answer(const question& q, path_exception& known,
                                 std::optional<std::uint32_t>& expires_s) const {
  path_exception::answer said;
  if (q.owner) said.owner = *q.owner;
  if (shows_exception(*q.answer)) {
    const netlink::route& route = q.answer->route;
    if (route.expires_s) expires_s = std::min(*route.expires_s, expires_s.value_or(~0u));
    if (const std::uint32_t mtu = route.metrics.mtu; mtu != 0) {
      known.mtu = known.mtu != 0 ? std::min(known.mtu, mtu) : mtu;
      known.mtu_locked |= (route.metrics.lock & 1u << RTAX_MTU) != 0;
    }
    said.redirected = is_redirected(q);
    if (said.redirected) said.gateway = hop_of(route).gateway;
    known.redirected |= said.redirected;
  }
  if (q.owner && *q.answer) known.answers.push_back(std::move(said));
}

void path_exceptions::conclude(records::iterator at, time_point now, mirror_changes& changes) {
  const auto& [destination, before] = *at;
  record& of = at->second;
  path_exception known;
  std::optional<std::uint32_t> expires_s;
  bool shown = false;
  for (const question& q : of.questions) {
    shown |= shows_exception(*q.answer);
    add_answer(q, known, expires_s);
  }
  // Where not all could be asked, those over other next hops may be redirected.
  known.redirected |= !of.asks_all;
  if (!known.redirected) known.answers.clear();
  known.doubtful = known.redirected && expires_s == 0;
  const bool is_kept = known.redirected || known.mtu != 0;
  const bool redirected = known.redirected, doubtful = known.doubtful;
  state_.set_path_exception(destination, is_kept ? std::optional(std::move(known)) : std::nullopt,
                            changes);
  of.questions.clear();
  if (of.repeats > 0) {
    set_due(of, now + repeat_delays[static_cast<std::size_t>(--of.repeats)]);
    return;
  }
  if (!is_kept && !shown) {
    records_.erase(at);
    return;
  }
  time_point check = now + (redirected ? std::chrono::seconds(redirect_check) : path_mtu_check);
  // Told in whole seconds, rounded down.
  if (expires_s) check = std::min(check, now + std::chrono::seconds(*expires_s));
  if (doubtful || (!redirected && expires_s == 0)) check = now + ending_check;
  set_due(of, check);
}

void path_exceptions::doubt(const ip_address& destination, mirror_changes& changes) {
  const path_exception* const known = state_.find_path_exception(destination);
  if (known == nullptr || !known->redirected || known->doubtful) return;
  path_exception next = *known;
  next.doubtful = true;
  state_.set_path_exception(destination, std::move(next), changes);
}

void path_exceptions::reconsider(records::iterator at, time_point now, mirror_changes& changes) {
  const path_exception* const known = state_.find_path_exception(at->first);
  if (known != nullptr && !known->redirected) {
    set_due(at->second, std::min<time_point>(at->second.due, now + redirect_check));
    return;
  }
  doubt(at->first, changes);
  begin(at->first, at->second, now);
}

void path_exceptions::on_changes(const mirror_changes& changed, time_point now,
                                 mirror_changes& changes) {
  if (records_.empty()) return;
  const bool many = !changed.nexthops.empty() || changed.routes.size() > 1000;
  for (auto at = records_.begin(); at != records_.end(); ++at)
    if (many || (at->first.is_v4() ? changed.decisions_v4 : changed.decisions_v6))
      reconsider(at, now, changes);
  if (many) return;
  for (const auto& [table, prefix] : changed.routes)
    for (auto at = records_.lower_bound(prefix.address());
         at != records_.end() && prefix.contains(ip_prefix(at->first, at->first.bits())); ++at)
      reconsider(at, now, changes);
}

void path_exceptions::on_timer(time_point now, mirror_changes& changes) {
  if (now < next_due_) return;
  next_due_ = time_point::max();
  for (auto at = records_.begin(); at != records_.end();) {
    const auto here = at++;
    record& of = here->second;
    if (of.due > now)
      set_due(of, of.due);
    else
      begin(here->first, of, now);
    if (!of.questions.empty() || of.due > now) continue;
    state_.set_path_exception(here->first, std::nullopt, changes);
    records_.erase(here);
  }
  std::erase_if(awaited_, [&](const auto& item) { return !records_.contains(item.second); });
}

}  // namespace cowire::detail

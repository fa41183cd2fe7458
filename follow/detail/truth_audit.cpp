// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/truth_audit.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/route/detail/resolve_by_search.hpp>

#include <linux/rtnetlink.h>

#include <algorithm>
#include <utility>

namespace cowire::detail {
namespace {

using namespace std::chrono_literals;

constexpr auto answer_timeout = 1s;
/// A kernel that goes on changing its mind is left alone: its notifications are on their way.
constexpr int rounds_max = 16;
/// A route that flaps could by chance be seen on the other foot once or twice.
constexpr int standing_enough = 2;
/// The two bits of the TOS byte that are ECN, not routing.
constexpr std::uint8_t dscp_mask = 0xfc;

ip_prefix host_prefix(const ip_address& address) { return {address, address.bits()}; }

bool same_flow(const flow& left, const flow& right) {
  return left.destination == right.destination && left.destination_port == right.destination_port &&
         left.cls == right.cls;
}

std::string text_of(const std::optional<ip_address>& address) {
  return address ? address->to_string() : "-";
}

std::string text_of(std::uint32_t interface_index, const std::optional<ip_address>& gateway) {
  return "interface " + std::to_string(interface_index) + " via " + text_of(gateway);
}

std::string text_of(const flow& about) {
  std::string out = about.destination.to_string();
  if (const auto& source = about.cls.source(about.destination.family()))
    out += " from " + source->to_string();
  if (about.cls.mark != 0) out += " mark " + std::to_string(about.cls.mark);
  if (about.cls.tos != 0) out += " tos " + std::to_string(about.cls.tos);
  if (about.cls.output_interface != 0)
    out += " interface " + std::to_string(about.cls.output_interface);
  return out;
}

/// The member that the kernel's answer names; null = it is none that ours may take.
const path_member* member_of(const resolution& ours, const netlink::next_hop& hop) {
  const auto is_it = [&](const path_member& m) {
    return m.interface_index == hop.index && m.gateway == hop.gateway;
  };
  if (ours.choice_known)
    return is_it(ours.members[ours.chosen]) ? &ours.members[ours.chosen] : nullptr;
  for (const path_share& share : ours.shares)
    if (share.is_known() && is_it(ours.members[share.member])) return &ours.members[share.member];
  return nullptr;
}

netlink::next_hop hop_of(const netlink::route& route) {
  return route.next_hops.empty() ? netlink::next_hop{} : route.next_hops.front();
}

/// Whether the two are one answer given twice.
bool same_answer(const netlink::route_answer& left, const netlink::route_answer& right) {
  const auto& l = left.route;
  const auto& r = right.route;
  return left.error_number == right.error_number && l.type == r.type && l.table == r.table &&
         l.next_hops == r.next_hops && l.preferred_source == r.preferred_source &&
         l.metrics == r.metrics;
}

/// The kernel caches type and metrics per nexthop object, of whichever route was asked first.
bool is_cached_by_object(const resolution& ours) {
  return ours.route && ours.route->nexthop_id != 0;
}

std::uint32_t device_mtu(const mirror& state, std::uint32_t index) {
  const auto* device = state.find_device(index);
  return device ? std::min<std::uint32_t>(device->link.mtu, 0xffff) : 0;
}

struct mtu_pair {
  std::uint32_t ours = 0, kernel = 0;
};

/// The path MTUs over the interface that the kernel's answer names: of several members it may have
/// chosen another one than we.
mtu_pair mtus_of(const mirror& state, const flow& asked, const resolution& ours,
                 const netlink::route& theirs) {
  const std::uint32_t device = device_mtu(state, hop_of(theirs).index);
  mtu_pair mtus{.ours = ours.mtu, .kernel = theirs.metrics.mtu != 0 ? theirs.metrics.mtu : device};
  const bool of_device =
      ours.route && ours.route->metrics.mtu == 0 && state.path_mtu(asked.destination) == 0;
  if (of_device) mtus.ours = device;
  return mtus;
}

/// A smaller MTU of ours that was learnt from the network diverts only what is longer, which is no
/// disagreement.
bool mtu_disagrees(const mirror& state, const flow& asked, const resolution& ours,
                   const netlink::route& theirs) {
  if (!ours.route || is_cached_by_object(ours)) return false;
  const mtu_pair mtus = mtus_of(state, asked, ours, theirs);
  return mtus.kernel < mtus.ours ||
         (mtus.kernel > mtus.ours && state.path_mtu(asked.destination) == 0);
}

/// Everything but the MTU.
std::string path_disagreement(const mirror& state, const flow& asked, const resolution& ours,
                              const netlink::route_answer& kernel) {
  if (ours.error != kernel.error_number)
    return "errno " + std::to_string(ours.error) + ", the kernel's " +
           std::to_string(kernel.error_number) + "; ";
  if (ours.error != 0) return {};
  const netlink::route& theirs = kernel.route;
  const ip_family family = asked.destination.family();
  std::string out;
  const auto differs = [&](const char* what, const std::string& left, const std::string& right) {
    if (left != right) out += std::string(what) + left + ", the kernel's " + right + "; ";
  };
  if (!is_cached_by_object(ours))
    differs("type ", std::to_string(ours.type), std::to_string(theirs.type));
  // Until rules are configured IPv4 answers main for everything.
  if (family == ip_family::v6 || state.rules_configured(family).value_or(false))
    differs("table ", std::to_string(ours.table), std::to_string(theirs.table));
  const netlink::next_hop hop = hop_of(theirs);
  std::optional<ip_address> source = ours.source;
  if (ours.members.empty()) {
    differs("interface ", std::to_string(ours.interface_index), std::to_string(hop.index));
  } else if (const path_member* member = member_of(ours, hop)) {
    source = member->source;
  } else {
    const path_member& chosen = ours.members[ours.chosen];
    out += text_of(chosen.interface_index, chosen.gateway) + ", the kernel's " +
           text_of(hop.index, hop.gateway) + "; ";
  }
  if (!asked.cls.source(family) && ours.type == RTN_UNICAST)
    differs("source ", text_of(source), text_of(theirs.preferred_source));
  if (family == ip_family::v4 && ours.route && !is_cached_by_object(ours))
    differs("hop limit ", std::to_string(ours.route->metrics.hop_limit),
            std::to_string(theirs.metrics.hop_limit));
  return out;
}

/// What an answer to RTM_GETROUTE says; empty where it is none, or cannot be understood.
std::optional<netlink::route_answer> read_answer(const netlink::envelope& reply) {
  std::error_code ec;
  netlink::route_answer answer;
  if (const auto end = netlink::decode_completion(reply, ec)) {
    answer.error_number = end->error_number;
    return answer;
  }
  const auto message = ec ? std::nullopt : netlink::decode(reply.bytes, ec);
  if (!message || !std::holds_alternative<netlink::route>(*message)) return std::nullopt;
  answer.route = std::get<netlink::route>(*message);
  return answer;
}

}  // namespace

netlink::route_query query_of(const flow& asked) {
  netlink::route_query query;
  query.destination = asked.destination;
  query.source = asked.cls.source(asked.destination.family());
  query.output_interface = asked.cls.output_interface;
  query.mark = asked.cls.mark;
  query.tos = asked.cls.tos & dscp_mask;
  query.ip_protocol = asked.cls.ip_protocol;
  if (asked.cls.source_port != 0) query.source_port = asked.cls.source_port;
  if (asked.destination_port != 0) query.destination_port = asked.destination_port;
  query.uid = asked.cls.uid;
  return query;
}

std::string disagreement(const mirror& state, const flow& asked, const resolution& ours,
                         const netlink::route_answer& kernel) {
  std::string out = path_disagreement(state, asked, ours, kernel);
  if (ours.error == 0 && kernel && mtu_disagrees(state, asked, ours, kernel.route)) {
    const mtu_pair mtus = mtus_of(state, asked, ours, kernel.route);
    out +=
        "MTU " + std::to_string(mtus.ours) + ", the kernel's " + std::to_string(mtus.kernel) + "; ";
  }
  if (!out.empty()) out.resize(out.size() - 2);
  return out;
}

// Questions
// -----------------------------------------------------------------------------------------

void truth_audit::ask(const flow& about) {
  const bool known =
      std::ranges::any_of(questions_, [&](const question& q) { return same_flow(q.about, about); });
  if (known || questions_.size() >= questions_max) return;
  const auto host = host_prefix(about.destination);
  if (std::ranges::any_of(diverted_, [&](const auto& d) { return d.first.contains(host); })) return;
  const resolution ours = resolve_by_search(state_, about, route_question::get_route);
  if (ours.divert || ours.error != 0 || ours.type != RTN_UNICAST) return;
  questions_.emplace_back().about = about;
}

std::optional<std::vector<std::byte>> truth_audit::next_request(time_point now) {
  const auto next = std::ranges::find(questions_, true, &question::to_send);
  if (next == questions_.end()) return std::nullopt;
  next->to_send = false;
  next->sequence = ++sequence_;
  next->due = now + answer_timeout;
  auto query = query_of(next->about);
  query.fib_match = next->at == step::matching;
  return netlink::route_request(query, next->sequence);
}

void truth_audit::on_answer_datagram(std::span<const std::byte> datagram, time_point now) {
  std::error_code ec;
  while (const auto reply = netlink::next_envelope(datagram, ec)) {
    const auto asked = std::ranges::find_if(questions_, [&](const question& q) {
      return is_awaiting(q) && q.sequence == reply->sequence;
    });
    if (asked == questions_.end()) continue;
    auto answer = read_answer(*reply);
    if (!answer || !on_answer(*asked, std::move(*answer), now)) questions_.erase(asked);
  }
}

std::string truth_audit::compare(const flow& about, const netlink::route_answer& kernel) const {
  const resolution ours = resolve_by_search(state_, about, route_question::get_route);
  if (ours.divert || ours.error != 0) return {};  // By now it is the kernel's anyhow.
  return disagreement(state_, about, ours, kernel);
}

bool truth_audit::on_answer(question& q, netlink::route_answer&& answer, time_point now) {
  switch (q.at) {
    case step::asked:
      return on_flow_answer(q, std::move(answer), now);
    case step::matching:
      find(q, answer);
      return false;
    case step::recheck:
      if (compare(q.about, answer).empty()) lift(q.where);
      return false;
    case step::settling:
      break;
  }
  return true;
}

bool truth_audit::on_flow_answer(question& q, netlink::route_answer&& answer, time_point now) {
  if (q.rounds++ == 0) {
    ++stats_.audited;
    if (compare(q.about, answer).empty()) return false;
  }
  q.repeated = q.rounds > 1 && same_answer(q.answer, answer);
  q.answer = std::move(answer);
  q.at = step::settling;
  q.due = now + settle_time;
  return true;
}

bool truth_audit::judge(question& q) {
  std::string text = compare(q.about, q.answer);
  if (text.empty() || q.rounds == rounds_max) return false;
  q.standing = q.repeated && text == q.text ? q.standing + 1 : 0;
  q.text = std::move(text);
  q.at = q.standing == standing_enough ? step::matching : step::asked;
  q.to_send = true;
  return true;
}

void truth_audit::on_timer(time_point now, bool settled) {
  std::erase_if(questions_, [&](question& q) {
    if (q.to_send || now < q.due) return false;
    if (is_awaiting(q)) return true;  // The socket has lost the answer.
    return settled && !judge(q);
  });
}

void truth_audit::forget_suspicions() {
  std::erase_if(questions_, [](const question& q) { return q.rounds != 0 || !q.to_send; });
}

// Findings
// -----------------------------------------------------------------------------------------

void truth_audit::find(const question& q, const netlink::route_answer& matched) {
  if (compare(q.about, q.answer).empty()) return;  // It has been set right meanwhile.
  const resolution ours = resolve_by_search(state_, q.about, route_question::get_route);
  const ip_prefix host = host_prefix(q.about.destination);
  const std::string text = text_of(q.about) + ": " + q.text;
  ++stats_.mismatched;
  stats_.last_mismatch = text;
  // The kernel has the same route, and knows more about this one destination.
  const mtu_pair mtus = mtus_of(state_, q.about, ours, q.answer.route);
  if (matched && ours.route && matched.route.metrics.mtu == ours.route->metrics.mtu &&
      path_disagreement(state_, q.about, ours, q.answer).empty() && mtus.kernel < mtus.ours) {
    ++stats_.repaired;
    verdicts_.push_back({verdict::kind::path_mtu, host, mtus.kernel, text});
    return;
  }
  // The longer one of the two routes: neither may be known to the other side.
  ip_prefix where = ours.route ? ours.route->destination : ip_prefix::all(host.family());
  if (matched && matched.route.destination.length() > where.length())
    where = matched.route.destination;
  // The kernel has the same route and answers something else: an exception for one destination.
  const bool same_route = matched && ours.route && !ours.members.empty() &&
                          matched.route.destination == ours.route->destination &&
                          std::ranges::any_of(matched.route.next_hops, [&](const auto& hop) {
                            return member_of(ours, hop) != nullptr;
                          });
  divert(same_route ? host : where, q.about, text);
}

void truth_audit::divert(const ip_prefix& where, const flow& about, const std::string& text) {
  if (std::ranges::any_of(diverted_, [&](const auto& d) { return d.first.contains(where); }))
    return;
  const ip_prefix place = diverted_.size() < diverted_max ? where : ip_prefix::all(where.family());
  diverted_.emplace(place, about);
  stats_.quarantined = diverted_.size();
  verdicts_.push_back({verdict::kind::divert, place, 0, text});
}

void truth_audit::on_resynced() {
  std::erase_if(questions_, [](const question& q) { return q.at == step::recheck; });
  for (const auto& [where, about] : diverted_) {
    question& q = questions_.emplace_back();
    q.about = about;
    q.at = step::recheck;
    q.where = where;
  }
}

void truth_audit::lift(const ip_prefix& where) {
  if (diverted_.erase(where) == 0) return;
  ++stats_.repaired;
  stats_.quarantined = diverted_.size();
  verdicts_.push_back({verdict::kind::lift, where, 0, {}});
}

std::optional<truth_audit::verdict> truth_audit::next_verdict() {
  if (verdicts_.empty()) return std::nullopt;
  verdict next = std::move(verdicts_.front());
  verdicts_.pop_front();
  return next;
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/path_exceptions.hpp>
#include <cowire/follow/detail/truth_audit.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/route/agreement.hpp>
#include <cowire/route/outer_questions.hpp>
#include <cowire/route/resolve_by_search.hpp>

#include <algorithm>
#include <utility>

namespace cowire::detail {
namespace {

/// A kernel that goes on changing its mind is left alone: its notifications are on their way.
constexpr int rounds_max = 16;
/// A route that flaps could by chance be seen on the other foot once or twice.
constexpr int standing_enough = 2;

ip_prefix host_prefix(const ip_address& address) { return {address, address.bits()}; }

bool same_flow(const flow& left, const flow& right) {
  return left.destination == right.destination && left.destination_port == right.destination_port &&
         left.cls == right.cls;
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

/// Whether the two are one answer given twice.
bool same_answer(const netlink::route_answer& left, const netlink::route_answer& right) {
  const auto& l = left.route;
  const auto& r = right.route;
  return left.error_number == right.error_number && l.type == r.type && l.table == r.table &&
         l.next_hops == r.next_hops && l.preferred_source == r.preferred_source &&
         l.metrics == r.metrics;
}

}  // namespace

std::optional<netlink::route_answer> read_route_answer(const netlink::envelope& reply) {
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

// Questions
// -----------------------------------------------------------------------------------------

void truth_audit::ask(const flow& about) {
  const bool known =
      std::ranges::any_of(questions_, [&](const question& q) { return same_flow(q.about, about); });
  if (known || questions_.size() >= questions_max) return;
  const auto host = host_prefix(about.destination);
  if (std::ranges::any_of(diverted_, [&](const auto& d) { return d.first.contains(host); })) return;
  const resolution ours = resolve_by_search(state_, about, route_question::get_route);
  if (is_left_to_kernel(ours) || next_hop_is_unresolved(state_, about, ours)) return;
  questions_.emplace_back().about = about;
}

void truth_audit::ask_below(const flow& about) {
  constexpr int tunnels_max = 2;  // More are not built (tunnel_depth).
  std::optional<flow> outer = about;
  for (int i = 0; i < tunnels_max; ++i) {
    outer = outer_question_below(state_, *outer);
    if (!outer) return;
    ask(*outer);
  }
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
    auto answer = read_route_answer(*reply);
    if (!answer || !on_answer(*asked, std::move(*answer), now)) questions_.erase(asked);
  }
}

std::string truth_audit::compare(const flow& about, const netlink::route_answer& kernel) const {
  const resolution ours = resolve_by_search(state_, about, route_question::get_route);
  // By now it may be the kernel's anyhow.
  if (is_left_to_kernel(ours) || next_hop_is_unresolved(state_, about, ours)) return {};
  return compare_answers(state_, about, ours, kernel).text();
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
    const std::string text = compare(q.about, answer);
    if (text.empty()) return false;
    if (shows_exception(answer) || state_.find_path_exception(q.about.destination) != nullptr)
      tell_exception(q.about, answer, text);
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
  const bool told = matched && match_is_told(ours);
  // The longer one of the two routes: neither may be known to the other side.
  ip_prefix where = ours.route ? ours.route->destination : ip_prefix::all(host.family());
  const bool shows_other = matched && (told || !ours.route);
  if (shows_other && matched.route.destination.length() > where.length())
    where = matched.route.destination;
  // The kernel has the same route and answers something else: an exception for one destination.
  const bool same_route =
      told && !ours.members.empty() && matched.route.destination == ours.route->destination &&
      std::ranges::any_of(matched.route.next_hops,
                          [&](const auto& hop) { return member_of(ours, hop) != nullptr; });
  divert(same_route ? host : where, q.about, text);
}

void truth_audit::tell_exception(const flow& about, const netlink::route_answer& kernel,
                                 const std::string& text) {
  ++stats_.mismatched;
  ++stats_.repaired;
  stats_.last_mismatch = text_of(about) + ": " + text;
  const std::uint32_t mtu = shows_exception(kernel) ? kernel.route.metrics.mtu : 0;
  findings_.push_back(
      {finding::kind::exception, host_prefix(about.destination), mtu, stats_.last_mismatch});
}

void truth_audit::divert(const ip_prefix& where, const flow& about, const std::string& text) {
  if (std::ranges::any_of(diverted_, [&](const auto& d) { return d.first.contains(where); }))
    return;
  const ip_prefix place = diverted_.size() < diverted_max ? where : ip_prefix::all(where.family());
  diverted_.emplace(place, about);
  stats_.quarantined = diverted_.size();
  findings_.push_back({finding::kind::divert, place, 0, text});
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
  findings_.push_back({finding::kind::lift, where, 0, {}});
}

std::optional<truth_audit::finding> truth_audit::next_finding() {
  if (findings_.empty()) return std::nullopt;
  finding next = std::move(findings_.front());
  findings_.pop_front();
  return next;
}

}  // namespace cowire::detail

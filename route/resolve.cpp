// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/decision.hpp>
#include <cowire/route/detail/path_facts.hpp>
#include <cowire/route/multipath_hash.hpp>
#include <cowire/route/resolve.hpp>
#include <cowire/route/resolve_by_search.hpp>

namespace cowire {
namespace {

resolution resolve_with(detail::cover_search search, const mirror& state, const flow& question,
                        route_question as, const std::vector<std::uint32_t>* tables = nullptr) {
  detail::decider decider(state, search, tables);
  detail::decision_question asked;
  asked.cls = &question.cls;
  asked.region = ip_prefix(question.destination, question.destination.bits());
  asked.destination_port = question.destination_port;
  asked.as = as;
  const detail::decision& decided = decider.decide(asked);

  resolution answer;
  answer.error = decided.error;
  answer.divert = decided.divert;
  answer.type = decided.type;
  answer.table = decided.table;
  if (decided.entry != nullptr) answer.route = decided.entry->route_to(decided.matched);
  answer.interface_index = decided.interface_index;
  answer.members = decided.members;
  answer.shares = decided.shares;
  answer.source = decided.source;
  if (answer.error != 0) return answer;
  if (answer.shares.size() > 1) {
    const ip_family family = question.destination.family();
    const ip_address source = question.cls.source(family).value_or(ip_address::any(family));
    const multipath_hash hash_of =
        multipath_hash_of(state.settings(), family, question.cls.ip_protocol);
    const std::uint32_t hash =
        hash_of(source, question.destination, be16::from_host(question.cls.source_port),
                be16::from_host(question.destination_port));
    const path_share& share = share_of(answer.shares, hash);
    if (share.is_known())
      answer.chosen = share.member;
    else if (!answer.divert)
      answer.divert = divert_reason::resilient_group;
    const mirror_settings& settings = state.settings();
    const auto& multipath = family == ip_family::v4 ? settings.multipath_v4 : settings.multipath_v6;
    // Under policy 3 RTM_GETROUTE hashes the hash once more; sockets do not.
    answer.choice_known =
        settings.multipath_hash_seed != 0 && (multipath.policy != 3 || as == route_question::send);
  } else if (!answer.shares.empty()) {
    answer.chosen = answer.shares.front().member;
  }
  if (answer.chosen < answer.members.size()) {
    answer.interface_index = answer.members[answer.chosen].interface_index;
    answer.source = answer.members[answer.chosen].source;
  }
  const detail::path_facts facts =
      detail::path_facts_of(state, decided, answer.interface_index, asked.region, question.cls);
  answer.mtu = facts.mtu;
  answer.mtu_locked = facts.needs_identification;
  answer.hop_limit = facts.hop_limit;
  return answer;
}

}  // namespace

resolution resolve(const mirror& state, const flow& question, route_question as) {
  return resolve_with(detail::covers_by_walk, state, question, as);
}

resolution resolve_by_search(const mirror& state, const flow& question, route_question as,
                             const std::vector<std::uint32_t>* tables) {
  return resolve_with(detail::covers_by_search, state, question, as, tables);
}

}  // namespace cowire

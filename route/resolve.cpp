// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/decision.hpp>
#include <cowire/route/detail/path_facts.hpp>
#include <cowire/route/resolve.hpp>

#include <cstring>
#include <span>
#include <utility>

namespace cowire {
namespace {

std::uint64_t rotate(std::uint64_t x, int by) noexcept { return std::rotl(x, by); }

/// SipHash-2-4 with both halves of the key equal, over whole 8-byte words.
std::uint64_t siphash(std::uint64_t key, std::span<const std::byte> message) noexcept {
  std::uint64_t v0 = key ^ 0x736f6d6570736575, v1 = key ^ 0x646f72616e646f6d;
  std::uint64_t v2 = key ^ 0x6c7967656e657261, v3 = key ^ 0x7465646279746573;
  const auto rounds = [&](int n) {
    while (n-- > 0) {
      v0 += v1, v1 = rotate(v1, 13) ^ v0, v0 = rotate(v0, 32);
      v2 += v3, v3 = rotate(v3, 16) ^ v2;
      v0 += v3, v3 = rotate(v3, 21) ^ v0;
      v2 += v1, v1 = rotate(v1, 17) ^ v2, v2 = rotate(v2, 32);
    }
  };
  const auto absorb = [&](std::uint64_t word) {
    v3 ^= word;
    rounds(2);
    v0 ^= word;
  };
  for (std::size_t i = 0; i < message.size(); i += 8) {
    std::uint64_t word;
    std::memcpy(&word, message.data() + i, 8);
    absorb(word);
  }
  absorb(std::uint64_t{message.size()} << 56);
  v2 ^= 0xff;
  rounds(4);
  return v0 ^ v1 ^ v2 ^ v3;
}

/// Both directions of a flow hash alike: addresses and ports are ordered, each as the kernel
/// compares them (IPv4 addresses and ports as little-endian numbers, IPv6 addresses as bytes).
bool addresses_swap(const ip_address& source, const ip_address& destination) noexcept {
  if (source.is_v6()) return destination.bytes() < source.bytes();
  std::uint32_t from, to;
  std::memcpy(&from, source.bytes().data(), 4);
  std::memcpy(&to, destination.bytes().data(), 4);
  return to < from;
}

}  // namespace

std::uint32_t multipath_hash(const mirror_settings& settings, const multipath_flow& flow) noexcept {
  const bool v4 = flow.destination.is_v4();
  const bool with_ports =
      (v4 ? settings.ipv4_multipath_hash_policy : settings.ipv6_multipath_hash_policy) == 1;
  ip_address source = flow.source, destination = flow.destination;
  if (addresses_swap(source, destination)) std::swap(source, destination);
  be16 source_port = be16::from_host(flow.source_port),
       destination_port = be16::from_host(flow.destination_port);
  if (destination_port.raw < source_port.raw) std::swap(source_port, destination_port);

  // struct flow_keys from its `basic` member on, padded to whole words.
  constexpr std::size_t protocol_at = 2, ports_at = 28, addresses_at = 36;
  std::byte message[80] = {};
  if (with_ports || !v4) message[protocol_at] = std::byte{flow.protocol};
  if (with_ports) {
    std::memcpy(message + ports_at, &source_port, 2);
    std::memcpy(message + ports_at + 2, &destination_port, 2);
  }
  const std::size_t size = destination.size();
  std::memcpy(message + addresses_at, source.bytes().data(), size);
  std::memcpy(message + addresses_at + size, destination.bytes().data(), size);
  const std::uint64_t seed = settings.multipath_hash_seed;
  const auto hash =
      static_cast<std::uint32_t>(siphash(seed << 32 | seed, {message, v4 ? 48u : 80u}));
  return (hash == 0 ? 1 : hash) >> 1;
}

resolution resolve(const mirror& state, const flow& question, route_question as) {
  detail::decider decider(state, detail::covers_by_walk);
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
  if (decided.entry != nullptr) answer.route = decided.entry->route;
  answer.interface_index = decided.interface_index;
  answer.members = decided.members;
  answer.shares = decided.shares;
  answer.source = decided.source;
  if (answer.error != 0) return answer;
  if (answer.shares.size() > 1) {
    const ip_family family = question.destination.family();
    const ip_address source = question.cls.source(family).value_or(ip_address::any(family));
    const std::uint32_t hash =
        multipath_hash(state.settings(), {source, question.destination, question.cls.ip_protocol,
                                          question.cls.source_port, question.destination_port});
    std::size_t i = 0;
    while (i + 1 < answer.shares.size() && answer.shares[i].bound < hash) ++i;
    answer.chosen = answer.shares[i].member;
    const std::uint8_t policy = family == ip_family::v4
                                    ? state.settings().ipv4_multipath_hash_policy
                                    : state.settings().ipv6_multipath_hash_policy;
    answer.choice_known = state.settings().multipath_hash_seed != 0 && policy < 3;
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

}  // namespace cowire

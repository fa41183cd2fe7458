// SPDX-License-Identifier: Apache-2.0
#include "published_view.hpp"

#include <cowire/route/mirror.hpp>

#include <algorithm>
#include <cstdio>
#include <set>
#include <span>

namespace cowire::testing {
namespace {

std::string hexadecimal(std::span<const std::byte> bytes) {
  std::string out;
  for (const std::byte one : bytes) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", std::to_integer<unsigned>(one));
    out += digits;
  }
  return out;
}

std::string describe_hop(const hop& h) {
  return h.egress == divert_slot
             ? "divert " + std::string(name(h.reason))
             : "slot " + std::to_string(h.egress) + " max " + std::to_string(h.max_payload) +
                   " header " + hexadecimal(h.header);
}

}  // namespace

std::string compiled::disagreement(std::size_t which, const ip_address& to,
                                   std::uint16_t port) const {
  const forwarding_table& table = *published_.current();
  const auto& [id, cls] = classes_[which % classes_.size()];
  const explanation expected = made_.explain({cls, to, port});
  const auto source = cls.source(to.family()).value_or(ip_address::any(to.family()));
  const auto hash = (to.is_v4() ? table.hash_v4 : table.hash_v6)(
      source, to, be16::from_host(cls.source_port), be16::from_host(port));
  const hop& seen = hop_of(member_for(path_of(id, to), hash));
  // One flow knows its destination port, a class does not.
  if (seen.reason == divert_reason::unsupported_rule && seen.egress == divert_slot) return {};
  if (seen == expected.template_hop) return {};
  return "class " + std::to_string(id) + " to " + to.to_string() + ": compiled " +
         describe_hop(seen) + ", resolved " + describe_hop(expected.template_hop);
}

std::string compiled::difference(const compiled& other, const ip_address& to) const {
  for (std::size_t i = 0; i < classes_.size(); ++i) {
    const auto mine = members_of(path_of(classes_[i].first, to));
    const auto theirs = other.members_of(other.path_of(other.classes_[i].first, to));
    const bool same = std::ranges::equal(mine, theirs, [&](auto a, auto b) {
      return a.bound == b.bound && hop_of(a.hop) == other.hop_of(b.hop);
    });
    if (!same)
      return "class " + std::to_string(classes_[i].first) + " to " + to.to_string() + ": " +
             describe_hop(hop_of(mine.front().hop)) + ", from scratch " +
             describe_hop(other.hop_of(theirs.front().hop));
  }
  return {};
}

std::vector<ip_address> boundaries(const mirror& state) {
  std::set<ip_address> all;
  const auto add = [&](const ip_prefix& prefix) {
    for (const ip_address& end : {prefix.address(), prefix.last()}) {
      all.insert(end);
      for (const int step : {-1, 1}) {
        auto bytes = end.bytes();
        int carry = step;
        for (std::size_t i = end.size(); i-- > 0 && carry != 0;) {
          const int sum = bytes[i] + carry;
          bytes[i] = static_cast<std::uint8_t>(sum);
          carry = sum < 0 ? -1 : sum > 255 ? 1 : 0;
        }
        all.insert(ip_address::from_bytes(end.family(), bytes.data()));
      }
    }
  };
  for (const ip_family family : ip_families) {
    for (const auto& [id, table] : state.tables(family))
      for (const auto& [prefix, entries] : table) add(prefix);
    for (const netlink::rule& rule : state.rules(family))
      if (rule.to) add(*rule.to);
  }
  for (const auto& [index, device] : state.devices())
    for (const netlink::address& own : device.v6) add({own.local, own.prefix_length});
  state.for_each_neighbour([&](const netlink::neighbour& neighbour) {
    add({neighbour.destination, neighbour.destination.bits()});
  });
  return {all.begin(), all.end()};
}

}  // namespace cowire::testing

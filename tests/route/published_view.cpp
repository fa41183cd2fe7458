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
  const path_list& path = path_of(id, to);
  const auto terms = [&] {
    return slave_terms_of(to, be16::from_host(cls.source_port), be16::from_host(port));
  };
  const hop& seen =
      hop_of(path.count == 1 ? path.index : select_hop(table, path, terms, [&] { return hash; }));
  // One flow knows its destination port, a class does not.
  if (seen.reason == divert_reason::unsupported_rule && seen.egress == divert_slot) return {};
  if (seen == expected.template_hop) return {};
  return "class " + std::to_string(id) + " to " + to.to_string() + ": compiled " +
         describe_hop(seen) + ", resolved " + describe_hop(expected.template_hop);
}

void compiled::add_slaves(std::vector<choice>& to, std::uint32_t group, std::size_t count) const {
  const std::span members(published_.current()->groups[group], count);
  for (const hop_group_member& one : members) to.push_back({one, &one == members.data()});
}

std::vector<compiled::choice> compiled::choices_of(const path_list& path) const {
  if (path.count == 1) return {{{0x7fffffff, path.index}}};
  const forwarding_table& table = *published_.current();
  std::vector<choice> all;
  if (path.kind == group_kind::by_slave) {
    add_slaves(all, path.index, path.count);
    return all;
  }
  for (const hop_group_member& one : std::span(table.groups[path.index], path.count)) {
    const bool slaves = (one.hop & hop_group_member::slave_group) != 0;
    const std::uint32_t group = one.hop & ~hop_group_member::slave_group;
    all.push_back({{one.bound, slaves ? hop_group_member::slave_group : one.hop}, slaves});
    if (slaves) add_slaves(all, group, table.group_sizes[group]);
  }
  return all;
}

std::string compiled::difference(const compiled& other, const ip_address& to) const {
  for (std::size_t i = 0; i < classes_.size(); ++i) {
    const auto mine = choices_of(path_of(classes_[i].first, to));
    const auto theirs = other.choices_of(other.path_of(other.classes_[i].first, to));
    const auto same = [&](const choice& a, const choice& b) {
      return a.member.bound == b.member.bound && a.is_rule == b.is_rule &&
             (a.is_rule ? a.member.hop == b.member.hop
                        : hop_of(a.member.hop) == other.hop_of(b.member.hop));
    };
    if (std::ranges::equal(mine, theirs, same)) continue;
    const auto shown = [](const compiled& view, const std::vector<choice>& of) {
      return describe_hop(view.hop_of(std::ranges::find(of, false, &choice::is_rule)->member.hop));
    };
    return "class " + std::to_string(classes_[i].first) + " to " + to.to_string() + ": " +
           shown(*this, mine) + ", from scratch " + shown(other, theirs);
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

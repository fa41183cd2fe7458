// SPDX-License-Identifier: Apache-2.0
// Destinations that rules tell apart, from comparisons and sets to the published table.
#include "tests/route/world.hpp"

#include <cowire/route/compiler.hpp>
#include <cowire/route/detail/address_set.hpp>
#include <cowire/route/detail/zone_map.hpp>
#include <cowire/route/rules.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <random>

namespace cowire::testing {
namespace {

namespace nft = netlink::nft;
namespace ex = netlink::nft::expressions;
using detail::address_number;
using detail::address_set;

// ---- sets of addresses --------------------------------------------------------------------------

/// Of a space of 256 addresses, one by one.
using plain_set = std::array<bool, 256>;

address_set random_set(std::mt19937_64& random, plain_set& same, unsigned intervals) {
  std::vector<address_set::interval> all;
  for (unsigned i = 0; i < intervals; ++i) {
    const auto first = static_cast<unsigned>(random() % 256);
    const auto last = std::min(255u, first + static_cast<unsigned>(random() % 6));
    all.push_back({first, last});
    for (unsigned n = first; n <= last; ++n) same[n] = true;
  }
  return address_set(std::move(all));
}

void expect_apart(const address_set& set) {
  std::size_t count = 0;
  const address_set::interval* before = nullptr;
  for (const address_set::interval& one : set.intervals()) {
    ASSERT_LE(one.first, one.last);
    if (before != nullptr) {
      ASSERT_GT(one.first, before->last + 1) << "intervals touch";
    }
    before = &one;
    ++count;
  }
  ASSERT_EQ(count, set.size());
}

void expect_same(const address_set& set, const plain_set& plain) {
  for (unsigned n = 0; n < 256; ++n) ASSERT_EQ(set.contains(n), plain[n]) << n;
  expect_apart(set);
}

TEST(address_set, does_what_sets_do_and_leaves_copies_alone) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    plain_set a{}, b{}, both{}, left{}, either{};
    const unsigned many = static_cast<unsigned>(random() % 60),
                   few = static_cast<unsigned>(random() % 3);
    address_set x = random_set(random, a, round % 2 ? many : few);
    const address_set y = random_set(random, b, round % 3 ? few : many), before = x;
    for (unsigned n = 0; n < 256; ++n) {
      both[n] = a[n] && b[n];
      left[n] = a[n] && !b[n];
      either[n] = a[n] || b[n];
    }
    expect_same(x.intersection(y), both);
    address_set united = x;
    united.unite(y);
    expect_same(united, either);
    expect_same(x.extract(y), both);
    expect_same(x, left);
    expect_same(before, a);
    if (HasFatalFailure()) FAIL() << "round " << round;
  }
}

/// So many that they lie in many pieces, from which and to which little is taken and added.
TEST(address_set, of_many_intervals_changes_in_the_middle_and_across_pieces) {
  constexpr std::size_t space = 30'000;
  std::mt19937_64 random(3);
  std::vector<bool> plain(space);
  std::vector<address_set::interval> all;
  for (std::size_t at = 0; at < space; at += 4) {
    all.push_back({at, at + 1});
    plain[at] = plain[at + 1] = true;
  }
  address_set set(std::move(all));
  for (int change = 0; change < 4000; ++change) {
    const std::size_t longest = change % 50 == 0 ? 4000 : 12;
    const std::size_t first = random() % space,
                      last = std::min(space - 1, first + random() % longest);
    const address_set one(address_set::interval{first, last});
    const bool add = random() % 2 != 0;
    for (std::size_t n = first; n <= last; ++n) plain[n] = add;
    const address_set before = set;
    if (add)
      set.unite(one);
    else
      set.remove(one);
    if (change % 100 != 0) continue;
    expect_apart(set);
    for (std::size_t n = 0; n < space; ++n) ASSERT_EQ(set.contains(n), plain[n]) << n;
    address_set again = before;
    add ? again.unite(one) : again.remove(one);
    ASSERT_EQ(again, set) << "change " << change;
  }
  set.remove(address_set(address_set::interval{0, space}));
  EXPECT_TRUE(set.empty());
}

TEST(address_set, ends_of_the_address_space_are_addresses_like_others) {
  for (const ip_family family : ip_families) {
    address_set all(ip_prefix::all(family));
    const address_number last = detail::highest_number(family);
    EXPECT_TRUE(all.contains(0) && all.contains(last));
    all.remove(address_set(address_set::interval{last, last}));
    all.remove(address_set(address_set::interval{0, 0}));
    EXPECT_FALSE(all.contains(0) || all.contains(last));
    all.unite(address_set(address_set::interval{0, 0}));
    all.unite(address_set(address_set::interval{last, last}));
    EXPECT_EQ(all, address_set(ip_prefix::all(family)));
    EXPECT_EQ(detail::number_of(detail::address_of(family, last)), last);
  }
}

// ---- zones as prefixes --------------------------------------------------------------------------

detail::zone_id zone_in(const std::vector<detail::zone_prefix>& prefixes, const ip_address& at) {
  detail::zone_id found = 0;
  unsigned longest = 0;
  for (const auto& one : prefixes) {
    if (!one.prefix.contains(ip_prefix(at, at.bits())) || one.prefix.length() < longest) continue;
    longest = one.prefix.length();
    found = one.zone;
  }
  return found;
}

TEST(zone_map, prefixes_say_what_the_pieces_say) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 300; ++round) {
    const ip_family family = round % 2 ? ip_family::v4 : ip_family::v6;
    std::map<address_number, detail::zone_id> starts{{0, 1}};
    for (auto n = random() % 12; n > 0; --n) {
      const address_number at = address_number{random() % 4096} * (round % 3 ? 1 : 1 << 20);
      starts[at] = 1 + static_cast<detail::zone_id>(random() % 3);
      starts.try_emplace(at + 1 + random() % 4, 1);
    }
    std::vector<detail::zone_piece> pieces;
    for (const auto& [first, zone] : starts) pieces.push_back({first, zone});
    const auto prefixes = detail::prefixes_of(family, pieces);
    EXPECT_TRUE(std::ranges::is_sorted(prefixes));
    if (prefixes.empty()) continue;
    EXPECT_EQ(prefixes.front().prefix, ip_prefix::all(family));
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const address_number last =
          i + 1 < pieces.size() ? pieces[i + 1].first - 1 : detail::highest_number(family);
      for (const address_number at : {pieces[i].first, last})
        ASSERT_EQ(zone_in(prefixes, detail::address_of(family, at)), pieces[i].zone)
            << "round " << round << ", piece " << i;
    }
  }
}

TEST(zone_map, holes_in_a_wide_range_cost_one_prefix_each) {
  std::vector<detail::zone_piece> pieces{{0, 1}, {0x0a000000, 2}};
  for (address_number hole = 0x0a000100; hole < 0x0a008000; hole += 0x100) {
    pieces.push_back({hole, 1});
    pieces.push_back({hole + 1, 2});
  }
  pieces.push_back({0x0b000000, 1});
  EXPECT_EQ(detail::prefixes_of(ip_family::v4, pieces).size(), 2 + 127);
}

// ---- from rules to the table --------------------------------------------------------------------

nft::bytes bytes_of(const ip_address& address) {
  nft::bytes out(address.size());
  std::memcpy(out.data(), address.bytes().data(), out.size());
  return out;
}

nft::expression load_destination(ip_family family) {
  const bool v4 = family == ip_family::v4;
  return {
      "payload", ex::payload_load{0, ex::payload_base::network, v4 ? 16u : 24u, v4 ? 4u : 16u}, {}};
}
nft::expression say(std::int32_t code) {
  return {"immediate", ex::immediate{ex::verdict_register, nft::verdict{code, {}}}, {}};
}

/// A chain of hook output of this family, to which rules about destinations are added.
class rule_maker {
 public:
  explicit rule_maker(ip_family family) : family_(family), in_(nft_family()) {
    rules_.tables[{in_, "t", {}}] = {in_, "t", 0};
    auto& made = rules_.chains[{in_, "t", "o"}].chain;
    made.family = in_;
    made.table = "t";
    made.name = "o";
    made.type = "filter";
    made.hook = nft::chain_hook{3, 0, {}};
  }
  nft::ruleset& rules() { return rules_; }
  [[nodiscard]] std::shared_ptr<const output_snapshot> snapshot() const {
    auto made = std::make_shared<output_snapshot>();
    made->netfilter.rules = rules_;
    made->netfilter.hooks.emplace();
    made->netfilter.hooks->push_back({family_, "nft_do_chain_ipv4"});
    return made;
  }
  void add(std::vector<nft::expression> expressions) {
    auto& chain = rules_.chains[{in_, "t", "o"}];
    chain.rules.push_back({in_, "t", "o", chain.rules.size() + 1, std::move(expressions), false});
  }
  void add_prefix(const ip_prefix& prefix, bool inverted, std::int32_t verdict) {
    nft::bytes mask(prefix.address().size());
    for (unsigned bit = 0; bit < prefix.length(); ++bit)
      mask[bit / 8] |= std::byte(0x80 >> bit % 8);
    const auto size = static_cast<std::uint32_t>(mask.size());
    add({load_destination(family_),
         {"bitwise", ex::bitwise{0, 0, size, mask, nft::bytes(size)}, {}},
         {"cmp",
          ex::compare{0, inverted ? ex::compare::not_equal : ex::compare::equal,
                      bytes_of(prefix.address())},
          {}},
         say(verdict)});
  }
  void add_range(const ip_address& low, const ip_address& high, std::int32_t verdict) {
    add({load_destination(family_),
         {"range", ex::range{0, false, bytes_of(low), bytes_of(high)}, {}},
         say(verdict)});
  }
  nft::ruleset::set_contents& add_set(const std::string& name, std::uint32_t flags = 0) {
    auto& made = rules_.sets[{in_, "t", name}];
    made.set = {in_, "t", name, flags, family_ == ip_family::v4 ? 4u : 16u, false, {}, false};
    return made;
  }
  void add_lookup(const std::string& set, bool inverted, std::int32_t verdict) {
    add({load_destination(family_),
         {"lookup", ex::lookup{set, 0, {}, inverted}, {}},
         say(verdict)});
  }
  void add_port_lookup(const std::string& set) {
    add({{"payload", ex::payload_load{0, ex::payload_base::transport, 2, 2}, {}},
         {"lookup", ex::lookup{set, 0, {}, false}, {}},
         say(nft::verdict::drop)});
  }
  void add_verdict_map(const std::string& set) {
    add({load_destination(family_),
         {"lookup", ex::lookup{set, 0, ex::verdict_register, false}, {}}});
  }
  static nft::bytes bytes_of_port(std::uint16_t port) {
    return {std::byte(port >> 8), std::byte(port & 0xff)};
  }
  /// Of one destination, or of any.
  void add_ports(std::uint16_t low, std::uint16_t high, std::int32_t verdict,
                 const ip_address* to = nullptr) {
    std::vector<nft::expression> all;
    if (to != nullptr) {
      all.push_back(load_destination(family_));
      all.push_back({"cmp", ex::compare{0, ex::compare::equal, bytes_of(*to)}, {}});
    }
    all.push_back({"payload", ex::payload_load{0, ex::payload_base::transport, 2, 2}, {}});
    all.push_back({"range", ex::range{0, false, bytes_of_port(low), bytes_of_port(high)}, {}});
    all.push_back(say(verdict));
    add(std::move(all));
  }
  static nft::element element(const ip_address& key, decltype(nft::element::value) value = {}) {
    return {bytes_of(key), {}, std::move(value), false, false, false};
  }

 private:
  [[nodiscard]] nft::family nft_family() const {
    return family_ == ip_family::v4 ? nft::family::ipv4 : nft::family::ipv6;
  }
  const ip_family family_;
  const nft::family in_;
  nft::ruleset rules_;
};

struct bench {
  explicit bench(const mirror& state) : made(state, epoch, published) {
    for (const auto& [index, slot] : {std::pair{2u, 1}, {3u, 2}, {4u, 3}})
      made.set_egress(index, static_cast<egress_slot>(slot));
  }
  [[nodiscard]] const hop& look_up(flow_class_id id, const ip_address& to) const {
    const forwarding_table* table = published.current();
    const auto& tries = table->table_of(id);
    const path_list& list = table->path_list_of(to.is_v4() ? tries.v4.lookup(to_key4(to))
                                                           : tries.v6.lookup(to_key6(to)));
    return table->hops[list.count == 1 ? list.index : table->groups[list.index][0].hop];
  }
  epoch_domain epoch;
  publisher published;
  compiler made;
};

/// A default route over u2, resolved, of both families.
mirror world_with_default_route() {
  mirror state = small_world();
  mirror_changes changes;
  state.apply(route_via(net("0.0.0.0/0"), "10.2.0.2", 2), changes, message_origin::notification);
  state.apply(neighbour(2, ip("10.2.0.2")), changes, message_origin::notification);
  state.apply(route_via(net("::/0"), "fd00:2::2", 2), changes, message_origin::notification);
  state.apply(neighbour(2, ip("fd00:2::2")), changes, message_origin::notification);
  // Made by the kernel, which small_world() does not say.
  const netlink::rule& local = initial_rules(ip_family::v4).front();
  state.apply(removal(rule_to_table(ip_family::v4, local.priority, local.table)), changes,
              message_origin::notification);
  state.apply(local, changes, message_origin::notification);
  return state;
}

TEST(output_regions, a_rule_for_one_destination_diverts_only_that_one) {
  const mirror state = world_with_default_route();
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  static_cast<void>(b.made.publish());
  ASSERT_EQ(b.look_up(id, ip("20.1.2.3")).egress, 1);
  rule_maker rules(ip_family::v4);
  rules.add_prefix(net("20.1.2.3/32"), false, nft::verdict::drop);
  b.made.set_output(rules.snapshot());
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.look_up(id, ip("20.1.2.3")).reason, divert_reason::netfilter);
  for (const char* other : {"20.1.2.2", "20.1.2.4", "1.1.1.1", "250.0.0.1", "fd00:9::1"})
    EXPECT_EQ(b.look_up(id, ip(other)).egress, 1) << other;
  const auto told = b.made.explain({{}, ip("20.1.2.3"), 9000});
  EXPECT_EQ(told.output.obstacle, "table ip t, chain o, rule 1: drop");
  EXPECT_TRUE(b.made.explain({{}, ip("20.1.2.4"), 9000}).output.untouched());
  b.made.set_output(rule_maker(ip_family::v4).snapshot());
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.look_up(id, ip("20.1.2.3")).egress, 1);
}

/// Local addresses are dropped, by what fib says of the destination's type.
std::shared_ptr<const output_snapshot> without_local_destinations() {
  constexpr std::uint32_t local = 2;  // RTN_LOCAL
  nft::bytes type(sizeof local);
  std::memcpy(type.data(), &local, sizeof local);
  rule_maker rules(ip_family::v4);
  rules.add({{"fib", ex::fib{0, ex::fib::result_type, ex::fib::of_destination}, {}},
             {"cmp", ex::compare{0, ex::compare::equal, type}, {}},
             say(nft::verdict::drop)});
  return rules.snapshot();
}

TEST(output_regions, what_is_sent_may_be_local_once_another_rule_comes_before_the_local_table) {
  mirror state = world_with_default_route();
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  b.made.set_output(without_local_destinations());
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.look_up(id, ip("10.3.0.1")).reason, divert_reason::local_destination);
  EXPECT_EQ(b.look_up(id, ip("20.1.2.3")).egress, 1);
  constexpr std::uint32_t other_table = 100;
  const netlink::rule first = initial_rules(ip_family::v4).front();
  const netlink::rule later = rule_to_table(ip_family::v4, 100, first.table);
  netlink::rule own_first = rule_to_table(ip_family::v4, 10, other_table);
  own_first.to = net("10.3.0.1/32");
  const auto route = route_via(net("0.0.0.0/0"), "10.2.0.2", 2, other_table);
  const auto change = [&](const auto& message) {
    mirror_changes changes;
    state.apply(message, changes, message_origin::notification);
    b.made.note(std::move(changes));
    static_cast<void>(b.made.publish());
  };
  change(route);
  change(later);
  change(own_first);
  EXPECT_EQ(b.look_up(id, ip("10.3.0.1")).reason, divert_reason::local_destination);
  change(removal(first));
  EXPECT_EQ(b.look_up(id, ip("10.3.0.1")).reason, divert_reason::netfilter);
  EXPECT_FALSE(b.made.explain({{}, ip("10.3.0.1"), 9000}).output.untouched());
  change(first);
  EXPECT_EQ(b.look_up(id, ip("10.3.0.1")).reason, divert_reason::local_destination);
  EXPECT_EQ(b.look_up(id, ip("20.1.2.3")).egress, 1);
}

/// As udp_sendmsg() routes them; fib knows nothing of the socket's device.
TEST(output_regions, what_a_socket_bound_to_a_device_sends_may_be_an_address_of_another_device) {
  const mirror state = world_with_default_route();
  bench b(state);
  flow_class bound;
  bound.output_interface = 2;
  const flow_class_id any = b.made.add_class({}), one = b.made.add_class(bound);
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.look_up(any, ip("10.3.0.1")).reason, divert_reason::local_destination);
  EXPECT_EQ(b.look_up(one, ip("10.3.0.1")).egress, 1);
  b.made.set_output(without_local_destinations());
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.look_up(one, ip("10.3.0.1")).reason, divert_reason::netfilter);
  EXPECT_EQ(b.look_up(any, ip("20.1.2.3")).egress, 1);
}

TEST(output_regions, accepted_destinations_pass_what_drops_all_others) {
  const mirror state = world_with_default_route();
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  rule_maker rules(ip_family::v4);
  rules.add_range(ip("20.0.0.3"), ip("20.0.0.9"), nft::verdict::accept);
  rules.add_prefix(net("21.0.0.0/8"), true, nft::verdict::drop);
  b.made.set_output(rules.snapshot());
  static_cast<void>(b.made.publish());
  for (const char* fast : {"20.0.0.3", "20.0.0.9", "21.0.0.0", "21.255.255.255"})
    EXPECT_EQ(b.look_up(id, ip(fast)).egress, 1) << fast;
  for (const char* dropped : {"20.0.0.2", "20.0.0.10", "20.255.255.255", "22.0.0.0", "1.2.3.4"})
    EXPECT_EQ(b.look_up(id, ip(dropped)).reason, divert_reason::netfilter) << dropped;
}

TEST(output_regions, a_verdict_map_divides_by_what_each_element_says) {
  const mirror state = world_with_default_route();
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  rule_maker rules(ip_family::v6);
  auto& map = rules.add_set("m", nft::set_map);
  map.set.maps_to_verdict = true;
  map.elements = {rule_maker::element(ip("2001:db8::1"), nft::verdict{nft::verdict::drop, {}}),
                  rule_maker::element(ip("2001:db8::2"), nft::verdict{nft::verdict::accept, {}})};
  rules.add_verdict_map("m");
  rules.add_prefix(net("2001:db8::/64"), false, nft::verdict::drop);
  b.made.set_output(rules.snapshot());
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.look_up(id, ip("2001:db8::2")).egress, 1);
  EXPECT_EQ(b.look_up(id, ip("2001:db8:0:1::")).egress, 1);
  for (const char* dropped : {"2001:db8::1", "2001:db8::3", "2001:db8::", "2001:db8::ffff:0:0:1"})
    EXPECT_EQ(b.look_up(id, ip(dropped)).reason, divert_reason::netfilter) << dropped;
  EXPECT_EQ(b.made.explain({{}, ip("2001:db8::3"), 1}).output.rule, 2u);
  EXPECT_EQ(b.made.explain({{}, ip("2001:db8::1"), 1}).output.rule, 1u);
}

TEST(output_regions, a_set_that_loses_or_gains_elements_without_a_word_decides_nothing) {
  const mirror state = world_with_default_route();
  for (const bool inverted : {false, true}) {
    for (const bool filled : {false, true}) {
      bench b(state);
      const flow_class_id id = b.made.add_class({});
      rule_maker rules(ip_family::v4);
      auto& set = rules.add_set("s", filled ? 0u : std::uint32_t{nft::set_timeout});
      set.filled_by_packets = filled;
      set.elements = {rule_maker::element(ip("20.0.0.1"))};
      rules.add_lookup("s", inverted, nft::verdict::drop);
      b.made.set_output(rules.snapshot());
      static_cast<void>(b.made.publish());
      // What times out may be gone by now; what packets fill may hold anything.
      EXPECT_EQ(b.look_up(id, ip("20.0.0.1")).egress, divert_slot) << inverted << filled;
      EXPECT_EQ(b.look_up(id, ip("20.0.0.2")).egress, filled || inverted ? 0 : 1)
          << inverted << filled;
    }
  }
}

TEST(output_regions, ports_are_ranges_of_a_hop_that_diverts_the_others) {
  const mirror state = world_with_default_route();
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  rule_maker rules(ip_family::v4);
  const ip_address one = ip("20.0.0.1");
  rules.add_ports(53, 53, nft::verdict::drop);
  rules.add_ports(9000, 9100, nft::verdict::drop, &one);
  rules.add_ports(9000, 9050, nft::verdict::accept);
  b.made.set_output(rules.snapshot());
  static_cast<void>(b.made.publish());
  const auto egress = [&](const char* to, std::uint16_t port) {
    const hop& seen = b.look_up(id, ip(to));
    EXPECT_EQ(seen.egress, divert_slot) << "not without a look at the port";
    EXPECT_EQ(seen.reason, divert_reason::netfilter);
    if (port != 0) {
      EXPECT_EQ(seen.for_port(port), b.made.explain({{}, ip(to), port}).template_hop);
    }
    return seen.egress_for(port);
  };
  for (const std::uint16_t port :
       std::initializer_list<std::uint16_t>{0, 52, 54, 8999, 9101, 65535}) {
    EXPECT_EQ(egress("20.0.0.1", port), 1) << port;
    EXPECT_EQ(egress("20.0.0.2", port), 1) << port;
  }
  for (const std::uint16_t port : std::initializer_list<std::uint16_t>{9000, 9050, 9100}) {
    EXPECT_EQ(egress("20.0.0.1", port), divert_slot) << port;
    EXPECT_EQ(egress("20.0.0.2", port), 1) << port;
  }
  EXPECT_EQ(egress("20.0.0.2", 53), divert_slot);
  EXPECT_EQ(b.made.explain({{}, one, 9001}).output.rule, 2u);
  EXPECT_EQ(b.made.explain({{}, one, 53}).output.rule, 1u);
  EXPECT_TRUE(b.made.explain({{}, one, 54}).output.untouched());
}

TEST(output_regions, more_ranges_than_a_hop_has_room_for_are_diverted_whole) {
  const mirror state = world_with_default_route();
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  rule_maker rules(ip_family::v4);
  for (std::uint16_t i = 1; i <= port_ranges_max; ++i)
    rules.add_ports(static_cast<std::uint16_t>(100 * i), static_cast<std::uint16_t>(100 * i + 9),
                    nft::verdict::drop);
  b.made.set_output(rules.snapshot());
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.look_up(id, ip("20.0.0.1")).egress_for(1), 1);
  rules.add_ports(9000, 9009, nft::verdict::drop);
  b.made.set_output(rules.snapshot());
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.look_up(id, ip("20.0.0.1")).egress_for(1), divert_slot);
  EXPECT_EQ(b.made.explain({{}, ip("20.0.0.1"), 1}).output.rule, 1u);
}

/// Some rules about destinations of the world, and about ports.
rule_maker random_rules(random_world& world, ip_family family) {
  auto& random = world.random();
  const auto destination = [&] {
    for (;;)
      if (const ip_address any = world.random_destination(); any.family() == family) return any;
  };
  rule_maker rules(family);
  for (auto n = random() % 6; n > 0; --n) {
    const ip_address at = destination();
    const std::int32_t verdict = random() % 3 ? nft::verdict::drop + 0 : nft::verdict::accept + 0;
    const auto length = static_cast<unsigned>(random() % (at.bits() + 1));
    const auto kind = random() % 4;
    if (kind < 2) {
      rules.add_prefix({at, length}, random() % 4 == 0, verdict);
      continue;
    }
    if (kind == 2) {
      const auto low = static_cast<std::uint16_t>(random() % 9);
      const auto high = static_cast<std::uint16_t>(low + random() % 4);
      rules.add_ports(low, high, verdict, random() % 2 ? &at : nullptr);
      continue;
    }
    const std::string name = "s" + std::to_string(n);
    auto& set = rules.add_set(name);
    for (auto k = random() % 4; k > 0; --k) set.elements.add(rule_maker::element(destination()));
    rules.add_lookup(name, random() % 2, verdict);
  }
  return rules;
}

/// Random rules over random worlds: readers see what explain() says, and nothing is fast that a
/// judgement of the one flow alone says is touched.
TEST(output_regions, random_rules_over_random_worlds_divide_as_each_destination_is_judged) {
  std::size_t diverted = 0, fast = 0, coarse = 0;
  for (std::uint64_t seed = 1; seed <= world_count(12); ++seed) {
    random_world world(seed);
    bench b(world.state());
    std::vector<std::pair<flow_class_id, flow_class>> classes;
    for (int i = 0; i < 3; ++i) {
      const flow_class cls = i == 0 ? flow_class{} : world.random_class();
      classes.emplace_back(b.made.add_class(cls), cls);
    }
    auto& random = world.random();
    std::shared_ptr<const output_snapshot> in_force = std::make_shared<output_snapshot>();
    for (int step = 0; step < 60; ++step) {
      b.made.note(world.step());
      const ip_family family = random() % 2 ? ip_family::v4 : ip_family::v6;
      const rule_maker rules = random_rules(world, family);
      if (step % 3) {
        in_force = rules.snapshot();
        b.made.set_output(in_force);
      }
      static_cast<void>(b.made.publish());
      for (int i = 0; i < 20; ++i) {
        const auto& [id, cls] = classes[random() % classes.size()];
        const ip_address to = world.random_destination();
        const auto port = static_cast<std::uint16_t>(1 + random() % 12);
        const explanation told = b.made.explain({cls, to, port});
        const hop& all_ports = b.look_up(id, to);
        if (told.decision.shares.size() > 1) continue;  // Whose hash this is nobody said.
        const hop seen =
            all_ports.egress_of_ports == divert_slot ? all_ports : all_ports.for_port(port);
        ASSERT_EQ(seen, told.template_hop)
            << "seed " << seed << " step " << step << " to " << to.to_string() << ": "
            << name(seen.reason) << " for " << name(told.template_hop.reason) << ", "
            << told.output.obstacle;
        const bool by_rules = seen.egress == divert_slot && seen.reason == divert_reason::netfilter;
        if (seen.egress == divert_slot && !by_rules) continue;
        // What nobody compiled: this flow alone.
        output_flow alone;
        alone.destination = {to, to.bits()};
        alone.destination_port = port;
        const bool untouched = judge_output(*in_force, alone).untouched();
        ASSERT_TRUE(by_rules || untouched)
            << "seed " << seed << " step " << step << " to " << to.to_string() << " port " << port;
        coarse += by_rules && untouched;
        diverted += by_rules;
        fast += !by_rules;
      }
    }
  }
  EXPECT_GT(diverted, 100u);
  EXPECT_GT(fast, 100u);
  EXPECT_LT(coarse, diverted / 10) << "of " << diverted;  // More ranges of ports than have room.
}

/// Rules, sets and policies that change by a little each time.
class changing_rules {
 public:
  changing_rules(std::mt19937_64& random, ip_family family)
      : random_(random), family_(family), rules_(family), tracks_(random() % 2) {
    if (tracks_) rules_.rules().chains.begin()->second.chain.hook->priority = -300;
    static_cast<void>(rules_.add_set("plain"));
    static_cast<void>(rules_.add_set("wide", nft::set_interval));
    rules_.add_set("ports").set.key_length = 2;
    rules_.add_port_lookup("ports");
    rules_.add_lookup("plain", false, nft::verdict::drop);
    rules_.add_lookup("wide", random_() % 2, verdict());
    for (int i = 0; i < 6; ++i) add_rule();
  }
  [[nodiscard]] std::shared_ptr<const output_snapshot> snapshot() const {
    auto made = std::make_shared<output_snapshot>(*rules_.snapshot());
    made->ipsec.policies = policies_;
    const bool v4 = family_ == ip_family::v4;
    if (tracks_)
      made->netfilter.hooks->push_back(
          {family_, v4 ? "ipv4_conntrack_local" : "ipv6_conntrack_local"});
    return made;
  }
  /// One of few, so that they meet.
  [[nodiscard]] ip_address destination() {
    auto number = detail::number_of(family_ == ip_family::v4 ? ip("20.0.0.0") : ip("2001:db8::"));
    return detail::address_of(family_, number + random_() % 64 * (random_() % 2 ? 1 : 1024));
  }
  void step() {
    switch (random_() % 8) {
      case 5:
      case 6:
        return change_policies();
      case 7:
        return change_ports();
      case 0:
        return add_rule();
      case 1:
        return remove_rule();
      case 2:
        return change_plain();
      default:
        return change_wide();
    }
  }

 private:
  auto& chain() { return rules_.rules().chains.begin()->second.rules; }
  nft::element_list& set(const char* name) {
    for (auto& [key, one] : rules_.rules().sets)
      if (key.name == name) return one.elements;
    throw std::logic_error("no such set");
  }
  std::int32_t verdict() {
    return random_() % 3 ? nft::verdict::drop + 0 : nft::verdict::accept + 0;
  }
  void add_rule() {
    if (random_() % 4 == 0) {
      const auto low = static_cast<std::uint16_t>(4 + random_() % 4);
      rules_.add_ports(low, static_cast<std::uint16_t>(low + random_() % 3), verdict());
    } else if (random_() % 4 == 0) {
      const ip_address at = destination();
      rules_.add_ports(5, 7, verdict(), tracks_ && random_() % 2 ? nullptr : &at);
      nft::rule& made = chain().edit(chain().size() - 1);
      if (tracks_) made.expressions.back() = {"notrack", ex::notrack{}, {}};
    } else {
      const unsigned bits = family_ == ip_family::v4 ? 32 : 128;
      rules_.add_prefix({destination(), bits - static_cast<unsigned>(random_() % 12)},
                        random_() % 8 == 0, verdict());
    }
    // Somewhere among the others.
    nft::rule made = chain().back();
    made.handle = ++handle_;
    chain().erase(std::prev(chain().end()));
    auto at = chain().begin();
    std::advance(at, static_cast<std::ptrdiff_t>(random_() % (chain().size() + 1)));
    chain().insert(at, made);
  }
  void remove_rule() {
    auto at = chain().begin();
    std::advance(at, static_cast<std::ptrdiff_t>(random_() % chain().size()));
    const auto looks_up = [](const nft::expression& e) { return e.name == "lookup"; };
    if (std::ranges::none_of(at->expressions, looks_up)) static_cast<void>(chain().erase(at));
  }
  void change_plain() {
    const nft::element one = rule_maker::element(destination());
    if (!set("plain").remove(one)) set("plain").add(one);
  }
  void change_ports() {
    nft::element one;
    one.key = rule_maker::bytes_of_port(static_cast<std::uint16_t>(4 + random_() % 5));
    if (!set("ports").remove(one)) set("ports").add(one);
  }
  void change_wide() {
    nft::element low = rule_maker::element(destination()), high = low;
    high.ends_interval = true;
    high.key = rule_maker::element(destination()).key;
    if (high.key <= low.key) return;
    if (!set("wide").remove(low)) set("wide").add(low);
    if (random_() % 2 && !set("wide").remove(high)) set("wide").add(high);
  }

  /// One goes, or one comes.
  void change_policies() {
    if (!policies_.empty() && random_() % 3 == 0) {
      auto at = policies_.begin();
      std::advance(at, static_cast<std::ptrdiff_t>(random_() % policies_.size()));
      static_cast<void>(policies_.erase(at));
      return;
    }
    netlink::xfrm_policy one;
    one.index = ++index_;
    one.blocks = random_() % 2;
    one.harmless = random_() % 8 == 0;
    const unsigned bits = family_ == ip_family::v4 ? 32 : 128;
    one.source = ip_prefix::all(family_);
    const ip_address to = destination();
    one.destination = {to, random_() % 16 ? bits - static_cast<unsigned>(random_() % 12) : 0};
    if (random_() % 8 == 0) one.source = {to, bits};
    if (random_() % 8 == 0) one.mark = one.mark_mask = 1;
    if (random_() % 8 == 0) one.protocol = random_() % 2 ? 17 : 6;
    if (random_() % 4 == 0) {
      one.destination_port = static_cast<std::uint16_t>(5 + random_() % 3);
      one.destination_port_mask = random_() % 4 ? 0xffff : 0xfffe;
    }
    policies_.push_back(one);
  }

  std::mt19937_64& random_;
  const ip_family family_;
  rule_maker rules_;
  netlink::xfrm_policies policies_;
  const bool tracks_;  ///< And rules about ports have some not tracked.
  std::uint64_t handle_ = 1000;
  std::uint32_t index_ = 0;
};

/// However often single rules and elements have changed, readers see what a compiler says that has
/// just read everything, and what a walk of the whole ruleset says of the one flow alone.
TEST(output_regions, after_any_small_changes_all_is_as_if_compiled_anew) {
  std::size_t diverted = 0, coarse = 0;
  for (std::uint64_t seed = 1; seed <= world_count(12); ++seed) {
    std::mt19937_64 random(seed);
    const ip_family family = seed % 2 ? ip_family::v4 : ip_family::v6;
    const mirror state = world_with_default_route();
    bench followed(state);
    const flow_class_id id = followed.made.add_class({});
    changing_rules rules(random, family);
    for (int step = 0; step < 60; ++step) {
      const auto in_force = rules.snapshot();
      followed.made.set_output(in_force);
      static_cast<void>(followed.made.publish());
      bench fresh(state);
      const flow_class_id same = fresh.made.add_class({});
      fresh.made.set_output(rules.snapshot());
      static_cast<void>(fresh.made.publish());
      for (int i = 0; i < 150; ++i) {
        const ip_address to = rules.destination();
        ASSERT_EQ(followed.look_up(id, to), fresh.look_up(same, to))
            << "seed " << seed << " step " << step << " to " << to.to_string();
        for (const std::uint16_t port : {std::uint16_t{1}, std::uint16_t{5}, std::uint16_t{8}}) {
          const explanation seen = followed.made.explain({{}, to, port});
          const auto told = seen.output.reason;
          ASSERT_EQ(told, fresh.made.explain({{}, to, port}).output.reason)
              << "seed " << seed << " step " << step << " to " << to.to_string() << ":" << port;
          output_flow alone;
          alone.destination = {to, to.bits()};
          alone.destination_port = port;
          alone.source = seen.decision.source;
          const bool untouched = judge_output(*in_force, alone).untouched();
          ASSERT_TRUE(told || untouched)
              << "seed " << seed << " step " << step << " to " << to.to_string() << ":" << port;
          diverted += told.has_value();
          coarse += told && untouched;
        }
      }
      for (auto n = random() % 3 + 1; n > 0; --n) rules.step();
    }
  }
  EXPECT_LT(coarse, diverted / 10) << "of " << diverted;  // More ranges of ports than have room.
}

/// A hundred thousand addresses, and behind them what `more` adds.
rule_maker large_rules(const std::function<void(rule_maker&)>& more) {
  static const nft::element_list elements = [] {
    std::vector<nft::element> all;
    for (std::uint32_t i = 0; i < 100'000; ++i)
      all.push_back(rule_maker::element(ip_address::v4(0x14000000 + 6 * i)));
    return nft::element_list(std::move(all));
  }();
  rule_maker rules(ip_family::v4);
  rules.add_set("s").elements = elements;
  rules.add_lookup("s", false, nft::verdict::drop);
  more(rules);
  return rules;
}

TEST(output_regions, a_rule_or_element_that_only_closes_ports_has_nothing_else_asked_anew) {
  const mirror state = world_with_default_route();
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  const auto obey = [&](const std::function<void(rule_maker&)>& more) {
    b.made.set_output(large_rules(more).snapshot());
    EXPECT_FALSE(b.made.divert_until_compiled()) << "for it would take long";
    static_cast<void>(b.made.publish());
    return b.made.statistics();
  };
  const auto egress = [&](const char* to, std::uint16_t port) {
    return b.look_up(id, ip(to)).egress_for(port);
  };
  const auto before = obey([](rule_maker&) {});
  const auto one_rule = obey([](rule_maker& r) { r.add_ports(9000, 9009, nft::verdict::drop); });
  EXPECT_EQ(one_rule.prefixes_v4, before.prefixes_v4);
  EXPECT_EQ(egress("9.9.9.9", 9005), divert_slot);
  EXPECT_EQ(egress("9.9.9.9", 9010), 1);
  EXPECT_EQ(egress("20.0.0.6", 9010), divert_slot) << "is in the set";
  EXPECT_EQ(b.made.explain({{}, ip("9.9.9.9"), 9005}).output.rule, 2u);
  EXPECT_EQ(b.made.explain({{}, ip("20.0.0.6"), 9005}).output.rule, 1u);
  const auto with_port = [](std::uint16_t port) {
    return [port](rule_maker& r) {
      auto& set = r.add_set("ports");
      set.set.key_length = 2;
      nft::element one;
      one.key = rule_maker::bytes_of_port(port);
      set.elements.add(one);
      r.add_port_lookup("ports");
    };
  };
  static_cast<void>(obey(with_port(53)));
  EXPECT_EQ(egress("9.9.9.9", 9005), 1) << "the rule has gone";
  EXPECT_EQ(egress("9.9.9.9", 53), divert_slot);
  static_cast<void>(obey(with_port(54)));
  EXPECT_EQ(egress("9.9.9.9", 53), 1) << "the element has gone";
  EXPECT_EQ(egress("9.9.9.9", 54), divert_slot);
  EXPECT_EQ(b.made.statistics().prefixes_v4, before.prefixes_v4);
}

/// Behind a rule that lets some leave the chain it is not known without a walk whom it concerns.
TEST(output_regions, where_compiling_takes_long_all_is_diverted_until_it_is_done) {
  const mirror state = world_with_default_route();
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  const auto behind_accept = [](rule_maker& r) {
    r.add_prefix(net("21.0.0.0/8"), false, nft::verdict::accept);
  };
  b.made.set_output(large_rules(behind_accept).snapshot());
  static_cast<void>(b.made.publish());
  const auto before = b.published.current()->version;
  ASSERT_EQ(b.look_up(id, ip("9.9.9.9")).egress, 1);
  b.made.set_output(large_rules([&](rule_maker& r) {
                      behind_accept(r);
                      r.add_ports(9000, 9000, nft::verdict::drop);
                    }).snapshot());
  ASSERT_TRUE(b.made.divert_until_compiled());
  EXPECT_EQ(b.published.current()->version, before + 1);
  for (const char* to : {"9.9.9.9", "21.0.0.1", "20.0.0.6", "20.0.0.7"}) {
    EXPECT_EQ(b.look_up(id, ip(to)).egress_for(9000), divert_slot) << to;
    EXPECT_EQ(b.look_up(id, ip(to)).reason, divert_reason::netfilter) << to;
  }
  EXPECT_FALSE(b.made.divert_until_compiled()) << "it is done already";
  ASSERT_TRUE(b.made.pending());
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.published.current()->version, before + 2);
  EXPECT_EQ(b.look_up(id, ip("9.9.9.9")).egress_for(9000), divert_slot);
  EXPECT_EQ(b.look_up(id, ip("9.9.9.9")).egress_for(9001), 1);
  EXPECT_EQ(b.look_up(id, ip("21.0.0.1")).egress_for(9000), 1);
  EXPECT_FALSE(b.made.pending());
  EXPECT_FALSE(b.made.divert_until_compiled());
}

TEST(output_regions, what_is_diverted_for_long_is_so_under_the_reason_of_the_layer_that_changed) {
  const mirror state = world_with_default_route();
  const auto diverted_for = [&](const std::function<void(output_snapshot&)>& change) {
    bench b(state);
    const flow_class_id id = b.made.add_class({});
    const auto large = large_rules([](rule_maker&) {}).snapshot();
    b.made.set_output(large);
    static_cast<void>(b.made.publish());
    auto changed = std::make_shared<output_snapshot>(*large);
    change(*changed);
    b.made.set_output(std::move(changed));
    EXPECT_TRUE(b.made.divert_until_compiled());
    return b.look_up(id, ip("9.9.9.9")).reason;
  };
  EXPECT_EQ(diverted_for([](output_snapshot& s) { s.cgroup.egress = {1}; }),
            divert_reason::cgroup_program);
  EXPECT_EQ(diverted_for([](output_snapshot& s) { s.ipsec.blocks_by_default = true; }),
            divert_reason::ipsec);
  EXPECT_EQ(diverted_for([](output_snapshot& s) { s.devices[2].filter = "u32"; }),
            divert_reason::tc_egress);
  EXPECT_EQ(diverted_for([](output_snapshot& s) { s.netfilter.hooks->push_back({}); }),
            divert_reason::netfilter);
}

/// Compiling that it cannot be seen, and then what it was before, would take twice as long.
TEST(output_regions, a_ruleset_that_is_being_read_diverts_all_and_is_compared_with_the_last_known) {
  const mirror state = world_with_default_route();
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  const auto known = large_rules([](rule_maker&) {}).snapshot();
  b.made.set_output(known);
  static_cast<void>(b.made.publish());
  for (int round = 0; round < 2; ++round) {
    const auto prefixes = b.made.statistics().prefixes_v4;
    auto unseen = std::make_shared<output_snapshot>(*known);
    unseen->netfilter.rules_unreadable = "it is being read";
    b.made.set_output(std::move(unseen));
    EXPECT_FALSE(b.made.divert_until_compiled()) << "that is no long work";
    static_cast<void>(b.made.publish());
    EXPECT_EQ(b.look_up(id, ip("9.9.9.9")).egress_for(1), divert_slot);
    EXPECT_EQ(b.look_up(id, ip("9.9.9.9")).reason, divert_reason::netfilter);
    EXPECT_EQ(b.made.statistics().prefixes_v4, prefixes);
    const auto told = b.made.explain({{}, ip("9.9.9.9"), 1}).output;
    EXPECT_EQ(told.obstacle, "the nf_tables ruleset cannot be read: it is being read");
    b.made.set_output(large_rules([&](rule_maker& r) {
                        if (round == 0) r.add_prefix(net("9.9.9.9/32"), false, nft::verdict::drop);
                      }).snapshot());
    EXPECT_FALSE(b.made.divert_until_compiled());
    static_cast<void>(b.made.publish());
    EXPECT_EQ(b.look_up(id, ip("9.9.9.9")).egress, round == 0 ? divert_slot : 1);
    EXPECT_EQ(b.look_up(id, ip("9.9.9.8")).egress, 1);
  }
}

TEST(output_regions, copies_of_a_snapshot_share_its_rules_and_are_equal_to_it) {
  rule_maker rules(ip_family::v4);
  rules.add_prefix(net("20.1.2.3/32"), false, nft::verdict::drop);
  const output_snapshot one = *rules.snapshot(), copy = one, same = *rules.snapshot();
  EXPECT_EQ(&*one.netfilter.rules, &*copy.netfilter.rules);
  EXPECT_NE(&*one.netfilter.rules, &*same.netfilter.rules);
  EXPECT_EQ(one, copy);
  EXPECT_EQ(one, same);
  rules.add_prefix(net("20.1.2.4/32"), false, nft::verdict::drop);
  EXPECT_NE(one, *rules.snapshot());
}

// ---- size ---------------------------------------------------------------------------------------

double publish_ms(compiler& made) {
  const auto start = std::chrono::steady_clock::now();
  static_cast<void>(made.publish());
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

TEST(output_regions, a_large_set_is_one_zone_and_one_element_more_one_region_more) {
  constexpr std::uint32_t count = 100'000;
  const mirror state = world_with_default_route();
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  static_cast<void>(b.made.publish());
  const auto plain = b.made.statistics();
  rule_maker rules(ip_family::v4);
  auto& set = rules.add_set("s");
  for (std::uint32_t i = 0; i < count; ++i)
    set.elements.add(rule_maker::element(ip_address::v4(0x14000000 + 2 * i * 3)));
  rules.add_lookup("s", false, nft::verdict::drop);
  b.made.set_output(rules.snapshot());
  const double whole = publish_ms(b.made);
  const auto divided = b.made.statistics();
  EXPECT_EQ(divided.prefixes_v4, plain.prefixes_v4 + count);
  EXPECT_LE(divided.situations, 2 * plain.situations + 2);
  EXPECT_EQ(b.look_up(id, ip_address::v4(0x14000000 + 600)).reason, divert_reason::netfilter);
  EXPECT_EQ(b.look_up(id, ip_address::v4(0x14000000 + 601)).egress, 1);
  rules.rules().sets.begin()->second.elements.add(rule_maker::element(ip("9.9.9.9")));
  b.made.set_output(rules.snapshot());
  const double one_more = publish_ms(b.made);
  EXPECT_EQ(b.look_up(id, ip("9.9.9.9")).reason, divert_reason::netfilter);
  EXPECT_EQ(b.made.statistics().prefixes_v4, divided.prefixes_v4 + 1);
  std::cout << count << " elements: " << whole << " ms, one more: " << one_more << " ms, "
            << divided.bytes_live / 1024 << " KiB live, " << divided.bytes_writer / 1024
            << " KiB of the writer's\n";
}

TEST(output_regions, ten_thousand_rules_for_one_destination_each_are_two_zones) {
  constexpr std::uint32_t count = 10'000;
  const mirror state = world_with_default_route();
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  static_cast<void>(b.made.publish());
  const auto plain = b.made.statistics();
  rule_maker rules(ip_family::v4);
  for (std::uint32_t i = 0; i < count; ++i)
    rules.add_prefix({ip_address::v4(0x14000000 + 6 * i), 32}, false,
                     i % 2 ? nft::verdict::drop + 0 : nft::verdict::accept + 0);
  b.made.set_output(rules.snapshot());
  const double whole = publish_ms(b.made);
  EXPECT_EQ(b.made.statistics().prefixes_v4, plain.prefixes_v4 + count / 2);
  EXPECT_LE(b.made.statistics().situations, 2 * plain.situations + 2);
  EXPECT_EQ(b.look_up(id, ip_address::v4(0x14000000 + 6)).reason, divert_reason::netfilter);
  EXPECT_EQ(b.look_up(id, ip_address::v4(0x14000000 + 12)).egress, 1);
  EXPECT_EQ(b.made.explain({{}, ip_address::v4(0x14000000 + 6 * 4321), 0}).output.rule, 4322u);
  std::cout << count << " rules: " << whole << " ms\n";
}

}  // namespace
}  // namespace cowire::testing

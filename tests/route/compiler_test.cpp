// SPDX-License-Identifier: Apache-2.0
#include "world.hpp"

#include <cowire/route/compiler.hpp>
#include <cowire/route/detail/decision.hpp>
#include <cowire/route/detail/header_template.hpp>
#include <cowire/route/detail/path_facts.hpp>

#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_bonding.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <thread>

namespace cowire {
namespace {

using namespace cowire::testing;

const detail::egress_slots all_slots = {{2, 1}, {3, 2}, {4, 3}};

/// A mirror, a compiler on it, and what a reader would see.
struct bench {
  explicit bench(const mirror& state, compiler_options options = {})
      : made(state, epoch, published, options) {
    for (const auto& [index, slot] : all_slots) made.set_egress(index, slot);
  }
  [[nodiscard]] const hop& look_up(flow_class_id id, const ip_address& to,
                                   std::uint32_t hash = 0) const {
    const forwarding_table* table = published.current();
    const auto& tries = table->table_of(id);
    const std::uint32_t path =
        to.is_v4() ? tries.v4.lookup(to_key4(to)) : tries.v6.lookup(to_key6(to));
    const path_list& list = table->path_list_of(path);
    const auto several = [&] {
      return select_hop(
          *table, list, [] { return slave_terms(); }, [&] { return hash; });
    };
    return table->hops[list.count == 1 ? list.index : several()];
  }
  /// With the hash of the flow's own addresses and ports.
  [[nodiscard]] const hop& look_up(flow_class_id id, const flow& asked) const {
    const forwarding_table* table = published.current();
    const ip_family family = asked.destination.family();
    const multipath_hash& hash = family == ip_family::v4 ? table->hash_v4 : table->hash_v6;
    return look_up(
        id, asked.destination,
        hash(asked.cls.source(family).value_or(ip_address::any(family)), asked.destination,
             be16::from_host(asked.cls.source_port), be16::from_host(asked.destination_port)));
  }

  epoch_domain epoch;
  publisher published;
  compiler made;
};

/// The hop that the plain resolver gives for one flow and hash.
hop reference_hop(const mirror& state, const flow& question, std::uint32_t hash) {
  detail::decider decider(state, detail::covers_by_walk);
  detail::decision_question asked;
  asked.cls = &question.cls;
  asked.region = ip_prefix(question.destination, question.destination.bits());
  const detail::decision& decided = decider.decide(asked);
  if (decided.error != 0 && asked.is_multicast() && !detail::is_known_multicast(asked.region))
    return detail::divert_hop(divert_reason::multicast_destination);
  if (decided.error != 0)
    return detail::divert_hop(decided.error == ENETUNREACH ? divert_reason::no_route
                                                           : divert_reason::rejected);
  if (decided.divert) return detail::divert_hop(*decided.divert);
  const path_share& share = share_of(decided.shares, hash);
  if (!share.is_known()) return detail::divert_hop(divert_reason::resilient_group);
  const auto key =
      detail::hop_key_of(state, decided, decided.members[share.member], question.cls, asked.region);
  return key ? detail::build_hop(state, all_slots, *key).only
             : detail::divert_hop(divert_reason::no_source_address);
}

std::string describe_hop(const hop& h) {
  if (h.egress == divert_slot) return "divert " + std::string(name(h.reason));
  static constexpr char digits[] = "0123456789abcdef";
  std::string text =
      "slot " + std::to_string(h.egress) + " max " + std::to_string(h.max_payload) + " ";
  for (std::size_t i = header_capacity - h.header_length; i < header_capacity; ++i) {
    const auto byte = std::to_integer<unsigned>(h.header[i]);
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

std::string tail(const std::vector<std::string>& log) {
  std::string text;
  for (std::size_t i = log.size() > 40 ? log.size() - 40 : 0; i < log.size(); ++i)
    text += log[i] + "; ";
  return text;
}

TEST(Compiler, FirstRouteBecomesHopWithCompleteTemplate) {
  mirror state = small_world();
  mirror_changes changes;
  state.apply(route_via(net("20.0.0.0/8"), "10.2.0.2", 2), changes, message_origin::notification);
  state.apply(neighbour(2, ip("10.2.0.2")), changes, message_origin::notification);
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  const publication done = b.made.publish();
  EXPECT_EQ(done.version, 1u);
  const hop& via = b.look_up(id, ip("20.1.2.3"));
  ASSERT_EQ(via.egress, 1);
  EXPECT_EQ(via.header_length, 42);
  EXPECT_EQ(via.max_payload, 1500 - 28);
  EXPECT_EQ(via.descriptor_shift[0], -42);
  EXPECT_EQ(via.descriptor_shift[1], 42);
  EXPECT_EQ(via.second_pass, 0);
  const auto* frame =
      reinterpret_cast<const std::uint8_t*>(via.header) + header_capacity - via.header_length;
  const std::uint8_t expected[] = {2, 1, 0, 0, 2, 2,    2, 0,  0,  0, 0, 2,  0x08, 0, 0x45,
                                   0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 2,    0, 1};
  EXPECT_EQ(std::memcmp(frame, expected, sizeof expected), 0) << describe_hop(via);
}

TEST(Compiler, DivertReasonsComeOutNamed) {
  mirror state = small_world();
  mirror_changes changes;
  netlink::route blackhole = route_on(net("30.0.0.0/8"), 0);
  blackhole.type = 6;
  blackhole.next_hops.clear();
  state.apply(blackhole, changes, message_origin::notification);
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.look_up(id, ip("99.0.0.1")).reason, divert_reason::no_route);
  EXPECT_EQ(b.look_up(id, ip("30.0.0.1")).reason, divert_reason::rejected);
  EXPECT_EQ(b.look_up(id, ip("10.2.0.1")).reason, divert_reason::local_destination);
  EXPECT_EQ(b.look_up(id, ip("10.2.0.255")).reason, divert_reason::broadcast_destination);
  EXPECT_EQ(b.look_up(id, ip("10.2.0.77")).reason, divert_reason::neighbour_unresolved);
  EXPECT_EQ(b.look_up(id, ip("fd00:2::1")).reason, divert_reason::local_destination);
}

/// A host address, 3::1, makes regions of all lengths; one of them, 3::4/126, begins with an own
/// address.
TEST(Compiler, SourceOfARegionIsNotTheOwnAddressThatItBeginsWith) {
  mirror state = small_world();
  mirror_changes changes;
  for (const auto& [own, length] : {std::pair("2001:db8:3::1", 128u), {"2001:db8:3::4", 64u}}) {
    state.apply(address(3, own, length), changes, message_origin::notification);
    state.apply(local_route(ip(own), 3), changes, message_origin::notification);
  }
  state.apply(route_via(net("::/0"), "fd00:2::2", 2), changes, message_origin::notification);
  state.apply(neighbour(2, ip("fd00:2::2")), changes, message_origin::notification);
  bench b(state);
  flow_class bound;
  bound.output_interface = 2;
  const flow_class_id id = b.made.add_class(bound);
  static_cast<void>(b.made.publish());
  for (const char* to : {"2001:db8:3::6", "2001:db8:3::7", "2001:db8:3::3", "2001:db8:3::9"}) {
    const hop& compiled = b.look_up(id, ip(to));
    EXPECT_EQ(compiled.egress, 1) << to;
    EXPECT_EQ(compiled, b.made.explain({bound, ip(to), 9000}).template_hop)
        << to << ": " << describe_hop(compiled);
  }
}

TEST(Compiler, GroupsOfAllScopesHaveOneReasonWhereTheirSourcesDiffer) {
  mirror state = small_world();
  mirror_changes changes;
  state.apply(address(2, "fe80::1", 64), changes, message_origin::notification);
  // The world's own addresses are outside of ::/1 but for the one that comes now.
  state.apply(address(2, "2001:db8::1", 64), changes, message_origin::notification);
  netlink::route refused = route_on(net("::/0"), 0);
  refused.type = RTN_UNREACHABLE;
  refused.next_hops.clear();
  refused.source = net("::/1");
  state.apply(refused, changes, message_origin::notification);
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  static_cast<void>(b.made.publish());
  for (const char* to : {"ff00::1", "ffff::1", "ff05::1", "ff0e::1"})
    EXPECT_EQ(b.look_up(id, ip(to)), b.made.explain({{}, ip(to), 9000}).template_hop)
        << to << ": " << describe_hop(b.look_up(id, ip(to)));
}

TEST(Compiler, NeighbourChangeTouchesNoTrieNode) {
  mirror state = small_world();
  mirror_changes changes;
  state.apply(route_via(net("20.0.0.0/8"), "10.2.0.2", 2), changes, message_origin::notification);
  state.apply(neighbour(2, ip("10.2.0.2")), changes, message_origin::notification);
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  static_cast<void>(b.made.publish());
  const auto before = b.published.current()->table_of(id).v4;
  netlink::neighbour moved = neighbour(2, ip("10.2.0.2"));
  moved.link_address[5] = 99;
  changes = {};
  state.apply(moved, changes, message_origin::notification);
  b.made.note(std::move(changes));
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.published.current()->table_of(id).v4, before);
  EXPECT_EQ(b.look_up(id, ip("20.0.0.1")).header[header_capacity - 42 + 5], std::byte{99});
}

/// u2 carries 20/8 by itself, 21/8 below a VLAN and a share of 22/8; 30/8 is another one's.
TEST(Compiler, WhatLeavesOverADeviceDivertsBeforeAnybodyLooksForItsRoutes) {
  mirror state = small_world();
  mirror_changes changes;
  const auto apply = [&](const netlink::message& message) {
    state.apply(message, changes, message_origin::notification);
  };
  netlink::link vlan = ethernet(9, "u2.5");
  vlan.kind = "vlan";
  vlan.lower = 2;
  vlan.info = netlink::vlan_info{5, be16::from_host(0x8100)};
  apply(vlan);
  apply(address(9, "10.9.0.1", 24));
  apply(route_on(net("10.9.0.0/24"), 9));
  apply(route_via(net("20.0.0.0/8"), "10.2.0.2", 2));
  apply(route_via(net("21.0.0.0/8"), "10.9.0.2", 9));
  netlink::route both = route_via(net("22.0.0.0/8"), "10.2.0.2", 2);
  both.next_hops.push_back(route_via(net("22.0.0.0/8"), "10.3.0.2", 3).next_hops.front());
  apply(both);
  for (const char* destination : {"30.0.0.0/8", "0.0.0.0/0"})
    apply(route_via(net(destination), "10.3.0.2", 3));
  for (const auto& [index, gateway] :
       std::map<std::uint32_t, const char*>{{2, "10.2.0.2"}, {3, "10.3.0.2"}, {9, "10.9.0.2"}})
    apply(neighbour(index, ip(gateway)));
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  static_cast<void>(b.made.publish());
  const auto slots = [&] {
    std::vector<int> all;
    for (const char* to : {"20.0.0.1", "21.0.0.1", "30.0.0.1"})
      all.push_back(b.look_up(id, ip(to)).egress);
    for (const std::uint32_t hash : {0u, 0x7fffffffu})
      all.push_back(b.look_up(id, ip("22.0.0.1"), hash).egress);
    return all;
  };
  const std::vector<int> before = {1, 1, 2, 1, 2};
  ASSERT_EQ(slots(), before);
  const auto tries = b.published.current()->table_of(id).v4;

  const netlink::link up = ethernet(2, "u2");
  netlink::link down = up, without_carrier = up, enslaved = up, longer = up;
  down.flags &= ~std::uint32_t{IFF_UP};
  without_carrier.carrier = false;
  enslaved.master = 4;
  longer.mtu = 9000;
  for (const netlink::link& harmless : {up, longer, removal(ethernet(77, "unknown"))})
    EXPECT_FALSE(b.made.divert_before(harmless));
  for (const netlink::link& farewell : {without_carrier, enslaved, down, removal(up)}) {
    const std::uint64_t version = b.published.current()->version;
    EXPECT_TRUE(b.made.divert_before(farewell));
    EXPECT_FALSE(b.made.divert_before(farewell));
    EXPECT_EQ(b.published.current()->version, version + 1);
    EXPECT_EQ(slots(), (std::vector<int>{0, 0, 2, 0, 2}));
    EXPECT_EQ(b.look_up(id, ip("20.0.0.1")).reason, divert_reason::egress_down);
    EXPECT_EQ(b.published.current()->table_of(id).v4, tries);
    // Whatever is noted until then, what is published next is what the mirror says.
    EXPECT_TRUE(b.made.pending());
    static_cast<void>(b.made.publish());
    EXPECT_EQ(slots(), before);
  }
  EXPECT_TRUE(b.made.divert_before(down));
  apply(down);
  EXPECT_FALSE(b.made.divert_before(removal(up))) << "nothing leaves over it any more";
  b.made.note(std::exchange(changes, {}));
  static_cast<void>(b.made.publish());
  EXPECT_EQ(slots(), (std::vector<int>{2, 0, 2, 2, 2}));
}

TEST(Compiler, ClassesThatNoRuleTellsApartShareATable) {
  mirror state = small_world();
  bench b(state);
  flow_class marked;
  marked.mark = 7;
  const flow_class_id plain = b.made.add_class({}), other = b.made.add_class(marked);
  EXPECT_NE(plain, other);
  EXPECT_EQ(b.made.add_class(marked), other);
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.made.statistics().class_tables, 1u);
  mirror_changes changes;
  netlink::rule rule = rule_to_table(ip_family::v4, 50, 100);
  rule.mark = 7;
  rule.mark_mask = 0xffffffff;
  state.apply(rule, changes, message_origin::notification);
  state.apply(route_via(net("20.0.0.0/8"), "10.2.0.2", 2, 100), changes,
              message_origin::notification);
  state.apply(neighbour(2, ip("10.2.0.2")), changes, message_origin::notification);
  b.made.note(std::move(changes));
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.made.statistics().class_tables, 2u);
  EXPECT_EQ(b.look_up(plain, ip("20.0.0.1")).reason, divert_reason::no_route);
  EXPECT_EQ(b.look_up(other, ip("20.0.0.1")).egress, 1);
}

TEST(Compiler, AClassThatSharesATableRebuildsNothing) {
  mirror state = small_world();
  bench b(state);
  EXPECT_EQ(b.made.publish().prefixes_evaluated, 0u) << "nobody asks yet";
  const flow_class_id plain = b.made.add_class({});
  EXPECT_GT(b.made.publish().prefixes_evaluated, 0u);
  flow_class marked;
  marked.mark = 7;
  const flow_class_id other = b.made.add_class(marked);
  EXPECT_TRUE(b.made.pending());
  EXPECT_EQ(b.made.publish().prefixes_evaluated, 0u);
  EXPECT_FALSE(b.made.pending());
  const auto direct = ip("10.2.0.9");
  EXPECT_EQ(b.look_up(other, direct).reason, b.look_up(plain, direct).reason);
  EXPECT_EQ(b.look_up(other, ip("20.0.0.1")).reason, divert_reason::no_route);

  // What tells them apart is heard of together with the third class.
  mirror_changes changes;
  netlink::rule rule = rule_to_table(ip_family::v4, 50, 100);
  rule.mark = 7;
  rule.mark_mask = 0xffffffff;
  for (const netlink::message& change :
       {netlink::message(rule), netlink::message(route_via(net("20.0.0.0/8"), "10.2.0.2", 2, 100)),
        netlink::message(neighbour(2, ip("10.2.0.2")))})
    state.apply(change, changes, message_origin::notification);
  flow_class third = marked;
  third.uid = 5;
  const flow_class_id last = b.made.add_class(third);
  b.made.note(std::move(changes));
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.made.statistics().class_tables, 2u);
  EXPECT_EQ(b.look_up(plain, ip("20.0.0.1")).reason, divert_reason::no_route);
  EXPECT_EQ(b.look_up(last, ip("20.0.0.1")).egress, 1);
}

/// Senders come and go for ever; there are 65 535 ids.
TEST(Compiler, TheIdOfAClassThatNobodyUsesStandsForAnother) {
  mirror state = small_world();
  mirror_changes changes;
  netlink::rule rule = rule_to_table(ip_family::v4, 50, 100);
  rule.uid = netlink::range<std::uint32_t>{1001, 1001};
  for (const netlink::message& change :
       {netlink::message(rule), netlink::message(route_via(net("20.0.0.0/8"), "10.2.0.2", 2, 100)),
        netlink::message(neighbour(2, ip("10.2.0.2")))})
    state.apply(change, changes, message_origin::notification);
  bench b(state);
  const flow_class_id first = b.made.add_class({});
  flow_class theirs;
  theirs.uid = 1001;
  const flow_class_id second = b.made.add_class(theirs);
  EXPECT_EQ(second, b.made.add_class(theirs));
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.look_up(second, ip("20.0.0.1")).egress, 1);

  b.made.release_class(second);  // One of two uses.
  flow_class other;
  other.source_port = 9;
  const flow_class_id third = b.made.add_class(other);
  EXPECT_NE(second, third);
  b.made.release_class(second);
  for (std::uint32_t i = 0; i < 70'000; ++i) {
    flow_class one;
    one.uid = i % 2 == 0 ? 1002 + i : 1001;  // Sharing the first's table, and having its own.
    one.source_port = static_cast<std::uint16_t>(i);
    const flow_class_id id = b.made.add_class(one);
    ASSERT_EQ(second, id) << i;
    if (i < 20) {
      static_cast<void>(b.made.publish());
      const hop& via = b.look_up(id, ip("20.0.0.1"));
      if (i % 2 == 0)
        EXPECT_EQ(via.reason, divert_reason::no_route) << i;
      else
        EXPECT_EQ(via.egress, 1) << i;
      EXPECT_EQ(b.look_up(first, ip("20.0.0.1")).reason, divert_reason::no_route);
      EXPECT_EQ(b.look_up(third, ip("20.0.0.1")).reason, divert_reason::no_route);
    }
    b.made.release_class(id);
  }
}

TEST(Compiler, WithoutChangesNothingIsPublished) {
  mirror state = small_world();
  bench b(state);
  b.made.add_class({});
  EXPECT_EQ(b.made.publish().version, 1u);
  const auto* table = b.published.current();
  EXPECT_FALSE(b.made.pending());
  EXPECT_EQ(b.made.publish().version, 1u);
  EXPECT_EQ(b.published.current(), table);
}

TEST(Compiler, QuarantineDivertsUntilLifted) {
  mirror state = small_world();
  mirror_changes changes;
  state.apply(route_via(net("20.0.0.0/8"), "10.2.0.2", 2), changes, message_origin::notification);
  state.apply(neighbour(2, ip("10.2.0.2")), changes, message_origin::notification);
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  b.made.quarantine(net("20.1.0.0/16"));
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.look_up(id, ip("20.1.2.3")).reason, divert_reason::audit_quarantine);
  EXPECT_EQ(b.look_up(id, ip("20.2.2.3")).egress, 1);
  b.made.lift_quarantine(net("20.1.0.0/16"));
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.look_up(id, ip("20.1.2.3")).egress, 1);
}

TEST(Compiler, OneRouteChangeDoesNotRecompileTheRest) {
  mirror state = small_world();
  mirror_changes changes;
  for (std::uint32_t i = 0; i < 5000; ++i)
    state.apply(route_via(ip_prefix(ip_address::v4(0x14000000 + i * 256), 24), "10.2.0.2", 2),
                changes, message_origin::notification);
  bench b(state);
  b.made.add_class({});
  static_cast<void>(b.made.publish());
  changes = {};
  state.apply(replacing(route_via(net("20.0.7.0/24"), "10.3.0.2", 3)), changes,
              message_origin::notification);
  state.apply(route_via(net("20.0.0.0/8"), "10.3.0.2", 3), changes, message_origin::notification);
  b.made.note(std::move(changes));
  EXPECT_LT(b.made.publish().prefixes_evaluated, 10u);
}

/// Random worlds, step by step: what readers see is what the plain resolver says, what explain()
/// says of the flow, and what a compiler that starts from scratch would publish.
void compare_random_worlds(std::uint64_t seed, int steps, bool performance_mode) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  random_world world(seed);
  bench incremental(world.state(), {.performance_mode = performance_mode});
  std::vector<std::pair<flow_class_id, flow_class>> classes;
  for (int i = 0; i < 4; ++i) {
    const flow_class cls = i == 0 ? flow_class{} : world.random_class();
    classes.emplace_back(incremental.made.add_class(cls), cls);
  }
  for (int step = 0; step < steps; ++step) {
    for (int n = static_cast<int>(world.random()() % 3); n >= 0; --n)
      incremental.made.note(world.step());
    static_cast<void>(incremental.made.publish());
    bench scratch(world.state());
    if (step % 8 == 0) {
      for (const auto& [id, cls] : classes) scratch.made.add_class(cls);
      static_cast<void>(scratch.made.publish());
    }
    for (int i = 0; i < 24; ++i) {
      const auto& [id, cls] = classes[world.random()() % classes.size()];
      const flow question{cls, world.random_destination(), 0};
      const auto hash = static_cast<std::uint32_t>(world.random()() >> 33);
      const hop& seen = incremental.look_up(id, question.destination, hash);
      const hop expected = reference_hop(world.state(), question, hash);
      ASSERT_TRUE(seen == expected)
          << "step " << step << " class " << id << " to " << question.destination.to_string()
          << "\n  compiled " << describe_hop(seen) << "\n  resolver " << describe_hop(expected)
          << "\n  " << tail(world.log());
      const flow asked{cls, question.destination, static_cast<std::uint16_t>(world.random()())};
      const hop& sent = incremental.look_up(id, asked);
      const hop told = incremental.made.explain(asked).template_hop;
      ASSERT_TRUE(sent == told) << "step " << step << " class " << id << " to "
                                << question.destination.to_string() << " port "
                                << asked.destination_port << "\n  compiled " << describe_hop(sent)
                                << "\n  explained " << describe_hop(told) << "\n  "
                                << tail(world.log());
      if (step % 8 == 0) {
        const hop& fresh = scratch.look_up(id, question.destination, hash);
        ASSERT_TRUE(seen == fresh) << "step " << step << " to " << question.destination.to_string();
      }
    }
  }
}

TEST(Compiler, RandomWorldsAgreeWithTheResolver) {
  for (std::uint64_t seed = 1; seed <= world_count(14); ++seed) {
    compare_random_worlds(seed, 120, true);
    if (HasFatalFailure()) return;
  }
}

TEST(Compiler, RandomWorldsAgreeWithTheResolverInReferenceMode) {
  for (std::uint64_t seed = 100; seed <= 101; ++seed) {
    compare_random_worlds(seed, 40, false);
    if (HasFatalFailure()) return;
  }
}

TEST(Compiler, IdsAreReusedAfterTheGracePeriod) {
  mirror state = small_world();
  bench b(state);
  b.made.add_class({});
  mirror_changes changes;
  state.apply(route_via(net("20.0.0.0/8"), "10.2.0.2", 2), changes, message_origin::notification);
  b.made.note(std::move(changes));
  std::size_t most = 0;
  for (int i = 0; i < 1000; ++i) {
    netlink::neighbour moved = neighbour(2, ip("10.2.0.2"));
    moved.link_address[4] = static_cast<std::uint8_t>(i);
    moved.link_address[3] = static_cast<std::uint8_t>(i >> 8);
    changes = {};
    state.apply(moved, changes, message_origin::notification);
    state.apply(replacing(route_via(net("20.0.0.0/8"), i % 2 == 0 ? "10.2.0.2" : "10.3.0.2",
                                    i % 2 == 0 ? 2 : 3)),
                changes, message_origin::notification);
    b.made.note(std::move(changes));
    static_cast<void>(b.made.publish());
    most = std::max(most, b.made.statistics().hops + b.made.statistics().path_lists);
  }
  EXPECT_LT(most, 2 * divert_reason_count + 20);
  EXPECT_LT(b.epoch.statistics().waiting, 20u);
}

TEST(Compiler, MemoryStaysBoundedUnderChurnAndWaitsForReadersOnly) {
  mirror state = small_world();
  bench b(state);
  b.made.add_class({});
  // Every round adds routes that no other round has, in shape and prefix, and removes them again.
  const auto churn = [&](std::uint32_t round) {
    for (const bool remove : {false, true}) {
      mirror_changes changes;
      for (std::uint32_t i = 0; i < 50; ++i) {
        netlink::route made = route_via(
            ip_prefix(ip_address::v4(0x14000000 + (round * 50 + i) * 256), 24), "10.2.0.2", 2);
        made.metrics.mtu = 600 + round % 800;
        made.metrics.hop_limit = 1 + round % 250;
        state.apply(remove ? removal(made) : made, changes, message_origin::notification);
      }
      b.made.note(std::move(changes));
      static_cast<void>(b.made.publish());
    }
  };
  std::uint32_t round = 0;
  for (; round < 700; ++round) churn(round);
  const compiler_statistics early = b.made.statistics();
  for (; round < 2000; ++round) churn(round);
  const compiler_statistics late = b.made.statistics();
  EXPECT_LE(late.bytes_live, early.bytes_live + early.bytes_live / 4);
  EXPECT_LE(late.bytes_writer, early.bytes_writer + early.bytes_writer / 4);
  EXPECT_LT(late.bytes_waiting, 100'000u);
  EXPECT_GT(late.bytes_live, 10'000u);

  auto reader = b.epoch.register_reader();
  reader.enter();
  for (std::uint32_t held = 0; held < 20; ++held) churn(round + held);
  const std::size_t waiting = b.made.statistics().bytes_waiting;
  EXPECT_GT(waiting, 20 * 16'384u);  // At least a trie's root for each round.
  reader.leave();
  static_cast<void>(b.made.publish());
  static_cast<void>(b.made.publish());
  EXPECT_LT(b.made.statistics().bytes_waiting, waiting / 10);
}

TEST(Compiler, BucketsOfAResilientGroupAreMembersAndThoseNotReadYetDivert) {
  mirror state = small_world();
  mirror_changes changes;
  netlink::nexthop_object group;
  group.id = 10;
  group.family_unspecified = true;
  group.group_type = 1;
  group.resilient_buckets = 4;
  for (const std::uint32_t index : {2u, 3u}) {
    netlink::nexthop_object object;
    object.id = index;
    object.index = index;
    object.gateway = ip(index == 2 ? "10.2.0.2" : "10.3.0.2");
    state.apply(object, changes, message_origin::notification);
    state.apply(neighbour(index, *object.gateway), changes, message_origin::notification);
    group.group.push_back({index, 1});
  }
  state.apply(group, changes, message_origin::notification);
  netlink::route made = route_on(net("20.0.0.0/8"), 0);
  made.next_hops.clear();
  made.nexthop_id = 10;
  state.apply(made, changes, message_origin::notification);
  for (const auto& [index, member] : {std::pair{0, 3u}, std::pair{1, 2u}, std::pair{2, 3u}})
    state.apply(
        netlink::nexthop_bucket{
            .group = 10, .index = static_cast<std::uint16_t>(index), .member = member},
        changes, message_origin::notification);
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  static_cast<void>(b.made.publish());
  for (const std::uint32_t round : {0u, 1u, 1000u, 0x1fffffffu}) {
    EXPECT_EQ(b.look_up(id, ip("20.1.2.3"), 4 * round).egress, 2);
    EXPECT_EQ(b.look_up(id, ip("20.1.2.3"), 4 * round + 1).egress, 1);
    EXPECT_EQ(b.look_up(id, ip("20.1.2.3"), 4 * round + 2).egress, 2);
    EXPECT_EQ(b.look_up(id, ip("20.1.2.3"), 4 * round + 3).reason, divert_reason::resilient_group);
  }
  std::map<divert_reason, int> explained;
  std::map<egress_slot, int> through;
  for (std::uint32_t host = 0; host < 400; ++host) {
    const flow question{{}, ip_address::v4(0x14000000 + host), 9};
    const hop shown = b.made.explain(question).template_hop;
    if (shown.egress == divert_slot) ++explained[shown.reason];
    ++through[shown.egress];
  }
  EXPECT_EQ(explained.size(), 1u);
  EXPECT_GT(explained[divert_reason::resilient_group], 50);
  EXPECT_GT(through[1], 50);
  EXPECT_GT(through[2], 120);
}

TEST(Compiler, ReplacedNexthopObjectKeepsThePathsOfItsPrefixes) {
  mirror state = small_world();
  mirror_changes changes;
  netlink::nexthop_object object;
  object.id = 7;
  object.index = 2;
  object.gateway = ip("10.2.0.2");
  state.apply(object, changes, message_origin::notification);
  for (const auto& [index, gateway] : {std::pair{2u, "10.2.0.2"}, std::pair{3u, "10.3.0.2"}})
    state.apply(neighbour(index, ip(gateway)), changes, message_origin::notification);
  for (std::uint32_t i = 0; i < 3000; ++i) {
    netlink::route made =
        route_via(ip_prefix(ip_address::v4(0x14000000 + i * 256), 24 - i % 3), "10.2.0.2", 2);
    made.nexthop_id = 7;
    state.apply(made, changes, message_origin::notification);
  }
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  static_cast<void>(b.made.publish());
  EXPECT_EQ(b.look_up(id, ip("20.0.5.1")).egress, 1);
  const auto paths = [&] {
    std::vector<std::uint32_t> seen;
    for (std::uint32_t i = 0; i < 3000; ++i)
      seen.push_back(b.published.current()->table_of(id).v4.lookup(0x14000000 + i * 256));
    return seen;
  };
  const auto before = paths();

  changes = {};
  object.index = 3;
  object.gateway = ip("10.3.0.2");
  state.apply(object, changes, message_origin::notification);
  b.made.note(std::move(changes));
  EXPECT_LT(b.made.publish().prefixes_evaluated, 100u);
  EXPECT_EQ(paths(), before);
  EXPECT_EQ(b.look_up(id, ip("20.0.5.1")).egress, 2);
  EXPECT_EQ(b.look_up(id, ip("20.11.5.1")).egress, 2);
}

TEST(Compiler, ReadersSeeWholeVersionsWhileEverythingChanges) {
  mirror state = small_world();
  mirror_changes changes;
  for (const std::uint32_t index : {2u, 3u})
    state.apply(neighbour(index, ip(index == 2 ? "10.2.0.2" : "10.3.0.2")), changes,
                message_origin::notification);
  state.apply(route_via(net("20.0.0.0/8"), "10.2.0.2", 2), changes, message_origin::notification);
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  static_cast<void>(b.made.publish());
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> reads{0}, wrong{0};
  std::vector<std::thread> readers;
  for (int t = 0; t < 2; ++t) {
    readers.emplace_back([&] {
      auto reader = b.epoch.register_reader();
      while (!stop.load(std::memory_order_relaxed)) {
        reader.enter();
        for (int i = 0; i < 64; ++i) {
          const hop& seen =
              b.look_up(id, ip_address::v4(0x14000000u + static_cast<std::uint32_t>(i)));
          // The source MAC belongs to the device of the slot, always: no hop is a mixture.
          const auto mac = std::to_integer<unsigned>(seen.header[header_capacity - 42 + 11]);
          if (seen.egress == divert_slot || mac != seen.egress + 1u) wrong.fetch_add(1);
        }
        reads.fetch_add(1, std::memory_order_relaxed);
      }
      reader.leave();
    });
  }
  for (int i = 0; i < 2000 || reads.load() < 1000; ++i) {
    changes = {};
    const bool odd = i % 2 != 0;
    state.apply(replacing(route_via(net("20.0.0.0/8"), odd ? "10.3.0.2" : "10.2.0.2", odd ? 3 : 2)),
                changes, message_origin::notification);
    netlink::neighbour moved = neighbour(2, ip("10.2.0.2"));
    moved.link_address[3] = static_cast<std::uint8_t>(i);
    state.apply(moved, changes, message_origin::notification);
    b.made.note(std::move(changes));
    static_cast<void>(b.made.publish());
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong.load(), 0u);
}

TEST(Compiler, AVrfThatQueuesOrIsDownLeavesItsDatagramsToTheKernel) {
  mirror state = small_world();
  mirror_changes changes;
  const auto apply = [&](const netlink::message& message) {
    state.apply(message, changes, message_origin::notification);
  };
  netlink::link red = ethernet(9, "red");
  red.kind = "vrf";
  red.info = netlink::vrf_info{100};
  netlink::link member = ethernet(2, "u2");
  member.master = 9;
  bench b(state);
  flow_class cls;
  cls.output_interface = 9;
  const flow_class_id id = b.made.add_class(cls);
  static_cast<void>(b.made.publish());
  const auto hop_now = [&] {
    b.made.note(std::exchange(changes, {}));
    static_cast<void>(b.made.publish());
    return b.look_up(id, ip("20.1.2.3"));
  };
  netlink::rule rule = rule_to_table(ip_family::v4, 1000, 0);
  rule.l3mdev = true;
  apply(rule);
  // Its table is compiled as soon as the device is there, and with another one when that changes.
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2, 100)));
  apply(neighbour(2, ip("10.2.0.2")));
  EXPECT_EQ(hop_now().egress, divert_slot);
  apply(red);
  apply(member);
  apply(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2, 100)));
  EXPECT_EQ(hop_now().interface_index, 2u);
  red.info = netlink::vrf_info{101};
  apply(red);
  EXPECT_EQ(hop_now().egress, divert_slot);
  red.info = netlink::vrf_info{100};
  red.transmit_queues = 4;
  apply(red);
  EXPECT_EQ(hop_now().reason, divert_reason::vrf_queue);
  red.transmit_queues = 1;
  apply(red);
  EXPECT_EQ(hop_now().interface_index, 2u);
  state.set_queues({9}, changes);
  EXPECT_EQ(hop_now().reason, divert_reason::vrf_queue);
  state.set_queues({}, changes);
  EXPECT_EQ(hop_now().interface_index, 2u);
  // A sender that the device itself binds finds its way whatever the VRF's state.
  flow_class bound;
  bound.output_interface = 2;
  const flow_class_id other = b.made.add_class(bound);
  red.flags &= ~std::uint32_t{IFF_UP};
  apply(red);
  static_cast<void>(hop_now());
  EXPECT_EQ(b.look_up(other, ip("20.1.2.3")).reason, divert_reason::egress_down);
}

// A discipline that divides flows hashes them, with a secret, and that hash is the bond's, too.
TEST(Compiler, WhatWasHashedAboveABondOfEncap34IsTheKernels) {
  mirror state = small_world();
  mirror_changes changes;
  const auto apply = [&](const netlink::message& message) {
    state.apply(message, changes, message_origin::notification);
  };
  constexpr std::uint32_t bond = 9, above = 10;
  netlink::link master = ethernet(bond, "t9");
  master.kind = "bond";
  master.transmit_queues = 16;
  const auto with_policy = [&](std::uint8_t policy) {
    master.info =
        netlink::bond_info{.mode = BOND_MODE_XOR, .active_slave = 0, .xmit_hash_policy = policy};
    apply(master);
    state.settle_bond(bond, {.slaves = {{3, 0}, {4, 0}}, .aggregator_id = 0}, changes);
  };
  for (const std::uint32_t index : {3u, 4u}) {
    netlink::link slave = ethernet(index, "u" + std::to_string(index));
    slave.master = bond;
    slave.bond_slave = netlink::bond_slave_info{};
    apply(slave);
  }
  with_policy(BOND_XMIT_POLICY_ENCAP34);
  netlink::link tagged = ethernet(above, "v10");
  tagged.kind = "vlan";
  tagged.lower = bond;
  tagged.info = netlink::vlan_info{100, be16::from_host(0x8100), 0, false};
  apply(tagged);
  apply(address(above, "10.9.0.1", 24));
  apply(added(route_via(net("20.0.0.0/8"), "10.9.0.2", above)));
  apply(neighbour(above, ip("10.9.0.2")));
  bench b(state);
  const flow_class_id id = b.made.add_class({});
  const auto hop_now = [&] {
    b.made.note(std::exchange(changes, {}));
    static_cast<void>(b.made.publish());
    return b.look_up(id, ip("20.1.2.3"));
  };
  const auto is_fast = [&] { return hop_now().egress != divert_slot; };
  EXPECT_TRUE(is_fast()) << describe_hop(hop_now());
  for (const std::uint32_t index : {bond, above}) {
    state.set_queues({index}, changes);
    EXPECT_EQ(hop_now().reason, divert_reason::bond_policy) << index;
    state.set_queues({}, changes);
    EXPECT_TRUE(is_fast()) << index;
  }
  state.set_queues({3, 4}, changes);  // Below the bond's hash.
  EXPECT_TRUE(is_fast());
  tagged.transmit_queues = 4;
  apply(tagged);
  EXPECT_EQ(hop_now().reason, divert_reason::bond_policy);
  state.set_queues({bond, above}, changes);
  with_policy(BOND_XMIT_POLICY_LAYER34);
  EXPECT_TRUE(is_fast()) << "no other policy looks at that hash";
}

}  // namespace
}  // namespace cowire

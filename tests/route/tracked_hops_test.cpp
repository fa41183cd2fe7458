// SPDX-License-Identifier: Apache-2.0
// Which hops leave only while connection tracking knows their flow.
#include "nft_register.hpp"
#include "world.hpp"

#include <cowire/route/compiler.hpp>

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace cowire {
namespace {

using namespace cowire::testing;

constexpr std::uint32_t tunnel_index = 10;

/// 20.0.0.0/8 on Ethernet, 30.0.0.0/8 through a tunnel over it.
mirror tunnel_world() {
  mirror state = small_world();
  mirror_changes changes;
  const auto add = [&](const netlink::message& m) {
    state.apply(m, changes, message_origin::notification);
  };
  netlink::link made = ethernet(tunnel_index, "g0");
  made.kind = "gre";
  made.mtu = 1476;
  netlink::tunnel_info info;
  info.local = ip("10.2.0.1");
  info.remote = ip("10.2.0.2");
  info.ttl = 64;
  made.info = info;
  add(made);
  add(address(tunnel_index, "172.16.10.1", 32));
  add(local_route(ip("172.16.10.1"), tunnel_index));
  add(neighbour(2, ip("10.2.0.2")));
  add(added(route_via(net("20.0.0.0/8"), "10.2.0.2", 2)));
  auto through = route_on(net("30.0.0.0/8"), tunnel_index);
  through.preferred_source = ip("172.16.10.1");
  add(added(through));
  return state;
}

std::shared_ptr<const output_snapshot> tracking(bool on) {
  auto out = std::make_shared<output_snapshot>();
  out->netfilter.hooks.emplace();
  if (on) out->netfilter.hooks->push_back({ip_family::v4, "ipv4_conntrack_local"});
  return out;
}

namespace nft = netlink::nft;
namespace ex = netlink::nft::expressions;

/// Rules of one chain at hook output.
nft::ruleset rules(std::int32_t priority, std::vector<std::vector<nft::expression>> all) {
  nft::ruleset out;
  out.tables[{nft::family::ipv4, "t", {}}] = {nft::family::ipv4, "t", 0};
  auto& made = out.chains[{nft::family::ipv4, "t", "o"}];
  made.chain.family = nft::family::ipv4;
  made.chain.table = "t";
  made.chain.name = "o";
  made.chain.type = "filter";
  made.chain.hook = nft::chain_hook{3, priority, {}};
  for (auto& one : all)
    made.rules.push_back(
        {nft::family::ipv4, "t", "o", made.rules.size() + 1, std::move(one), false});
  return out;
}

nft::expression load(ex::meta_key key) { return {"meta", ex::meta_load{0, key}, {}}; }
nft::expression equals(nft::bytes value) {
  return {"cmp", ex::compare{0, ex::compare::equal, std::move(value)}, {}};
}

/// A compiler with a class, and what becomes of its datagrams to a destination.
struct sender_world {
  explicit sender_world(mirror& world, std::uint32_t mark = 0, outer_flows* numbers = nullptr)
      : state(world), made(world, epochs, published, {.numbers = numbers}) {
    made.set_egress(2, 1);
    made.set_egress(3, 1);
    cls.mark = mark;
    id = made.add_class(cls);
  }
  [[nodiscard]] const hop& shown_to(const ip_address& destination) const {
    const forwarding_table* table = published.current();
    const path_list& list =
        table->path_list_of(table->table_of(id).v4.lookup(to_key4(destination)));
    return table->hops[list.index];
  }
  [[nodiscard]] std::string fate(const char* destination) {
    flow question;
    question.cls = cls;
    question.destination = ip(destination);
    const hop explained = made.explain(question).template_hop;
    const hop& shown = shown_to(question.destination);
    EXPECT_EQ(shown.egress, explained.egress) << destination;
    if (shown.egress == divert_slot) return std::string(name(shown.reason));
    EXPECT_EQ(shown.egress % tracked_egress, 1);
    return std::string(shown.is_tracked() ? "tracked" : "fast");
  }
  void obey(nft::ruleset in_force, bool tracks = false) {
    auto out = std::make_shared<output_snapshot>(*tracking(tracks));
    out->netfilter.rules = std::move(in_force);
    made.set_output(std::move(out));
    made.publish();
  }
  void tell(const netlink::message& m) {
    mirror_changes changes;
    state.apply(m, changes, message_origin::notification);
    made.note(std::move(changes));
    made.publish();
  }

  mirror& state;
  epoch_domain epochs;
  publisher published;
  compiler made;
  flow_class cls;
  flow_class_id id{};
};

TEST(TrackedHops, ATunnelWhoseOuterDatagramsAreUntrackedNeedsTheInnerEntryOnly) {
  mirror state = tunnel_world();
  sender_world world(state);
  const nft::expression is_gre = equals({std::byte{47}});
  world.obey(rules(-300, {{load(ex::meta_key::l4proto), is_gre, {"notrack", ex::notrack{}, {}}}}),
             true);
  EXPECT_EQ(world.fate("20.0.0.1"), "tracked");
  EXPECT_EQ(world.fate("30.0.0.1"), "tracked");
  world.obey(rules(-300, {{{"notrack", ex::notrack{}, {}}}}), true);
  EXPECT_EQ(world.fate("20.0.0.1"), "fast");
  EXPECT_EQ(world.fate("30.0.0.1"), "fast");
}

TEST(TrackedHops, ATunnelsHopNamesTheOuterHeadersThatMustHaveAnEntry) {
  mirror state = tunnel_world();
  outer_flows numbers;
  sender_world world(state, 0, &numbers);
  world.obey({}, true);
  EXPECT_EQ(world.fate("20.0.0.1"), "tracked");
  EXPECT_EQ(world.shown_to(ip("20.0.0.1")).outer_flow, outer_flows::none);
  EXPECT_EQ(world.fate("30.0.0.1"), "tracked");
  const outer_flow wanted{ip("10.2.0.1"), ip("10.2.0.2"), 47};
  ASSERT_NE(world.shown_to(ip("30.0.0.1")).outer_flow, outer_flows::none);
  EXPECT_EQ(numbers.of(world.shown_to(ip("30.0.0.1")).outer_flow), std::vector{wanted});

  // A flow without an entry of its own is not followed; nor is there room for closed ports.
  const nft::expression udp = equals({std::byte{17}});
  world.obey(rules(-300, {{load(ex::meta_key::l4proto), udp, {"notrack", ex::notrack{}, {}}}}),
             true);
  EXPECT_EQ(world.fate("20.0.0.1"), "fast");
  EXPECT_EQ(world.fate("30.0.0.1"), "conntrack_new");
  const nft::expression port{"payload", ex::payload_load{0, ex::payload_base::transport, 2, 2}, {}};
  const nft::expression drop{
      "immediate", ex::immediate{ex::verdict_register, nft::verdict{nft::verdict::drop, {}}}, {}};
  world.obey(rules(0, {{load(ex::meta_key::l4proto), udp, port,
                        equals({std::byte{0x13}, std::byte{0x88}}), drop}}),
             true);
  EXPECT_EQ(world.shown_to(ip("20.0.0.1")).egress_of_ports / tracked_egress, 1);
  EXPECT_EQ(world.fate("30.0.0.1"), "conntrack_new");

  sender_world nobody(state);
  nobody.obey({}, true);
  EXPECT_EQ(nobody.fate("30.0.0.1"), "conntrack_new");
}

/// As many as a hop can name.
TEST(TrackedHops, NumbersOfOuterHeadersAreNeverAnothers) {
  outer_flows numbers;
  const auto made = [](unsigned i) {
    return outer_flow{ip("10.0.0.1"), ip(("10.0.1." + std::to_string(i)).c_str()), 47};
  };
  for (unsigned i = 0; i < 255; ++i)
    EXPECT_EQ(numbers.number_of(std::vector{made(i)}), static_cast<std::uint8_t>(i + 1));
  EXPECT_EQ(numbers.number_of(std::vector{made(255)}), std::nullopt);
  EXPECT_EQ(numbers.number_of(std::vector{made(7)}), std::uint8_t{8});
  EXPECT_EQ(numbers.number_of(std::vector{made(7), made(8)}), std::nullopt);
}

/// Some of a destination's ports need no entry: its hop says which.
TEST(TrackedHops, PortsThatPassANotrackRuleAreToldApart) {
  mirror state = tunnel_world();
  sender_world world(state);
  const nft::expression port{"payload", ex::payload_load{0, ex::payload_base::transport, 2, 2}, {}};
  const auto is = [](std::uint16_t number) {
    return equals({std::byte(number >> 8), std::byte(number & 0xff)});
  };
  const nft::expression no_tracking{"notrack", ex::notrack{}, {}};
  const nft::expression drop{
      "immediate", ex::immediate{ex::verdict_register, nft::verdict{nft::verdict::drop, {}}}, {}};
  const auto tracks = [&](std::uint16_t to) {
    flow question;
    question.destination = ip("20.0.0.1");
    question.destination_port = to;
    const hop shown = world.made.explain(question).template_hop;
    EXPECT_EQ(shown.egress % tracked_egress, 1) << to;
    const hop& of_all =
        world.published.current()
            ->hops[world.published.current()
                       ->path_list_of(world.published.current()->table_of(world.id).v4.lookup(
                           to_key4(question.destination)))
                       .index];
    EXPECT_EQ(of_all.egress_for(to), shown.egress) << to;
    return shown.is_tracked();
  };
  world.obey(rules(-300, {{port, is(53), no_tracking}, {port, is(54), no_tracking}}), true);
  EXPECT_EQ(world.fate("20.0.0.1"), "tracked");
  for (const std::uint16_t to : {std::uint16_t{1}, std::uint16_t{52}, std::uint16_t{55}})
    EXPECT_TRUE(tracks(to)) << to;
  for (const std::uint16_t to : {std::uint16_t{53}, std::uint16_t{54}})
    EXPECT_FALSE(tracks(to)) << to;
  // All but one.
  nft::expression is_not = is(53);
  std::get<ex::compare>(is_not.content).operation = ex::compare::not_equal;
  world.obey(rules(-300, {{port, is_not, no_tracking}}), true);
  EXPECT_TRUE(tracks(53));
  EXPECT_FALSE(tracks(52));
  // Too late: conntrack has made an entry by then.
  world.obey(rules(-100, {{port, is(53), no_tracking}}), true);
  EXPECT_TRUE(tracks(53));
  // More than there is room for.
  world.obey(rules(-300, {{port, is(53), no_tracking},
                          {port, is(63), no_tracking},
                          {port, is(73), no_tracking},
                          {port, is(83), no_tracking}}),
             true);
  EXPECT_TRUE(tracks(53));
  // With ports that are diverted all others are tracked.
  world.obey(rules(-300, {{port, is(53), no_tracking}, {port, is(9), drop}}), true);
  EXPECT_EQ(world.fate("20.0.0.1"), "netfilter");
  EXPECT_TRUE(tracks(53));
  EXPECT_TRUE(tracks(54));
}

nft::ruleset drop_gre_on(std::uint32_t device) {
  const nft::verdict drop{nft::verdict::drop, {}};
  return rules(0, {{load(ex::meta_key::l4proto),
                    equals({std::byte{47}}),
                    load(ex::meta_key::oif),
                    equals(number(device)),
                    {"immediate", ex::immediate{ex::verdict_register, drop}, {}}}});
}

/// A rule about the device of a tunnel's outer datagrams is told from one about another.
TEST(TunnelHops, OuterDatagramsAreJudgedByTheDeviceThatTheyLeaveBy) {
  mirror state = tunnel_world();
  sender_world world(state);
  world.obey(drop_gre_on(2));
  EXPECT_EQ(world.fate("30.0.0.1"), "netfilter");
  EXPECT_EQ(world.fate("20.0.0.1"), "fast");
  world.obey(drop_gre_on(3));
  EXPECT_EQ(world.fate("30.0.0.1"), "fast");
  // The other end moves behind the other device.
  world.tell(neighbour(3, ip("10.3.0.9")));
  world.tell(added(route_via(net("10.2.0.2/32"), "10.3.0.9", 3)));
  EXPECT_EQ(world.fate("30.0.0.1"), "netfilter");
  world.obey(drop_gre_on(2));
  EXPECT_EQ(world.fate("30.0.0.1"), "fast");
}

TEST(TrackedHops, AreThoseOfTrackedFamiliesButNotOfTunnelsWhereNobodyNumbersThem) {
  mirror state = tunnel_world();
  sender_world world(state);
  for (int round = 0; round < 2; ++round) {
    world.made.set_output(tracking(false));
    world.made.publish();
    EXPECT_EQ(world.fate("20.0.0.1"), "fast");
    EXPECT_EQ(world.fate("30.0.0.1"), "fast");
    world.made.set_output(tracking(true));
    world.made.publish();
    EXPECT_EQ(world.fate("20.0.0.1"), "tracked");
    EXPECT_EQ(world.fate("30.0.0.1"), "conntrack_new");
  }
}

/// The kernel asks for the route of outer datagrams, and so for policies, with the tunnel's mark.
TEST(TunnelHops, PoliciesForOuterDatagramsAreThoseOfTheTunnelsMark) {
  mirror state = tunnel_world();
  mirror_changes changes;
  netlink::link marked = state.find_device(tunnel_index)->link;
  std::get<netlink::tunnel_info>(marked.info).fwmark = 0x10;
  state.apply(marked, changes, message_origin::notification);
  sender_world plain(state), of_five(state, 5);
  const auto fates = [&](std::uint32_t mark) {
    netlink::xfrm_policy one;
    one.index = 9;
    one.source = ip_prefix::all(ip_family::v4);
    one.destination = net("10.2.0.2/32");
    one.protocol = 47;
    one.mark = mark;
    one.mark_mask = 0xff;
    auto out = std::make_shared<output_snapshot>(*tracking(false));
    out->ipsec.policies.push_back(one);
    for (sender_world* world : {&plain, &of_five}) {
      world->made.set_output(out);
      world->made.publish();
    }
    return plain.fate("30.0.0.1") + ", " + of_five.fate("30.0.0.1");
  };
  EXPECT_EQ(fates(0x10), "ipsec, ipsec");
  EXPECT_EQ(fates(0), "fast, fast");
  EXPECT_EQ(fates(5), "fast, fast");
}

/// What a tunnel around a tunnel wraps passes the hooks a third time.
TEST(TunnelHops, OuterDatagramsOfATunnelAroundATunnelAreJudged) {
  mirror state = tunnel_world();
  mirror_changes changes;
  netlink::link outermost = state.find_device(tunnel_index)->link;
  netlink::link inside = ethernet(tunnel_index + 1, "g1");
  inside.kind = "gre";
  inside.mtu = 1452;
  inside.info = outermost.info;
  std::get<netlink::tunnel_info>(inside.info).local = ip("172.16.10.1");
  std::get<netlink::tunnel_info>(inside.info).remote = ip("30.0.0.2");
  const auto add = [&](const netlink::message& m) {
    state.apply(m, changes, message_origin::notification);
  };
  add(inside);
  add(address(inside.index, "172.16.11.1", 32));
  add(local_route(ip("172.16.11.1"), inside.index));
  auto through = route_on(net("40.0.0.0/8"), inside.index);
  through.preferred_source = ip("172.16.11.1");
  add(added(through));

  sender_world world(state);
  world.obey({});
  EXPECT_EQ(world.fate("40.0.0.1"), "fast");
  world.obey(drop_gre_on(2));
  EXPECT_EQ(world.fate("40.0.0.1"), "netfilter");
}

}  // namespace
}  // namespace cowire

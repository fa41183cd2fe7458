// SPDX-License-Identifier: Apache-2.0
#include "world.hpp"

#include <cowire/route/compiler.hpp>

#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_arp.h>

#include <string>

namespace cowire {
namespace {

using namespace cowire::testing;

constexpr std::uint32_t first_tunnel = 10, second_tunnel = 11;

netlink::link tunnel(std::uint32_t index, const std::string& name, const char* remote) {
  netlink::link made;
  made.index = index;
  made.name = name;
  made.kind = "gre";
  made.hardware_type = ARPHRD_IPGRE;
  made.flags = IFF_UP | IFF_RUNNING | IFF_POINTOPOINT | IFF_NOARP | netlink::lower_up;
  made.mtu = 1476;
  netlink::tunnel_info info;
  info.local = ip("10.2.0.1");
  info.remote = ip(remote);
  info.ttl = 64;
  made.info = info;
  return made;
}

/// 20.0.0.0/8 through tunnel g0 and 30.0.0.0/8 through g1 (to 10.2.0.2), 40.0.0.0/8 on plain
/// Ethernet, 50.0.0.0/8 in table 100 by a rule before all but local's.
mirror tunnel_world() {
  mirror state = small_world();
  mirror_changes changes;
  const auto add = [&](const netlink::message& m) {
    state.apply(m, changes, message_origin::notification);
  };
  add(tunnel(first_tunnel, "g0", "10.2.0.2"));
  add(tunnel(second_tunnel, "g1", "10.2.0.3"));
  for (const auto index : {first_tunnel, second_tunnel}) {
    const std::string own = "172.16." + std::to_string(index) + ".1";
    add(address(index, own.c_str(), 32));
    add(local_route(ip(own.c_str()), index));
  }
  for (const char* next : {"10.2.0.2", "10.2.0.3"}) add(neighbour(2, ip(next)));
  const auto route_in = [&](const char* prefix, std::uint32_t index, std::uint32_t table = 254) {
    auto route = route_on(net(prefix), index, table);
    route.preferred_source = index < first_tunnel ? ip("10.2.0.1") : ip("172.16.10.1");
    add(added(route));
  };
  route_in("20.0.0.0/8", first_tunnel);
  route_in("30.0.0.0/8", second_tunnel);
  add(added(route_via(net("40.0.0.0/8"), "10.2.0.2", 2)));
  add(added(route_via(net("50.0.0.0/8"), "10.2.0.2", 2, 100)));
  auto rule = rule_to_table(ip_family::v4, 100, 100);
  rule.to = net("48.0.0.0/4");
  add(rule);
  return state;
}

/// What becomes of datagrams, by the published table and by explain(), which must agree.
class Restrictions : public ::testing::TestWithParam<bool> {
 protected:
  void publish(const route_restrictions& restrictions) {
    compiler_.emplace(
        state_, epoch_, publisher_,
        compiler_options{.performance_mode = GetParam(), .restrictions = restrictions});
    compiler_->set_egress(2, 1);
    class_ = compiler_->add_class({});
    compiler_->publish();
  }
  void apply(const netlink::message& m) {
    mirror_changes changes;
    state_.apply(m, changes, message_origin::notification);
    compiler_->note(std::move(changes));
    compiler_->publish();
  }
  std::string fate(const char* destination) const {
    flow question;
    question.destination = ip(destination);
    const hop explained = compiler_->explain(question).template_hop;
    const forwarding_table* table = publisher_.current();
    const path_list& list =
        table->path_list_of(table->table_of(class_).v4.lookup(to_key4(question.destination)));
    EXPECT_EQ(list.count, 1u);
    const hop& published = table->hops[list.index];
    EXPECT_EQ(described(published), described(explained)) << destination;
    return described(published);
  }

  mirror state_ = tunnel_world();

 private:
  static std::string described(const hop& h) {
    return h.egress == divert_slot ? std::string(name(h.reason)) : "fast";
  }

  epoch_domain epoch_;
  publisher publisher_;
  std::optional<compiler> compiler_;
  flow_class_id class_ = 0;
};

TEST_P(Restrictions, WithoutAnyEverythingIsFast) {
  publish({});
  for (const char* to : {"20.0.0.1", "30.0.0.1", "40.0.0.1", "50.0.0.1"})
    EXPECT_EQ(fate(to), "fast") << to;
}

TEST_P(Restrictions, TunnelsThatAreNotListedAreLeftToTheKernel) {
  publish({.tunnel_interfaces = {{"g1", "later"}}});
  EXPECT_EQ(fate("20.0.0.1"), "tunnel_not_listed");
  EXPECT_EQ(fate("30.0.0.1"), "fast");
  EXPECT_EQ(fate("40.0.0.1"), "fast");
  apply(tunnel(first_tunnel, "later", "10.2.0.2"));  // Renamed.
  EXPECT_EQ(fate("20.0.0.1"), "fast");
  apply(tunnel(second_tunnel, "g0", "10.2.0.3"));
  EXPECT_EQ(fate("30.0.0.1"), "tunnel_not_listed");
}

TEST_P(Restrictions, OnlyListedPrefixesGoThroughTunnels) {
  publish({.tunnel_prefixes = {{net("20.1.0.0/16"), net("30.0.0.0/7")}}});
  EXPECT_EQ(fate("20.0.255.255"), "outside_prefixes");
  EXPECT_EQ(fate("20.1.0.0"), "fast");
  EXPECT_EQ(fate("20.1.255.255"), "fast");
  EXPECT_EQ(fate("20.2.0.0"), "outside_prefixes");
  EXPECT_EQ(fate("30.7.7.7"), "fast");
  EXPECT_EQ(fate("40.0.0.1"), "fast");  // No tunnel.
  auto moved = route_on(net("20.2.0.0/16"), 2);
  moved.next_hops.front().gateway = ip("10.2.0.2");
  apply(added(moved));
  EXPECT_EQ(fate("20.2.0.0"), "fast");
  apply(removal(moved));
  EXPECT_EQ(fate("20.2.0.0"), "outside_prefixes");
}

TEST_P(Restrictions, NoPrefixAtAllKeepsEverythingOutOfTunnels) {
  publish({.tunnel_prefixes = std::vector<ip_prefix>{}});
  EXPECT_EQ(fate("20.1.0.0"), "outside_prefixes");
  EXPECT_EQ(fate("40.0.0.1"), "fast");
}

TEST_P(Restrictions, OuterDatagramsMeetThemAsOthersDo) {
  netlink::link marked = tunnel(first_tunnel, "g0", "10.2.0.2");
  std::get<netlink::tunnel_info>(marked.info).fwmark = 7;
  auto rule = rule_to_table(ip_family::v4, 90, 101);
  rule.mark = 7;
  rule.mark_mask = ~0u;
  mirror_changes changes;
  state_.apply(marked, changes, message_origin::notification);
  state_.apply(rule, changes, message_origin::notification);
  publish({.routing_tables = {{254}}});
  EXPECT_EQ(fate("20.0.0.1"), "table_not_mirrored");
  EXPECT_EQ(fate("30.0.0.1"), "fast");
  publish({.routing_tables = {{101, 254}}});
  EXPECT_EQ(fate("20.0.0.1"), "fast");
}

TEST_P(Restrictions, TunnelsInsideTunnelsMustBeListedToo) {
  netlink::link inside = tunnel(12, "g2", "30.0.0.9");
  mirror_changes changes;
  state_.apply(inside, changes, message_origin::notification);
  auto route = route_on(net("60.0.0.0/8"), 12);
  route.preferred_source = ip("172.16.10.1");
  state_.apply(added(route), changes, message_origin::notification);
  publish({.tunnel_interfaces = {{"g1", "g2"}}});
  EXPECT_EQ(fate("60.0.0.1"), "fast");
  publish({.tunnel_interfaces = {{"g2"}}});
  EXPECT_EQ(fate("60.0.0.1"), "tunnel_not_listed");
}

TEST_P(Restrictions, RulesToATableThatIsNotListedAreNotFollowed) {
  publish({.routing_tables = {{254}}});
  EXPECT_EQ(fate("50.0.0.1"), "table_not_mirrored");
  EXPECT_EQ(fate("49.0.0.1"), "table_not_mirrored");  // Whatever that table holds.
  EXPECT_EQ(fate("20.0.0.1"), "fast");
  EXPECT_EQ(fate("40.0.0.1"), "fast");
  apply(removal([] {
    auto rule = rule_to_table(ip_family::v4, 100, 100);
    rule.to = net("48.0.0.0/4");
    return rule;
  }()));
  apply(added(route_via(net("50.0.0.0/8"), "10.2.0.2", 2)));
  EXPECT_EQ(fate("50.0.0.1"), "fast");
}

TEST_P(Restrictions, ListedTablesAreFollowed) {
  publish({.routing_tables = {{100, 254}}});
  EXPECT_EQ(fate("50.0.0.1"), "fast");
  EXPECT_EQ(fate("20.0.0.1"), "fast");
}

INSTANTIATE_TEST_SUITE_P(Both, Restrictions, ::testing::Bool(),
                         [](const auto& mode) { return mode.param ? "compiled" : "reference"; });

}  // namespace
}  // namespace cowire

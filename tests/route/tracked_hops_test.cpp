// SPDX-License-Identifier: Apache-2.0
// Which hops leave only while connection tracking knows their flow.
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

TEST(TrackedHops, AreThoseOfTrackedFamiliesButNotOfTunnelsWhoseOuterDatagramsAreTracked) {
  mirror state = tunnel_world();
  epoch_domain epochs;
  publisher published;
  compiler made(state, epochs, published, {});
  made.set_egress(2, 1);
  const flow_class_id id = made.add_class({});
  const auto fate = [&](const char* destination) {
    flow question;
    question.destination = ip(destination);
    const hop explained = made.explain(question).template_hop;
    const forwarding_table* table = published.current();
    const path_list& list =
        table->path_list_of(table->table_of(id).v4.lookup(to_key4(question.destination)));
    const hop& shown = table->hops[list.index];
    EXPECT_EQ(shown.egress, explained.egress) << destination;
    if (shown.egress == divert_slot) return std::string(name(shown.reason));
    EXPECT_EQ(shown.egress % tracked_egress, 1);
    return std::string(shown.is_tracked() ? "tracked" : "fast");
  };
  for (int round = 0; round < 2; ++round) {
    made.set_output(tracking(false));
    made.publish();
    EXPECT_EQ(fate("20.0.0.1"), "fast");
    EXPECT_EQ(fate("30.0.0.1"), "fast");
    made.set_output(tracking(true));
    made.publish();
    EXPECT_EQ(fate("20.0.0.1"), "tracked");
    EXPECT_EQ(fate("30.0.0.1"), "conntrack_new");
  }
}

}  // namespace
}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// The shadow of a re-sync or a re-dump check, worked on in slices while the live mirror changes.
#include <cowire/follow/detail/shadow_mirror.hpp>

#include <gtest/gtest.h>
#include <linux/rtnetlink.h>

#include <vector>

namespace cowire::detail {
namespace {

using stage = shadow_mirror::stage;

netlink::route route_to(std::uint32_t number, ip_family family = ip_family::v4) {
  netlink::route made;
  made.destination = family == ip_family::v4
                         ? ip_prefix(ip_address::v4(0x14000000 + (number << 8)), 24)
                         : ip_prefix(*ip_address::parse("fd00::"), 16 + number % 100);
  made.source = ip_prefix::all(family);
  made.table = RT_TABLE_MAIN;
  made.type = RTN_UNICAST;
  made.next_hops.push_back({1, std::nullopt, 1, 0, false});
  return made;
}

netlink::route removed(netlink::route route) {
  route.action = netlink::action::remove;
  return route;
}

class ShadowMirror : public ::testing::Test {
 protected:
  static constexpr std::uint32_t routes = 2000;

  void SetUp() override {
    for (std::uint32_t i = 0; i < routes; ++i) tell_live(route_to(i));
  }
  mirror_changes tell_live(const netlink::message& change) {
    mirror_changes changes;
    live.apply(change, changes, message_origin::notification);
    return changes;
  }
  /// As the owner does with a notification once the dump is complete.
  void tell_both(const netlink::message& change) {
    const mirror_changes changes = tell_live(change);
    shadow.follow(change, message_origin::notification);
    shadow.note(changes);
  }
  void dump(std::uint32_t first, std::uint32_t end) {
    for (std::uint32_t i = first; i < end; ++i) shadow.on_object(route_to(i), false);
  }
  /// The least that work() does at a time.
  void work() { shadow.work(shadow_mirror::clock::time_point::min()); }
  void work_until(stage wanted) {
    while (shadow.at() != wanted) {
      ASSERT_TRUE(shadow.busy());
      work();
    }
  }

  mirror live;
  shadow_mirror shadow{live};
};

TEST_F(ShadowMirror, FollowsWhatIsAnnouncedAtEachStage) {
  shadow.begin();
  dump(0, routes / 2);
  // Announced while the dump runs: one that it has passed, one that it has yet to come to.
  std::vector<netlink::message> held;
  for (const std::uint32_t gone : {3u, routes - 3}) held.push_back(removed(route_to(gone)));
  for (std::uint32_t i = 0; i < 1000; ++i) held.push_back(route_to(routes + i));
  for (const auto& change : held) tell_live(change);
  dump(routes / 2, routes);
  for (auto& change : held) shadow.on_object(std::move(change), true);
  shadow.complete();

  work();
  ASSERT_EQ(shadow.at(), stage::catching_up);
  tell_both(removed(route_to(routes + 999)));  // After its addition, which still waits.
  work_until(stage::whole);
  tell_both(removed(route_to(5)));
  shadow.compare();
  for (int i = 0; i < 5; ++i) {
    work();
    ASSERT_EQ(shadow.at(), stage::comparing);
    tell_both(removed(route_to(10 + static_cast<std::uint32_t>(i))));            // Passed already.
    tell_both(removed(route_to(routes + 900 - static_cast<std::uint32_t>(i))));  // Not yet.
  }
  work_until(stage::compared);
  EXPECT_EQ(shadow.differences(), std::vector<std::string>{});
  EXPECT_EQ(live.route_count(), routes + 1000 - 2 - 1 - 1 - 10);
}

TEST_F(ShadowMirror, TakesOverWhatDiffersAndFreesTheOldInSlices) {
  shadow.begin();
  dump(1, routes);
  shadow.on_object(route_to(routes), false);
  shadow.complete();
  work_until(stage::whole);
  shadow.compare();
  work_until(stage::compared);
  EXPECT_EQ(shadow.differences().size(), 2u);
  mirror_changes changes;
  shadow.take_over(changes);
  ASSERT_EQ(changes.routes.size(), 2u);
  EXPECT_EQ(changes.routes[0].destination, route_to(0).destination);
  EXPECT_EQ(changes.routes[1].destination, route_to(routes).destination);
  EXPECT_EQ(live.route_count(), routes);
  EXPECT_EQ(shadow.at(), stage::none);
  int slices = 0;
  for (; shadow.busy(); ++slices) work();
  EXPECT_GT(slices, 10);
}

TEST_F(ShadowMirror, CatchesUpAtOnceWhereTheOrderMatters) {
  shadow.begin();
  dump(0, routes);
  shadow.on_object(removed(route_to(0)), true);
  shadow.complete();
  tell_live(removed(route_to(0)));
  shadow.catch_up();
  EXPECT_EQ(shadow.at(), stage::whole);
  std::size_t left = 0;
  shadow.likewise([&](mirror& other, mirror_changes&) { left = other.route_count(); });
  EXPECT_EQ(left, routes - 1);
}

TEST_F(ShadowMirror, ForgetsWhatARestartedDumpHadTold) {
  tell_live(route_to(7, ip_family::v6));
  shadow.begin();
  dump(0, routes);
  shadow.on_object(route_to(7, ip_family::v6), false);
  shadow.on_object(route_to(8, ip_family::v6), false);
  shadow.on_restart({netlink::object_kind::route, {ip_family::v6, 0, 0}});
  shadow.on_object(route_to(7, ip_family::v6), false);
  shadow.complete();
  work_until(stage::whole);
  shadow.compare();
  work_until(stage::compared);
  EXPECT_EQ(shadow.differences(), std::vector<std::string>{});
}

TEST_F(ShadowMirror, ANewDumpMakesAnOldShadowVoid) {
  shadow.begin();
  dump(0, 10);
  shadow.begin();
  dump(0, routes);
  shadow.complete();
  work_until(stage::whole);
  shadow.compare();
  work_until(stage::compared);
  EXPECT_EQ(shadow.differences(), std::vector<std::string>{});
  shadow.abandon();
  EXPECT_EQ(shadow.at(), stage::none);
  while (shadow.busy()) work();
  EXPECT_EQ(live.route_count(), routes);
}

}  // namespace
}  // namespace cowire::detail

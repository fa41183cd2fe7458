// SPDX-License-Identifier: Apache-2.0
/// Comparing two mirrors bit by bit while both change comes to the same as comparing them at once.
#include "world.hpp"

#include <cowire/route/mirror_comparison.hpp>

#include <gtest/gtest.h>
#include <linux/if_bonding.h>

#include <limits>

namespace cowire {
namespace {

using namespace cowire::testing;

/// What is found slice by slice, with `change` called after each.
template <class Change>
std::vector<std::string> found_in_slices(const mirror& left, const mirror& right, Change&& change) {
  mirror_comparison found(left, right);
  for (std::size_t slice = 0; found.advance(1 + slice % 3); ++slice) found.note(change());
  return found.describe();
}

TEST(MirrorComparison, MirrorsThatWereToldTheSameStayEqual) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    random_world left(seed), right(seed);
    for (int i = 0; i < 100; ++i) static_cast<void>(left.step()), static_cast<void>(right.step());
    int steps = 0;
    const auto both = [&] {
      if (++steps > 200) return mirror_changes{};
      mirror_changes changes = left.step();
      changes.merge(right.step());
      return changes;
    };
    EXPECT_EQ(found_in_slices(left.state(), right.state(), both), std::vector<std::string>{})
        << "seed " << seed;
    EXPECT_GT(steps, 10);
  }
}

TEST(MirrorComparison, CarriersOfDevicesThatAreDownAreNoDifference) {
  mirror left = small_world(), right = small_world();
  mirror_changes changes;
  netlink::link link = left.find_device(2)->link;
  const auto told = [&](mirror& to, unsigned flags, bool carrier) {
    link.flags = flags;
    link.carrier = carrier;
    to.apply(link, changes, message_origin::notification);
  };
  const auto nothing = [] { return mirror_changes{}; };
  told(left, netlink::lower_up, true);
  told(right, 0, false);
  EXPECT_EQ(found_in_slices(left, right, nothing), std::vector<std::string>{});
  told(left, 1 | 0x40 | netlink::lower_up, true);  // IFF_UP, IFF_RUNNING
  told(right, 1, false);
  EXPECT_EQ(found_in_slices(left, right, nothing).front(), "link 2");
}

/// A dump goes from the first IPv6 sibling to the last, past what stands between, whatever that
/// is: one route over a group of next hops, too, which is no sibling.
TEST(MirrorComparison, ARouteOverAGroupThatADumpLeavesOutIsNoDifference) {
  mirror followed = small_world(), dumped = small_world();
  mirror_changes changes;
  netlink::route siblings = route_via(net("2600::/128"), "fd00:3::2", 3);
  siblings.next_hops.push_back(route_via(net("2600::/128"), "fd00:3::5", 3).next_hops.front());
  netlink::route between = route_via(net("2600::/128"), "fd00:2::5", 2);
  between.next_hops.push_back(route_via(net("2600::/128"), "fd00:4::5", 4).next_hops.front());
  between.nexthop_id = 31;
  followed.apply(added(siblings), changes, message_origin::notification);
  dumped.apply(siblings, changes, message_origin::dump);
  EXPECT_EQ(difference(followed, dumped), std::vector<std::string>{});
  followed.apply(appended(between), changes, message_origin::notification);
  EXPECT_EQ(difference(followed, dumped), std::vector<std::string>{});
  dumped.apply(route_on(net("2601::/128"), 2), changes, message_origin::dump);
  EXPECT_EQ(difference(followed, dumped).size(), 1u);
}

/// A lost partner moves an 802.3ad bond to another aggregator, and no message says so.
TEST(MirrorComparison, AnotherAggregatorIsTakenOverAndIsNothingThatWasMissed) {
  mirror left = small_world(), right = small_world();
  mirror_changes changes, told;
  netlink::link bond = left.find_device(2)->link, port = left.find_device(3)->link;
  bond.kind = "bond";
  const auto tell = [&](mirror& to, std::uint16_t active, std::uint16_t of_port) {
    bond.info = netlink::bond_info{.mode = BOND_MODE_8023AD, .aggregator_id = active};
    port.bond_slave = netlink::bond_slave_info{.aggregator_id = of_port};
    to.apply(bond, changes, message_origin::notification);
    to.apply(port, changes, message_origin::notification);
  };
  tell(left, 1, 1);
  tell(right, 2, 3);
  EXPECT_EQ(difference(left, right), std::vector<std::string>{});
  mirror_comparison found(left, right);
  while (found.advance(1)) continue;
  found.add_to(told);
  EXPECT_EQ(told.links, (std::vector<std::uint32_t>{2, 3}));
  port.bond_slave->mii_status = 1;
  right.apply(port, changes, message_origin::notification);
  EXPECT_EQ(difference(left, right), std::vector<std::string>{"link 3"});
}

TEST(MirrorComparison, ABondThatIsDownMayDifferInItsCarrierAndItsAggregator) {
  mirror left = small_world(), right = small_world();
  mirror_changes changes;
  netlink::link bond = left.find_device(2)->link;
  bond.kind = "bond";
  const auto tell = [&](mirror& to, std::uint32_t flags, std::uint16_t active) {
    bond.flags = flags;
    bond.info = netlink::bond_info{.mode = BOND_MODE_8023AD, .aggregator_id = active};
    to.apply(bond, changes, message_origin::notification);
  };
  tell(left, netlink::lower_up, 1);
  tell(right, 0, 2);
  EXPECT_EQ(difference(left, right), std::vector<std::string>{});
}

TEST(MirrorComparison, FindsInSlicesWhatTheWholeComparisonFinds) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    random_world left(seed), right(seed);
    for (int i = 0; i < 100; ++i) static_cast<void>(left.step()), static_cast<void>(right.step());
    int steps = 0;
    const auto either = [&] {
      if (++steps > 200) return mirror_changes{};
      return left.random()() % 2 == 0 ? left.step() : right.step();
    };
    const auto in_slices = found_in_slices(left.state(), right.state(), either);
    EXPECT_EQ(in_slices, difference(left.state(), right.state())) << "seed " << seed;
    EXPECT_FALSE(in_slices.empty()) << "seed " << seed;
  }
}

TEST(MirrorComparison, TellsACompilerWhichRoutesDiffer) {
  mirror left = small_world(), right = small_world();
  mirror_changes ignored, told;
  left.apply(route_via(net("20.0.0.0/8"), "10.2.0.2", 2), ignored, message_origin::dump);
  right.apply(route_via(net("fd01::/16"), "fd00:2::2", 2, 100), ignored, message_origin::dump);
  mirror_comparison found(left, right);
  while (found.advance(std::numeric_limits<std::size_t>::max())) continue;
  found.add_to(told);
  ASSERT_EQ(told.routes.size(), 2u);
  EXPECT_EQ(told.count(), 2u);
  for (const auto& [table, prefix] : told.routes)
    EXPECT_TRUE((table == 254 && prefix == net("20.0.0.0/8")) ||
                (table == 100 && prefix == net("fd01::/16")));
}

}  // namespace
}  // namespace cowire

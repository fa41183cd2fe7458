// SPDX-License-Identifier: Apache-2.0
#include "world.hpp"

#include <cowire/route/compiler.hpp>
#include <cowire/route/multipath_hash.hpp>
#include <cowire/route/resolve.hpp>

#include <gtest/gtest.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>

#include <cmath>

namespace cowire {
namespace {

using namespace cowire::testing;

constexpr std::size_t flows = 10'000;

/// A route over u2, u3 and u4 with weights 1, 2 and 5.
struct weighted {
  explicit weighted(ip_family family, std::uint8_t policy, std::uint32_t seed)
      : v4(family == ip_family::v4) {
    mirror_changes changes;
    mirror_settings settings;
    settings.multipath_hash_seed = seed;
    settings.multipath_v4.policy = settings.multipath_v6.policy = policy;
    state.set_settings(settings, changes);
    route = route_via(net(v4 ? "20.0.0.0/8" : "2001:db8::/32"), v4 ? "10.2.0.2" : "fd00:2::2", 2);
    route.next_hops.push_back({3, ip(v4 ? "10.3.0.2" : "fd00:3::2"), 2, 0, false});
    route.next_hops.push_back({4, ip(v4 ? "10.4.0.2" : "fd00:4::2"), 5, 0, false});
    state.apply(route, changes, message_origin::notification);
  }

  /// The device of flow `i`: under policy 0 flows differ by destination, under 1 by port alone.
  [[nodiscard]] std::uint32_t device_of(std::size_t i, bool by_port) const {
    flow question;
    question.cls.source_port = 8001;
    question.destination_port = static_cast<std::uint16_t>(by_port ? 1000 + i : 9000);
    auto bytes = ip(v4 ? "20.1.0.0" : "2001:db8::").bytes();
    if (!by_port) {
      bytes[v4 ? 2 : 14] = static_cast<std::uint8_t>(i >> 8);
      bytes[v4 ? 3 : 15] = static_cast<std::uint8_t>(i);
    }
    question.destination = ip_address::from_bytes(v4 ? ip_family::v4 : ip_family::v6, bytes.data());
    return resolve(state, question).interface_index;
  }

  mirror state = small_world();
  netlink::route route;
  bool v4;
};

class Distribution
    : public ::testing::TestWithParam<std::tuple<ip_family, std::uint8_t, std::uint32_t>> {};

TEST_P(Distribution, FollowsTheWeights) {
  const auto [family, policy, seed] = GetParam();
  weighted world(family, policy, seed);
  std::map<std::uint32_t, double> share;
  for (std::size_t i = 0; i < flows; ++i) share[world.device_of(i, policy == 1)] += 1.0 / flows;
  EXPECT_NEAR(share[2], 1.0 / 8, 0.02);
  EXPECT_NEAR(share[3], 2.0 / 8, 0.02);
  EXPECT_NEAR(share[4], 5.0 / 8, 0.02);
}

TEST_P(Distribution, OfADeadMemberGoesToTheOthersByTheirWeights) {
  const auto [family, policy, seed] = GetParam();
  weighted world(family, policy, seed);
  mirror_changes changes;
  netlink::link down = ethernet(3, "u3");
  down.flags = 0;
  world.state.apply(down, changes, message_origin::notification);
  std::map<std::uint32_t, double> share;
  for (std::size_t i = 0; i < flows; ++i) share[world.device_of(i, policy == 1)] += 1.0 / flows;
  EXPECT_EQ(share.count(3), 0u);
  EXPECT_NEAR(share[2], 1.0 / 6, 0.02);
  EXPECT_NEAR(share[4], 5.0 / 6, 0.02);
}

INSTANTIATE_TEST_SUITE_P(All, Distribution,
                         ::testing::Combine(::testing::Values(ip_family::v4, ip_family::v6),
                                            ::testing::Values(std::uint8_t{0}, std::uint8_t{1}),
                                            ::testing::Values(0u, 305419896u)));

TEST(MultipathHash, LooksAtNothingButTheFieldsOfThePolicy) {
  const auto a = ip("20.0.0.1"), b = ip("20.0.0.2"), none = ip_address::any(ip_family::v4);
  const auto port = [](int n) { return be16::from_host(static_cast<std::uint16_t>(n)); };
  const multipath_hash addresses(7, multipath_fields(ip_family::v4, 0, 0), IPPROTO_UDP);
  EXPECT_EQ(addresses(none, a, port(1), port(2)), addresses(none, a, port(3), port(4)));
  EXPECT_NE(addresses(none, a, port(1), port(2)), addresses(none, b, port(1), port(2)));
  const multipath_hash ports(7, multipath_fields(ip_family::v4, 1, 0), IPPROTO_UDP);
  EXPECT_NE(ports(none, a, port(1), port(2)), ports(none, a, port(1), port(4)));
  const multipath_hash custom(7, multipath_fields(ip_family::v4, 3, 0x20), IPPROTO_UDP);
  EXPECT_EQ(custom(none, a, port(1), port(2)), custom(b, b, port(5), port(2)));
  EXPECT_NE(custom(none, a, port(1), port(2)), custom(none, a, port(1), port(4)));
  const multipath_hash nothing(7, multipath_fields(ip_family::v4, 3, 0), IPPROTO_UDP);
  EXPECT_EQ(nothing(none, a, port(1), port(2)), 0u);
}

TEST(MultipathHash, IsTheSameInBothDirections) {
  const auto a = ip("2001:db8::1"), b = ip("fd00::2");
  const multipath_hash hash(7, multipath_fields(ip_family::v6, 1, 0), IPPROTO_UDP);
  const auto near = be16::from_host(8001), far = be16::from_host(300);
  EXPECT_EQ(hash(a, b, near, far), hash(b, a, far, near));
}

}  // namespace
}  // namespace cowire

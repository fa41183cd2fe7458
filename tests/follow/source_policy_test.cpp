// SPDX-License-Identifier: Apache-2.0
// What decides about IPv6 source addresses without a message is read, and read again.
#include <cowire/follow/detail/sysctls.hpp>

#include <tests/support/netns.hpp>

namespace cowire::test {
namespace {

bool is_default() { return detail::read_mirror_settings(mirror()).default_source_policy; }

TEST(SourcePolicy, OtherLabelsAreSeen) {
  NETNS_OR_SKIP();
  const netns host;
  const netns::scope inside(host);
  EXPECT_TRUE(is_default());
  host("ip addrlabel add prefix 2600::/16 label 5");
  EXPECT_FALSE(is_default());
  host("ip addrlabel del prefix 2600::/16 label 5");
  EXPECT_TRUE(is_default());
  host("ip addrlabel del prefix fc00::/7 label 5");
  EXPECT_FALSE(is_default());
}

TEST(SourcePolicy, RestrictionToTheOutputDeviceIsSeen) {
  NETNS_OR_SKIP();
  const netns host;
  const netns::scope inside(host);
  host("sysctl -qw net.ipv6.conf.all.use_oif_addrs_only=1");
  EXPECT_FALSE(is_default());
}

}  // namespace
}  // namespace cowire::test

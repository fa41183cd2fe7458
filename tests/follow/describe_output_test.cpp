// SPDX-License-Identifier: Apache-2.0
// What watchers of routes hear of the output path.
#include <cowire/follow/detail/describe_output.hpp>

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace cowire::detail {
namespace {

std::vector<std::string> lines(const output_snapshot& before, const output_snapshot& after) {
  std::vector<std::string> out;
  for (const route_change& one : describe_output(before, after, mirror{})) {
    EXPECT_EQ(one.what, route_change::kind::output);
    out.push_back((one.removed ? "- " : "+ ") + one.layer + "|" + one.device + "|" + one.detail);
  }
  return out;
}

using expected = std::vector<std::string>;

TEST(describe_output, is_silent_about_layers_that_are_as_they_were) {
  const output_snapshot state;
  EXPECT_TRUE(lines(state, state).empty());
}

TEST(describe_output, tells_what_is_in_force_in_each_layer_that_changed) {
  const output_snapshot before;
  output_snapshot after;
  after.netfilter.legacy_tables_v4 = after.netfilter.legacy_tables_v6 = {"filter"};
  after.netfilter.hooks = std::vector<output_hook>{{ip_family::v6, "ipv6_conntrack_local"}};
  after.ipsec = {{netlink::xfrm_policy{}, netlink::xfrm_policy{}}, true, {}};
  after.cgroup = {{12}, {}, {3, 4, 5}, {}};
  EXPECT_EQ(
      lines(before, after),
      (expected{"+ netfilter||0 tables, 0 rules, generation 0, 1 hook function, "
                "legacy table filter",
                "+ conntrack||IPv6 tracked",
                "+ ipsec||2 output policies, without one datagrams are blocked",
                "+ control_groups||egress: program of id 12, sendmsg of IPv6: programs of ids 3 "
                "and 4 and 5"}));
  EXPECT_EQ(lines(after, before),
            (expected{"+ netfilter||0 tables, 0 rules, generation 0",
                      "+ conntrack||no connection is tracked", "+ ipsec||0 output policies",
                      "+ control_groups||no program"}));
}

TEST(describe_output, tells_of_devices_one_by_one) {
  output_snapshot before, after;
  before.devices[2] = before.devices[3] =
      before.devices[4] = {"v0", {{"noqueue", 0, 0, false}}, {}, {}, {}};
  after.devices = before.devices;
  after.devices[2].name = "v1";  // Links are told of elsewhere.
  after.devices[3] = {
      "v0", {{"mq", 1, 0, false}, {"fq", 2, 1, true}}, "u32, preference 1", {9}, {}};
  after.devices.erase(4);
  after.devices[5] = {};
  EXPECT_EQ(lines(before, after),
            (expected{"+ traffic_control|if3|mq, fq, filter u32, preference 1, "
                      "program of id 9",
                      "- traffic_control|if4|the device has gone",
                      "+ traffic_control|if5|no queueing discipline"}));
}

TEST(describe_output, says_why_a_layer_cannot_be_read) {
  output_snapshot after;
  after.netfilter.rules_unreadable = after.ipsec.unreadable_because =
      after.cgroup.unreadable_because = after.devices_unreadable = "no permission";
  const std::string why = "||cannot be read: no permission";
  EXPECT_EQ(lines({}, after), (expected{"+ netfilter" + why, "+ conntrack" + why, "+ ipsec" + why,
                                        "+ traffic_control" + why, "+ control_groups" + why}));
}

}  // namespace
}  // namespace cowire::detail

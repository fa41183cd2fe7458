// SPDX-License-Identifier: Apache-2.0
// Rulesets made by hand: what no kernel would load, or no random world is likely to make.
#include "nft_register.hpp"

#include <cowire/route/output_path.hpp>

#include <gtest/gtest.h>

namespace cowire {
namespace {

namespace nft = netlink::nft;
namespace ex = netlink::nft::expressions;

using cowire::testing::number;

nft::expression say(std::int32_t code, std::string chain = {}) {
  return {
      "immediate", ex::immediate{ex::verdict_register, nft::verdict{code, std::move(chain)}}, {}};
}
nft::expression statement(std::string name) { return {std::move(name), ex::other{}, {}}; }
nft::expression mark() { return {"meta", ex::meta_load{0, ex::meta_key::mark}, {}}; }
nft::expression state() { return {"ct", ex::ct_load{0, ex::ct_key_state}, {}}; }
nft::expression equals(std::uint32_t value) {
  return {"cmp", ex::compare{0, ex::compare::equal, number(value)}, {}};
}
nft::expression load(std::uint32_t value) {
  return {"immediate", ex::immediate{0, number(value)}, {}};
}
nft::expression set_mark() { return {"meta", ex::meta_write{0, ex::meta_key::mark}, {}}; }

using rules = std::vector<std::vector<nft::expression>>;

class walk : public ::testing::Test {
 protected:
  walk() {
    region_.destination = ip_prefix::all(ip_family::v4);
    region_.mark_matters_below = false;
    rules_.tables[{nft::family::inet, "t", {}}] = {nft::family::inet, "t", 0};
  }
  nft::chain& add(const std::string& name, const rules& content,
                  std::optional<std::int32_t> priority = {}, const std::string& type = "filter",
                  std::uint32_t hook = 3) {
    nft::ruleset::chain_rules made;
    made.chain.table = "t";
    made.chain.name = name;
    made.chain.type = type;
    if (priority) made.chain.hook = nft::chain_hook{hook, *priority, {}};
    for (const auto& expressions : content)
      made.rules.push_back(
          {nft::family::inet, "t", name, made.rules.size() + 1, expressions, false});
    return (rules_.chains[{nft::family::inet, "t", name}] = std::move(made)).chain;
  }
  [[nodiscard]] output_verdict judge(tracking_state tracked = tracking_state::fresh) const {
    return judge_ruleset(rules_, region_, tracked);
  }

  nft::ruleset rules_;
  output_flow region_;
};

TEST_F(walk, without_rules_nothing_is_touched) {
  EXPECT_TRUE(judge().untouched());
  add("b", {}, 0);
  EXPECT_TRUE(judge().untouched());
}

TEST_F(walk, names_table_chain_rule_and_what_it_is) {
  add("b", {{statement("log")}}, 0);
  const auto found = judge();
  EXPECT_EQ(found.reason, divert_reason::netfilter);
  EXPECT_EQ(found.obstacle, "table inet t, chain b, rule 1: log");
  EXPECT_TRUE(found.certain);
}

TEST_F(walk, what_is_not_understood_is_an_obstacle_wherever_it_is) {
  add("b", {{statement("something new")}}, 0);
  EXPECT_FALSE(judge().untouched());
  add("b", {}, 0).not_understood = true;
  EXPECT_FALSE(judge().untouched());
  add("b", {{say(nft::verdict::jump, "c")}}, 0);
  add("c", {}).not_understood = true;
  EXPECT_FALSE(judge().untouched());
  add("c", {{}});
  EXPECT_TRUE(judge().untouched());
  rules_.chains[{nft::family::inet, "t", "c"}].rules.edit(0).not_understood = true;
  EXPECT_FALSE(judge().untouched());
}

/// "ip ecn ce drop", "ip dscp af11 drop" and "@nh,8,8 0x2a drop", as nft loads them.
TEST_F(walk, rules_cannot_be_sure_of_ecn_bits_that_datagrams_choose) {
  const auto octet = [](std::uint8_t value) { return nft::bytes{std::byte{value}}; };
  const auto drop_if = [&](std::uint8_t mask, std::uint8_t value) {
    const nft::expression load_tos{
        "payload", ex::payload_load{0, ex::payload_base::network, 1, 1}, {}};
    const nft::expression masked{"bitwise", ex::bitwise{0, 0, 1, octet(mask), octet(0)}, {}};
    const nft::expression compared{"cmp", ex::compare{0, ex::compare::equal, octet(value)}, {}};
    add("b", {{load_tos, masked, compared, say(0)}}, 0);  // NF_DROP
  };
  region_.tos = 0x28;
  drop_if(0x03, 0x03);
  EXPECT_TRUE(judge().untouched());
  region_.any_ecn = true;
  EXPECT_FALSE(judge().untouched());
  EXPECT_FALSE(judge().certain);
  drop_if(0xff, 0x2a);
  EXPECT_FALSE(judge().untouched());
  drop_if(0xff, 0x4a);
  EXPECT_TRUE(judge().untouched());
  drop_if(0xfc, 0x48);
  EXPECT_TRUE(judge().untouched());
  drop_if(0xfc, 0x28);
  EXPECT_TRUE(judge().certain);
}

TEST_F(walk, a_counter_is_an_obstacle_where_counters_are_strict) {
  const auto strictly = [&] { return judge_ruleset(rules_, region_, tracking_state::fresh, true); };
  const nft::expression counter{"counter", ex::soft{}, {}};
  add("b", {{mark(), equals(7), counter, say(nft::verdict::accept)}}, 0);
  EXPECT_TRUE(strictly().untouched());  // The mark is 0.
  region_.mark = 7;
  EXPECT_TRUE(judge().untouched());
  EXPECT_EQ(strictly().obstacle, "table inet t, chain b, rule 1: counter");
  EXPECT_TRUE(strictly().certain);
  add("b", {{state(), equals(8), counter}}, 0);
  EXPECT_FALSE(strictly().untouched());
  add("b", {}, 0).policy_counts = true;
  EXPECT_TRUE(judge().untouched());
  EXPECT_EQ(strictly().obstacle, "table inet t, chain b: the counter of its policy");
  add("b", {{say(nft::verdict::accept)}}, 0).policy_counts = true;
  EXPECT_TRUE(strictly().untouched());
}

TEST_F(walk, an_element_that_counts_is_an_obstacle_where_counters_are_strict) {
  add("b", {{mark(), {"lookup", ex::lookup{"s", 0, {}, false}, {}}}}, 0);
  nft::ruleset::set_contents set;
  set.set.table = "t";
  set.set.name = "s";
  set.set.key_length = 4;
  nft::element one;
  one.key = number(7);
  set.elements.add(one);
  one.key = number(8);
  one.counts = true;
  set.elements.add(one);
  rules_.sets[{nft::family::inet, "t", "s"}] = set;
  for (const std::uint32_t mark : {7u, 8u, 9u}) {
    region_.mark = mark;
    EXPECT_TRUE(judge().untouched());
    EXPECT_EQ(mark != 8, judge_ruleset(rules_, region_, tracking_state::fresh, true).untouched());
  }
}

TEST_F(walk, a_jump_to_nowhere_a_loop_and_too_many_jumps_are_obstacles) {
  add("b", {{say(nft::verdict::jump, "c")}}, 0);
  EXPECT_FALSE(judge().untouched());
  add("c", {{say(nft::verdict::go_to, "c")}});
  EXPECT_FALSE(judge().untouched());
  const auto chain_of = [&](int jumps) {
    for (int i = 1; i < jumps; ++i)
      add("c" + std::to_string(i), {{say(nft::verdict::jump, "c" + std::to_string(i + 1))}});
    add("c" + std::to_string(jumps), {{say(nft::verdict::accept)}});
    add("b", {{say(nft::verdict::jump, "c1")}}, 0);
  };
  chain_of(16);
  EXPECT_TRUE(judge().untouched());
  chain_of(17);
  EXPECT_FALSE(judge().untouched());
}

TEST_F(walk, a_match_of_x_tables_on_a_header_that_no_datagram_has_never_matches) {
  for (const auto& [name, matches] : {std::pair{"rt", false},
                                      {"frag", false},
                                      {"hbh", false},
                                      // A tunnel's outer datagram may have one; nobody knows.
                                      {"dst", true},
                                      {"eui64", true},
                                      {"something new", true}}) {
    add("b", {{{"match", ex::xt_match{name, 0, nft::bytes(64)}, {}}, say(nft::verdict::drop)}}, 0);
    EXPECT_EQ(!matches, judge().untouched()) << name;
  }
}

TEST_F(walk, what_has_no_connections_tracked_is_known_by_name) {
  netfilter_state state;
  const auto tracks = [&](const nft::expression& one) {
    add("b", {{one}}, 0);
    state.rules = rules_;
    return tracks_connections(state, ip_family::v4);
  };
  for (const char* name : {"REJECT", "LOG", "MARK", "CHECKSUM"})
    EXPECT_FALSE(tracks(statement(std::string("target:") + name))) << name;
  for (const char* name : {"MASQUERADE", "DNAT", "CT", "CONNMARK", "SYNPROXY", "something new"})
    EXPECT_TRUE(tracks(statement(std::string("target:") + name))) << name;
  for (const char* name : {"udp", "rt", "limit", "icmp6"})
    EXPECT_FALSE(tracks({"match", ex::xt_match{name, 0, {}}, {}})) << name;
  for (const char* name : {"state", "conntrack", "connlimit", "connbytes", "something new"})
    EXPECT_TRUE(tracks({"match", ex::xt_match{name, 0, {}}, {}})) << name;
  EXPECT_TRUE(tracks(statement("match")));
  EXPECT_TRUE(tracks(statement("masq")));
  EXPECT_FALSE(tracks(statement("log")));
}

TEST_F(walk, a_dormant_table_is_not_in_force) {
  add("b", {{say(nft::verdict::drop)}}, 0);
  EXPECT_FALSE(judge().untouched());
  rules_.tables.begin()->second.flags = 1;
  EXPECT_TRUE(judge().untouched());
}

TEST_F(walk, before_connection_tracking_a_datagram_has_no_state) {
  constexpr std::uint32_t invalid = 1, fresh = 8;
  add("b", {{state(), equals(fresh), say(nft::verdict::drop)}}, -300);
  EXPECT_TRUE(judge().untouched());
  add("b", {{state(), equals(invalid), say(nft::verdict::drop)}}, -300);
  EXPECT_FALSE(judge().untouched());
  add("b", {{state(), equals(invalid), say(nft::verdict::drop)}}, -150);
  EXPECT_TRUE(judge().untouched());
  // At the very priority, nobody knows which comes first.
  for (const std::uint32_t any : {invalid, fresh}) {
    add("b", {{state(), equals(any), say(nft::verdict::drop)}}, -200);
    EXPECT_FALSE(judge().untouched());
  }
}

TEST_F(walk, a_datagram_has_neither_extension_headers_nor_options) {
  constexpr std::uint8_t fragment = 44, udp = 17, router_alert = 148;
  const auto load = [](std::uint32_t of, std::uint8_t type, bool presence) {
    return nft::expression{"exthdr", ex::option_load{0, of, type, presence}, {}};
  };
  const auto is = [](int value) {
    return nft::expression{
        "cmp", ex::compare{0, ex::compare::equal, nft::bytes{std::byte(value)}}, {}};
  };
  const auto judge_with = [&](const nft::expression& x) {
    add("a", {{x, is(1), say(nft::verdict::drop)}}, 0);
    return judge().untouched();
  };
  EXPECT_TRUE(judge_with(load(ex::option_load::ipv4, router_alert, true)));
  EXPECT_TRUE(judge_with(load(ex::option_load::ipv4, router_alert, false)));
  EXPECT_TRUE(judge_with(load(ex::option_load::tcp, 2, false)));
  // Not so of IPv4 datagrams in every kernel; and without a look at presence 0 is no answer.
  EXPECT_FALSE(judge_with(load(ex::option_load::ipv6, fragment, true)));
  EXPECT_FALSE(judge_with(load(ex::option_load::tcp, 2, true)));
  add("a", {{load(ex::option_load::ipv4, router_alert, true), is(0), say(nft::verdict::drop)}}, 0);
  EXPECT_TRUE(judge().certain);
  region_.destination = ip_prefix::all(ip_family::v6);
  EXPECT_TRUE(judge_with(load(ex::option_load::ipv6, fragment, true)));
  EXPECT_TRUE(judge_with(load(ex::option_load::ipv6, fragment, false)));
  EXPECT_FALSE(judge_with(load(ex::option_load::ipv6, udp, true))) << "that is found";
  EXPECT_FALSE(judge_with(load(ex::option_load::ipv4, router_alert, true)));
  // A tunnel may put a limit of encapsulations in front of what it carries.
  region_.ip_protocol = 47;
  EXPECT_FALSE(judge_with(load(ex::option_load::ipv6, 60, true)));
}

TEST_F(walk, a_flow_that_may_be_untracked_may_have_any_state) {
  constexpr std::uint32_t untracked = 64;
  add("b", {{state(), equals(untracked), say(nft::verdict::drop)}}, 0);
  EXPECT_TRUE(judge().untouched());
  add("a", {{{"rt", ex::unknown_load{}, {}}, equals(7), {"notrack", ex::notrack{}, {}}}}, -300);
  EXPECT_FALSE(judge().untouched());
  add("b", {{state(), equals(8), say(nft::verdict::drop)}}, 0);
  EXPECT_FALSE(judge().untouched());
}

TEST_F(walk, a_flow_that_is_untracked_for_certain_has_that_state_and_is_not_translated) {
  constexpr std::uint32_t fresh = 8, untracked = 64;
  const std::vector<nft::expression> no_tracking{{"notrack", ex::notrack{}, {}}};
  add("a", {no_tracking}, -300);
  add("b", {{state(), equals(untracked), say(nft::verdict::drop)}}, 0);
  EXPECT_TRUE(judge().certain);
  add("b", {{state(), equals(fresh), say(nft::verdict::drop)}}, 0);
  EXPECT_TRUE(judge().untouched());
  // Without an entry there is no direction: the rule ends there.
  const nft::expression direction{"ct", ex::ct_load{0, ex::ct_key_direction}, {}};
  add("b", {{direction, say(nft::verdict::drop)}}, 0);
  EXPECT_TRUE(judge().untouched());
  add("b", {}, 0);
  add("p", {{statement("masq")}}, 100, "nat", 4);
  EXPECT_TRUE(judge().untouched());
  // Of two chains at one priority nobody knows which is first, but both are passed.
  add("a2", {}, -300);
  EXPECT_TRUE(judge().untouched());
  // Too late, and where it may be too late.
  for (const std::int32_t priority : {-200, -150}) {
    add("a", {no_tracking}, priority);
    EXPECT_EQ(judge().reason, divert_reason::nat);
  }
}

TEST_F(walk, only_destinations_that_pass_a_notrack_need_no_entry) {
  const nft::expression first_byte{
      "payload", ex::payload_load{0, ex::payload_base::network, 16, 1}, {}};
  const nft::expression is_ten{"cmp", ex::compare{0, ex::compare::equal, {std::byte{10}}}, {}};
  add("a", {{first_byte, is_ten, {"notrack", ex::notrack{}, {}}}}, -300);
  add("b", {{state(), equals(8), say(nft::verdict::accept)}}, 0);
  output_snapshot s;
  s.netfilter.rules = rules_;
  const auto tracked = [&](const char* where) {
    region_.destination = *ip_prefix::parse(where);
    const output_verdict found = judge_output(s, region_);
    EXPECT_TRUE(found.untouched());
    return found.tracked;
  };
  EXPECT_FALSE(tracked("10.1.2.3/32"));
  EXPECT_FALSE(tracked("10.0.0.0/8"));
  EXPECT_TRUE(tracked("11.0.0.0/8"));
  EXPECT_TRUE(tracked("0.0.0.0/0"));
  // Translations of what passes are none of it; those of others are.
  add("p", {{statement("masq")}}, 100, "nat", 4);
  s.netfilter.rules = rules_;
  EXPECT_FALSE(tracked("10.0.0.0/8"));
  region_.destination = *ip_prefix::parse("11.0.0.0/8");
  EXPECT_EQ(judge_output(s, region_).reason, divert_reason::nat);
}

TEST_F(walk, marks_are_seen_by_later_chains_and_by_all_of_the_same_priority) {
  add("a", {{load(5), set_mark()}}, -10);
  add("b", {{mark(), equals(5), say(nft::verdict::drop)}}, 0);
  EXPECT_FALSE(judge().untouched());
  add("a", {{load(5), set_mark()}}, 10);
  EXPECT_TRUE(judge().untouched());
  add("c", {{mark(), equals(5), say(nft::verdict::drop)}}, 10);
  EXPECT_FALSE(judge().untouched());
}

TEST_F(walk, a_mark_that_matters_below_or_routes_anew_is_an_obstacle_unless_it_is_the_same) {
  add("a", {{load(5), set_mark()}}, 0);
  EXPECT_TRUE(judge().untouched());
  region_.mark_matters_below = true;
  EXPECT_FALSE(judge().untouched());
  region_.mark = 5;
  EXPECT_TRUE(judge().untouched());
  region_.mark_matters_below = false;
  add("a", {{load(6), set_mark()}}, 0, "route");
  EXPECT_FALSE(judge().untouched());
}

TEST_F(walk, translation_concerns_the_first_datagram_of_a_connection) {
  add("p", {{statement("masq")}}, 100, "nat", 4);
  EXPECT_EQ(judge().reason, divert_reason::nat);
  EXPECT_TRUE(judge(tracking_state::established).untouched());
}

TEST_F(walk, sets_that_packets_fill_or_that_time_out_decide_nothing) {
  const nft::object_key key{nft::family::inet, "t", "s"};
  auto& set = rules_.sets[key];
  set.set = {nft::family::inet, "t", "s", 0, 4, false, {}, false};
  const auto looked_up = [&](bool inverted) {
    add("b", {{mark(), {"lookup", ex::lookup{"s", 0, {}, inverted}, {}}, say(nft::verdict::drop)}},
        0);
    return judge().untouched();
  };
  EXPECT_TRUE(looked_up(false));
  EXPECT_FALSE(looked_up(true));
  set.filled_by_packets = true;
  EXPECT_FALSE(looked_up(false));
  set.filled_by_packets = false;
  set.elements.add({number(0), {}, {}, false, false, false});
  EXPECT_FALSE(looked_up(false));
  EXPECT_TRUE(looked_up(true));
  set.set.flags = nft::set_timeout;
  EXPECT_FALSE(looked_up(true));
  set.elements.add({number(0), {}, {}, false, false, true});
  EXPECT_FALSE(looked_up(false));
  rules_.sets.clear();
  EXPECT_FALSE(looked_up(false));
}

netlink::xfrm_policy block_all() {
  netlink::xfrm_policy out;
  out.index = 1;
  out.blocks = true;
  out.source = out.destination = ip_prefix::all(ip_family::v6);
  return out;
}

/// To all of IPv6, by device 7.
output_flow by_seven() {
  output_flow out;
  out.destination = ip_prefix::all(ip_family::v6);
  out.devices = {7};
  return out;
}

TEST(output_path_layers, each_has_its_reason_and_what_cannot_be_read_is_an_obstacle) {
  output_flow region = by_seven();
  const auto reason = [&](auto&& change) {
    output_snapshot s;
    change(s);
    EXPECT_FALSE(is_empty(s));
    return judge_output(s, region).reason;
  };
  EXPECT_TRUE(is_empty({}));
  using enum divert_reason;
  EXPECT_EQ(cgroup_program, reason([](auto& s) { s.cgroup.egress = {1}; }));
  EXPECT_EQ(cgroup_program, reason([](auto& s) { s.cgroup.sendmsg_v6 = {1}; }));
  EXPECT_EQ(std::nullopt, reason([](auto& s) { s.cgroup.sendmsg_v4 = {1}; }));
  EXPECT_EQ(cgroup_program, reason([](auto& s) { s.cgroup.unreadable_because = "EPERM"; }));
  EXPECT_EQ(ipsec, reason([](auto& s) { s.ipsec.policies.push_back(block_all()); }));
  EXPECT_EQ(ipsec, reason([](auto& s) { s.ipsec.unreadable_because = "EPERM"; }));
  EXPECT_EQ(netfilter, reason([](auto& s) { s.netfilter.rules_unreadable = "EPERM"; }));
  EXPECT_EQ(netfilter, reason([](auto& s) { s.netfilter.legacy_unreadable = "EACCES"; }));
  EXPECT_EQ(netfilter, reason([](auto& s) { s.netfilter.legacy_tables_v6 = {"raw"}; }));
  EXPECT_EQ(std::nullopt, reason([](auto& s) { s.netfilter.legacy_tables_v4 = {"raw"}; }));
  const auto hook = [](const char* function) {
    return [=](output_snapshot& s) { s.netfilter.hooks = {{ip_family::v6, function}}; };
  };
  EXPECT_EQ(netfilter, reason(hook("ip_vs_out_hook")));
  EXPECT_EQ(netfilter, reason(hook("")));
  EXPECT_EQ(std::nullopt, reason(hook("apparmor_ip_postroute")));
  EXPECT_EQ(std::nullopt, reason(hook("ipv6_conntrack_local")));
  output_snapshot tracking;
  EXPECT_FALSE(judge_output(tracking, region).tracked);
  hook("ipv6_conntrack_local")(tracking);
  EXPECT_TRUE(judge_output(tracking, region).tracked);
  region.passes_vrf = true;
  EXPECT_EQ(conntrack_new, judge_output(tracking, region).reason);
  region.passes_vrf = false;
  tracking.obeyed.conntrack = false;
  EXPECT_FALSE(judge_output(tracking, region).tracked);
  EXPECT_EQ(queueing_discipline, reason([](auto& s) { s.devices_unreadable = "EPERM"; }));
  const auto discipline = [](const char* kind, bool shapes) {
    return [=](output_snapshot& s) { s.devices[7].disciplines = {{kind, 1, 0, shapes}}; };
  };
  EXPECT_EQ(queueing_discipline, reason(discipline("of the future", false)));
  EXPECT_EQ(queueing_discipline, reason(discipline("fq", true)));
  EXPECT_EQ(tc_egress, reason([](auto& s) { s.devices[7].filter = "u32"; }));
  EXPECT_EQ(tc_egress, reason([](auto& s) { s.devices[7].programs = {1}; }));
  EXPECT_EQ(std::nullopt, reason([](auto& s) { s.devices[8].programs = {1}; }));
}

TEST(output_path_layers, an_obstacle_is_named_as_its_owner_knows_it) {
  const auto obstacle = [](auto&& change) {
    output_snapshot s;
    s.devices[7].name = "eth0";
    change(s);
    return judge_output(s, by_seven()).obstacle;
  };
  EXPECT_EQ("egress program of id 12 of the control group", obstacle([](auto& s) {
              s.cgroup.egress = {12, 3};
            }));
  EXPECT_EQ("sendmsg program of id 5 of the control group",
            obstacle([](auto& s) { s.cgroup.sendmsg_v6 = {5}; }));
  EXPECT_EQ("tcx program of id 9 on eth0", obstacle([](auto& s) { s.devices[7].programs = {9}; }));
  EXPECT_EQ("filter of traffic control on eth0: u32, preference 10",
            obstacle([](auto& s) { s.devices[7].filter = "u32, preference 10"; }));
  EXPECT_EQ("queueing discipline tbf (8001:) on eth0", obstacle([](auto& s) {
              s.devices[7].disciplines = {{"tbf", 0x8001'0000, 0, false}};
            }));
  EXPECT_EQ("tcx program of id 9 on the device of index 7", obstacle([](auto& s) {
              s.devices[7].name = {};
              s.devices[7].programs = {9};
            }));
}

}  // namespace
}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/tunnel.hpp>
#include <cowire/cli/config.hpp>
#include <cowire/cli/parse.hpp>

#include <gtest/gtest.h>

#include <fstream>
#include <string>

namespace cowire::cli {
namespace {

using namespace std::chrono_literals;

transmitter_config read(const std::string& text) {
  transmitter_config config;
  file_options more;
  parse_config(text, "f", config, more);
  return config;
}

std::optional<std::uint32_t> intake_group(const std::string& text) {
  transmitter_config config;
  file_options more;
  parse_config(text, "f", config, more);
  return more.intake_group;
}

std::string refusal(const std::string& text) {
  try {
    read(text);
  } catch (const usage_error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(config, an_empty_file_changes_nothing) {
  const auto config = read("# nothing\n");
  EXPECT_TRUE(config.interfaces.empty());
  EXPECT_FALSE(config.mode);
  EXPECT_TRUE(config.cpus.empty());
  EXPECT_TRUE(config.huge_pages);
  EXPECT_TRUE(config.performance_mode);
  EXPECT_EQ(config.update_interval, transmitter_config{}.update_interval);
  EXPECT_EQ(config.ring_capacity, transmitter_config{}.ring_capacity);
  EXPECT_TRUE(config.tunnels.empty());
}

TEST(config, every_key_of_xdp_arrives) {
  const auto config = read(
      "[xdp]\ninterface = ['lo']\ncpus = [0]\nqueues = [5]\ntx_cores = 3\nzero_copy = "
      "true\nring_capacity = 512\n"
      "busy_poll_us = 20\nbusy_poll_budget = 128\nhuge_pages = false\n");
  EXPECT_EQ(config.interfaces, std::vector<std::string>{"lo"});
  EXPECT_EQ(config.cpus, std::vector<unsigned>{0});
  EXPECT_EQ(config.queues, std::vector<std::uint32_t>{5});
  EXPECT_EQ(config.tx_cores, 3u);
  EXPECT_EQ(config.mode, send_mode::zero_copy);
  EXPECT_EQ(config.ring_capacity, 512u);
  EXPECT_EQ(config.busy_poll, 20us);
  EXPECT_EQ(config.busy_poll_budget, 128u);
  EXPECT_FALSE(config.huge_pages);
  EXPECT_EQ(read("[xdp]\nzero_copy = false\n").mode, send_mode::copy);
  EXPECT_FALSE(config.idle);
  EXPECT_EQ(read("[xdp]\nidle = 'spin'\n").idle, idle_policy::spin);
  EXPECT_EQ(read("[xdp]\nidle = 'yield'\n").idle, idle_policy::yield);
  EXPECT_EQ(read("[xdp]\nidle = 'adaptive'\n").idle, idle_policy::adaptive);
  EXPECT_EQ(read("[xdp]\ninterface = 'lo'\n").interfaces, std::vector<std::string>{"lo"});
}

TEST(config, the_period_of_redump_checks_is_in_seconds) {
  const auto config = read("[doublezero]\nupdate_interval = 0.25\nperformance_mode = false\n");
  EXPECT_EQ(config.update_interval, 250ms);
  EXPECT_FALSE(config.performance_mode);
  EXPECT_EQ(read("[doublezero]\nupdate_interval = 0\n").update_interval, 0ms);
}

TEST(config, the_intakes_group_is_a_name_or_a_number) {
  EXPECT_EQ(intake_group("[intake]\n"), std::nullopt);
  EXPECT_EQ(intake_group("[intake]\ngroup = 'root'\n"), 0u);
  EXPECT_EQ(intake_group("[intake]\ngroup = 4321\n"), 4321u);
  EXPECT_EQ(intake_group("[intake]\ngroup = '4321'\n"), 4321u);
  EXPECT_NE(refusal("[intake]\ngroup = 'no-such-group'\n").find("f:2:9: group 'no-such-group'"),
            std::string::npos);
  EXPECT_NE(refusal("[intake]\ngroup = 4294967295\n").find("4294967294"), std::string::npos);
}

TEST(config, the_keys_of_multicast_are_a_senders_options) {
  const auto told = [](const std::string& text) {
    transmitter_config config;
    file_options more;
    parse_config(text, "f", config, more);
    return more;
  };
  const file_options none = told("[multicast]\n");
  EXPECT_FALSE(none.multicast_ttl || none.multicast_interface || none.multicast_loop);
  const file_options all = told("[multicast]\nttl = 0\ninterface = 'lo'\nloop = false\n");
  EXPECT_EQ(all.multicast_ttl, 0u);
  EXPECT_EQ(all.multicast_interface, "lo");
  EXPECT_EQ(all.multicast_loop, false);
  EXPECT_NE(refusal("[multicast]\nttl = 256\n").find("255"), std::string::npos);
  EXPECT_NE(refusal("[multicast]\ninterface = 'no-such-if'\n").find("f:2:13: interface"),
            std::string::npos);
  EXPECT_NE(refusal("[multicast]\ngroup = 1\n").find("use one of ttl, interface, loop"),
            std::string::npos);
}

TEST(config, restrictions_are_unset_unless_told_and_may_be_empty) {
  const auto untold = read("[doublezero]\n").restrictions;
  EXPECT_FALSE(untold.routing_tables);
  EXPECT_FALSE(untold.tunnel_interfaces);
  EXPECT_FALSE(untold.tunnel_prefixes);
  const auto told = read(
                        "[doublezero]\nrouting_tables = ['main', 100, '0x65']\n"
                        "tunnel_interfaces = ['doublezero0']\n"
                        "prefixes = ['192.0.2.0/24', '2001:db8::/32']\n")
                        .restrictions;
  EXPECT_EQ(told.routing_tables, (std::vector<std::uint32_t>{254, 100, 101}));
  EXPECT_EQ(told.tunnel_interfaces, std::vector<std::string>{"doublezero0"});
  EXPECT_EQ(told.tunnel_prefixes, (std::vector<ip_prefix>{*ip_prefix::parse("192.0.2.0/24"),
                                                          *ip_prefix::parse("2001:db8::/32")}));
  EXPECT_TRUE(read("[doublezero]\nprefixes = []\n").restrictions.tunnel_prefixes->empty());
}

TEST(config, each_layer_of_the_output_path_is_obeyed_unless_told) {
  EXPECT_EQ(read("[output]\n").output, output_layers{});
  const auto all = output_layer_names();
  EXPECT_EQ(all.size(), 5u);
  for (const output_layer_name& layer : all) {
    const std::string key = "[output]\n" + std::string(layer.name);
    EXPECT_EQ(read(key + " = 'obey'\n").output, output_layers{});
    output_layers wanted;
    wanted.*layer.member = false;
    EXPECT_EQ(read(key + " = 'ignore'\n").output, wanted) << key;
  }
}

TEST(config, counters_of_rules_are_soft_unless_told) {
  EXPECT_FALSE(read("[output]\n").output.strict_counters);
  EXPECT_FALSE(read("[output]\ncounters = 'soft'\n").output.strict_counters);
  EXPECT_TRUE(read("[output]\ncounters = 'strict'\n").output.strict_counters);
}

TEST(config, tunnels_have_the_words_of_the_command_line) {
  const auto config = read(
      "[[tunnel]]\nname = 'g0'\nmode = 'gre'\nremote = '10.0.0.2'\nlocal = '10.0.0.1'\nttl = 64\n"
      "tos = 0x10\npmtudisc = false\nignore-df = true\nokey = 5\nikey = '0.0.1.0'\ncsum = true\n"
      "seq = false\nfwmark = 7\ndev = 'eth0'\nmtu = 1400\naddresses = ['169.254.0.1/31', "
      "'fe80::1']\n"
      "[[tunnel]]\nname = 'g1'\nmode = 'ip6gre'\nremote = 'fd00::2'\nhoplimit = 'inherit'\n"
      "encaplimit = 'none'\nflowlabel = 0x12345\n");
  ASSERT_EQ(config.tunnels.size(), 2u);
  const auto& first = config.tunnels[0];
  EXPECT_EQ(first.name, "g0");
  EXPECT_TRUE(first.up);
  EXPECT_EQ(first.mtu, 1400u);
  EXPECT_EQ(first.addresses,
            (std::vector<interface_address>{{*ip_address::parse("169.254.0.1"), 31},
                                            {*ip_address::parse("fe80::1"), 128}}));
  const std::vector<tunnel_word> words = {{"mode", "gre"},
                                          {"remote", "10.0.0.2"},
                                          {"local", "10.0.0.1"},
                                          {"dev", "eth0"},
                                          {"ttl", "64"},
                                          {"tos", "0x10"},
                                          {"nopmtudisc", ""},
                                          {"ignore-df", ""},
                                          {"ikey", "256"},
                                          {"okey", "5"},
                                          {"csum", ""},
                                          {"fwmark", "0x7"},
                                          {"mtu", "1400"},
                                          {"address", "169.254.0.1/31"},
                                          {"address", "fe80::1/128"}};
  EXPECT_EQ(words_of(first), words);
  const auto& second = config.tunnels[1];
  EXPECT_EQ(second.kind, "ip6gre");
  EXPECT_EQ(second.info.ttl, 0);
  EXPECT_EQ(second.info.flow_info.host(), 0x12345u);
}

// (file, beginning of the message)
const std::vector<std::pair<const char*, const char*>>& wrong_files() {
  static const std::vector<std::pair<const char*, const char*>> wrong = {
      {"xdp = 1\n", "f:1:7: xdp: not a table"},
      {"[xdq]\n", "f:1:2: 'xdq': no such table"},
      {"[xdp]\ninterfaces = 'lo'\n",
       "f:2:1: 'interfaces': no such key in [xdp]; use one of interface"},
      {"[xdp]\ninterface = 'nosuch0'\n", "f:2:13: interface 'nosuch0': no such network interface"},
      {"[xdp]\ninterface = ['lo', 5]\n", "f:2:20: interface: not a string"},
      {"[xdp]\ncpus = 0\n", "f:2:8: cpus: not an array"},
      {"[xdp]\ncpus = [99999]\n", "f:2:9: cpus '99999': out of range"},
      {"[xdp]\ncpus = [0, 0]\n", "f:2:12: cpus: 0 twice"},
      {"[xdp]\nqueues = 3\n", "f:2:10: queues: not an array"},
      {"[xdp]\nqueues = [65536]\n", "f:2:11: queues '65536': out of range"},
      {"[xdp]\nqueues = [7, 7]\n", "f:2:14: queues: 7 twice"},
      {"[xdp]\ntx_cores = 0\n", "f:2:12: tx_cores '0': out of range; use 1 to 64"},
      {"[xdp]\nidle = 'busy'\n", "f:2:8: idle 'busy': use \"spin\", \"yield\" or \"adaptive\""},
      {"[xdp]\n\nzero_copy = 1\n", "f:3:13: zero_copy: neither true nor false"},
      {"[xdp]\nring_capacity = 63\n", "f:2:17: ring_capacity '63': out of range; use 64 to 65536"},
      {"[xdp]\nbusy_poll_us = 10001\n",
       "f:2:16: busy_poll_us '10001': out of range; use 0 to 10000"},
      {"[xdp]\nbusy_poll_budget = 0\n",
       "f:2:20: busy_poll_budget '0': out of range; use 1 to 1024"},
      {"[xdp]\nring_capacity = '64'\n", "f:2:17: ring_capacity: not a whole number"},
      {"[doublezero]\nupdate_intervall = 3\n",
       "f:2:1: 'update_intervall': no such key in [doublezero]"},
      {"[doublezero]\nupdate_interval = -1\n", "f:2:19: update_interval: not a number of seconds"},
      {"[doublezero]\nupdate_interval = nan\n", "f:2:19: update_interval: not a number of seconds"},
      {"[output]\nnetfilter = 'ignored'\n",
       "f:2:13: netfilter 'ignored': use \"obey\" or \"ignore\""},
      {"[output]\nipsec = false\n", "f:2:9: ipsec: not a string"},
      {"[output]\nfirewall = 'ignore'\n",
       "f:2:1: 'firewall': no such key in [output]; use one of netfilter, conntrack, ipsec, "
       "traffic_control, control_groups, counters, tracked_flows"},
      {"[output]\ntracked_flows = 0\n",
       "f:2:17: tracked_flows '0': out of range; use 1 to 1048576"},
      {"[output]\ntracked_flows = '9'\n", "f:2:17: tracked_flows: not a whole number"},
      {"[tunnel]\nname = 'x'\n", "f:1:1: tunnel: not an array of tables"},
      {"[[tunnel]]\nmode = 'gre'\n", "f:1:1: [[tunnel]]: no name"},
      {"[[tunnel]]\nname = 'x'\n", "f:1:1: [[tunnel]]: no mode"},
      {"[[tunnel]]\nname = 'a b'\nmode = 'gre'\n", "f:2:8: name 'a b': not a name"},
      {"[[tunnel]]\nname = 'x'\nmode = 'vxlan'\n", "f:3:8: mode 'vxlan': no such mode"},
      {"[[tunnel]]\nname = 'x'\nmode = 'gre'\nremot = '10.0.0.1'\n", "f:4:1: 'remot': not a word"},
      {"[[tunnel]]\nname = 'x'\nmode = 'gre'\nremote = 'fd00::1'\n",
       "f:4:10: remote 'fd00::1': not of the family"},
      {"[[tunnel]]\nname = 'x'\nmode = 'gre'\nttl = 256\n", "f:4:7: ttl '256': out of range"},
      {"[[tunnel]]\nname = 'x'\nmode = 'gre'\nmtu = '14x'\n", "f:4:7: mtu '14x': not a number"},
      {"[[tunnel]]\nname = 'x'\nmode = 'gre'\ncsum = 1\n", "f:4:8: csum: neither true nor false"},
      {"[[tunnel]]\nname = 'x'\nmode = 'gre'\nnocsum = true\n",
       "f:4:1: 'nocsum': write csum = false"},
      {"[[tunnel]]\nname = 'x'\nmode = 'ipip'\nkey = 1\n",
       "f:4:7: key: a tunnel of mode ipip has none"},
      {"[[tunnel]]\nname = 'x'\nmode = 'gre'\nignore-df = true\n",
       "f:1:1: tunnel x: ignore-df excludes pmtudisc"},
      {"[[tunnel]]\nname = 'x'\nmode = 'gre'\naddresses = ['10.0.0.1/33']\n",
       "f:4:14: addresses '33': out of range"},
      {"[[tunnel]]\nname = 'x'\nmode = 'gre'\n[[tunnel]]\nname = 'x'\nmode = 'gre'\n",
       "f:5:8: name 'x': declared before"},
      {"[doublezero]\nrouting_tables = ['nosuch']\n", "f:2:19: table 'nosuch': no such name"},
      {"[doublezero]\nrouting_tables = [true]\n", "f:2:19: routing_tables: not a string"},
      {"[doublezero]\ntunnel_interfaces = ['']\n", "f:2:22: tunnel_interfaces '': not a name"},
      {"[doublezero]\nprefixes = ['10.0.0.0/8', '10.0.0.0/33']\n",
       "f:2:27: prefixes '10.0.0.0/33': not a prefix"},
      {"[[[xdp]]]\n", "f:1:3: "},
      {"[xdp]\na\xc2\xa1 = 1\n", "f:2:2: a character that is not ASCII"},
      {"[xdp\n", "f:1:5: "},
      {"[xdp]\nzero_copy = yes\n", "f:2:13: "},
      {"[xdp]\nzero_copy = true\nzero_copy = true\n", "f:3:"},
  };
  return wrong;
}

TEST(config, what_is_wrong_is_told_with_file_line_and_column) {
  for (const auto& [text, message] : wrong_files())
    EXPECT_TRUE(refusal(text).starts_with(message))
        << text << "\n is " << refusal(text) << "\n not " << message;
}

TEST(config, every_message_is_one_line) {
  for (const char* text : {"[xdp\n", "a = \"\n", "[xdp]\ninterface = 'a\nb'\n", "\x80\x81",
                           "a=1\na=2", "# gr\xc3\xbc\xc3\x9f"})
    EXPECT_EQ(refusal(text).find('\n'), std::string::npos) << refusal(text);
}

TEST(config, the_shipped_example_is_accepted) {
  transmitter_config config;
  file_options more;
  read_config(COWIRE_SOURCE "/examples/doublezero.toml", config, more);
  EXPECT_TRUE(config.interfaces.empty());
  EXPECT_FALSE(config.mode);
  EXPECT_EQ(config.update_interval, 30s);
  EXPECT_EQ(config.restrictions.routing_tables, (std::vector<std::uint32_t>{254, 100, 101}));
  EXPECT_EQ(config.restrictions.tunnel_interfaces->size(), 2u);
  EXPECT_EQ(config.restrictions.tunnel_prefixes->size(), 2u);
  EXPECT_EQ(config.output, output_layers{});
  ASSERT_EQ(config.tunnels.size(), 1u);
  EXPECT_EQ(config.tunnels[0].info.ttl, 64);
  EXPECT_FALSE(config.tunnels[0].info.pmtu_discovery);
  EXPECT_EQ(config.tunnels[0].mtu, 1476u);
  EXPECT_EQ(config.tunnels[0].addresses.size(), 1u);
}

// What it leaves out is one character away from use.
TEST(config, the_shipped_example_shows_the_other_keys_too) {
  std::ifstream file(COWIRE_SOURCE "/examples/doublezero.toml");
  std::string text;
  for (std::string line; std::getline(file, line); text += line + '\n')
    if (line.starts_with("#interface"))
      line = "interface = 'lo'";
    else if (line.starts_with("#cpus"))
      line = "cpus = [0]";
    else if (line.starts_with("#zero_copy") || line.starts_with("#tx_cores") ||
             line.starts_with("#queues") || line.starts_with("#idle"))
      line.erase(0, 1);
  const auto config = read(text);
  EXPECT_EQ(config.interfaces, std::vector<std::string>{"lo"});
  EXPECT_EQ(config.cpus, std::vector<unsigned>{0});
  EXPECT_EQ(config.tx_cores, 2u);
  EXPECT_EQ(config.idle, idle_policy::adaptive);
  EXPECT_EQ(config.mode, send_mode::zero_copy);
}

TEST(config, a_file_that_cannot_be_read_is_named) {
  transmitter_config config;
  try {
    file_options more;
    read_config("/nonexistent/c.toml", config, more);
    FAIL();
  } catch (const usage_error& error) {
    EXPECT_NE(std::string(error.what()).find("/nonexistent/c.toml"), std::string::npos);
  }
}

}  // namespace
}  // namespace cowire::cli

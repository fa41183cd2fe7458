// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/parse.hpp>
#include <cowire/cli/tunnel_words.hpp>

#include <gtest/gtest.h>

#include <sstream>
#include <string>

namespace cowire::cli {
namespace {

std::vector<std::string> split(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

tunnel_declaration parse(const std::string& text) { return parse_tunnel(split(text)); }

std::string said(const tunnel_declaration& tunnel) {
  std::string out = tunnel.name;
  for (const auto& [word, value] : words_of(tunnel))
    out += " " + word + (value.empty() ? "" : " " + value);
  return out;
}

// What `ip tunnel` and `ip link` of iproute2 send where nothing is told.
TEST(tunnel_words, defaults_are_those_of_iproute2) {
  const auto gre = parse("g mode gre remote 10.0.0.2");
  EXPECT_EQ(gre.kind, "gre");
  EXPECT_EQ(gre.info.ttl, 0);
  EXPECT_EQ(gre.info.tos, 0);
  EXPECT_TRUE(gre.info.pmtu_discovery);
  EXPECT_EQ(gre.info.output_flags, 0);
  EXPECT_EQ(gre.mtu, 0u);
  EXPECT_FALSE(gre.up);
  const auto ip6gre = parse("g mode ip6gre remote fd00::2");
  EXPECT_EQ(ip6gre.info.ttl, 64);
  EXPECT_EQ(ip6gre.info.encap_limit, 4);
  EXPECT_EQ(ip6gre.info.flags, 0u);
  EXPECT_EQ(ip6gre.info.encapsulation_flags, 2);  // TUNNEL_ENCAP_FLAG_CSUM6
}

TEST(tunnel_words, modes_have_the_names_of_both_commands) {
  const auto kind_and_protocol = [](const char* mode) {
    const auto tunnel = tunnel_of_mode("x", mode);
    return tunnel.kind + " " + std::to_string(tunnel.info.protocol);
  };
  EXPECT_EQ(kind_and_protocol("gre/ip"), "gre 0");
  EXPECT_EQ(kind_and_protocol("gre/ipv6"), "ip6gre 0");
  EXPECT_EQ(kind_and_protocol("gretap"), "gretap 0");
  EXPECT_EQ(kind_and_protocol("ip6gretap"), "ip6gretap 0");
  EXPECT_EQ(kind_and_protocol("ipip"), "ipip 4");
  EXPECT_EQ(kind_and_protocol("sit"), "sit 41");
  EXPECT_EQ(kind_and_protocol("ip6ip6"), "ip6tnl 41");
  EXPECT_EQ(kind_and_protocol("ipip6"), "ip6tnl 4");
  EXPECT_EQ(kind_and_protocol("any"), "ip6tnl 0");
}

// What is shown can be said again.
TEST(tunnel_words, what_is_told_comes_back_in_the_same_words) {
  for (
      const char* text :
      {"g mode gre remote 10.0.0.2 local 10.0.0.1 ttl 64 nopmtudisc",
       "g mode gre remote 10.0.0.2 local 10.0.0.1 dev eth0 ttl inherit tos 0xb8 pmtudisc key 5",
       "g mode gretap remote 10.0.0.2 local any ttl 1 tos inherit nopmtudisc ignore-df ikey 5 okey "
       "6 icsum oseq fwmark 0x10 mtu 1400",
       "g mode gre remote 10.0.0.2 local any ttl inherit tos inherit/0xb8 pmtudisc csum seq",
       "g mode ip6gre remote fd00::2 local fd00::1 hoplimit inherit encaplimit none tclass inherit "
       "flowlabel 0x12345 allow-localremote key 7 fwmark inherit",
       "g mode ip6gretap remote fd00::2 local any hoplimit 3 encaplimit 0 tclass 0x20 flowlabel "
       "inherit",
       "g mode ipip remote 10.0.0.2 local any ttl 9 pmtudisc",
       "g mode sit remote any local 10.0.0.1 ttl inherit pmtudisc",
       "g mode ip6ip6 remote fd00::2 local any hoplimit 64 encaplimit 4 tclass 0x0 flowlabel 0x0",
       "g mode ipip6 remote fd00::2 local any hoplimit 64 encaplimit 4 tclass 0x0 flowlabel 0x0",
       "g mode any remote fd00::2 local any hoplimit 64 encaplimit 4 tclass 0x0 flowlabel 0x0"})
    EXPECT_EQ(said(parse(text)), text);
}

TEST(tunnel_words, keys_are_numbers_or_dotted) {
  EXPECT_EQ(parse("g mode gre key 1.2.3.4").info.output_key.host(), 0x01020304u);
  EXPECT_EQ(parse("g mode gre key 0x10").info.input_key.host(), 16u);
  EXPECT_EQ(parse("g mode gre key 0").info.output_flags, 0x2000);  // On the wire, and zero.
}

TEST(tunnel_words, a_multicast_remote_gives_its_address_as_key) {
  const auto tunnel = parse("g mode gre remote 239.1.1.1 local 10.0.0.1 okey 5");
  EXPECT_EQ(tunnel.info.input_key.host(), 0xef010101u);
  EXPECT_EQ(tunnel.info.output_key.host(), 5u);
  EXPECT_EQ(tunnel.info.input_flags, 0x2000);
}

TEST(tunnel_words, a_change_leaves_what_it_does_not_tell) {
  auto tunnel = parse("g mode gre remote 10.0.0.2 local 10.0.0.1 ttl 64 tos 0x10 key 5 csum seq");
  parse_tunnel_change(tunnel, split("nokey noicsum ttl inherit"));
  EXPECT_EQ(said(tunnel),
            "g mode gre remote 10.0.0.2 local 10.0.0.1 ttl inherit tos 0x10 pmtudisc ocsum seq");
  auto v6 = parse("g mode ip6gre remote fd00::2 tclass inherit flowlabel inherit encaplimit none");
  parse_tunnel_change(v6, split("tclass 20 flowlabel 5 encaplimit 3 mode ip6gre"));
  EXPECT_EQ(said(v6),
            "g mode ip6gre remote fd00::2 local any hoplimit 64 encaplimit 3 tclass 0x20 flowlabel "
            "0x5");
}

TEST(tunnel_words, a_mode_does_not_change) {
  auto tunnel = parse("g mode gre remote 10.0.0.2");
  EXPECT_THROW(parse_tunnel_change(tunnel, split("mode gretap")), usage_error);
  auto six = parse("g mode ip6ip6 remote fd00::2");
  parse_tunnel_change(six, split("mode any"));  // The same kind of device.
  EXPECT_EQ(six.info.protocol, 0);
}

// (words, what the message must contain)
TEST(tunnel_words, each_refusal_names_the_word_and_the_limit) {
  const std::vector<std::pair<const char*, const char*>> wrong = {
      {"", "tunnel add: no name"},
      {"g", "tunnel g: no mode"},
      {"g mode", "tunnel g: no mode"},
      {"g mode vti", "mode 'vti': no such mode"},
      {"name-too-long-by-far mode gre", "1 to 15 characters"},
      {"a/b mode gre", "not a name"},
      {"g mode gre remote", "'remote': its value is missing"},
      {"g mode gre remot 10.0.0.1", "'remot': not a word"},
      {"g mode gre remote 10.0.0", "remote '10.0.0': not an IP address"},
      {"g mode gre remote fd00::1", "use an IPv4 address"},
      {"g mode ip6gre remote 10.0.0.1", "use an IPv6 address"},
      {"g mode gre ttl 0", "ttl '0': out of range; use 1 to 255"},
      {"g mode gre tos 100", "tos '100': out of range; use 0 to 255"},
      {"g mode ip6gre tos inherit/10", "IPv6 has no base"},
      {"g mode gre key x", "key 'x': not a number"},
      {"g mode gre key 1.2.3", "key '1.2.3': not a key"},
      {"g mode gre fwmark inherit", "fwmark 'inherit': not a number"},
      {"g mode ipip key 5", "only gre, gretap, ip6gre and ip6gretap"},
      {"g mode sit csum", "only gre, gretap"},
      {"g mode ip6gre pmtudisc", "only gre, gretap, ipip and sit"},
      {"g mode ipip ignore-df", "only gre and gretap"},
      {"g mode gre encaplimit 4", "only ip6gre"},
      {"g mode ip6gre encaplimit 256", "encaplimit '256': out of range"},
      {"g mode ip6gre flowlabel 100000", "flowlabel '100000': out of range"},
      {"g mode gre mtu 67", "mtu '67': out of range; use 68 to 65535"},
      {"g mode gre dev a/b", "dev 'a/b'"},
      {"g mode gre ignore-df", "add nopmtudisc"},
      {"g mode gre remote 239.1.1.1", "needs a local address"},
      {"g mode gre mode gretap", "cannot change"},
  };
  for (const auto& [words, needle] : wrong) try {
      static_cast<void>(parse(words));
      ADD_FAILURE() << words << " is accepted";
    } catch (const usage_error& error) {
      EXPECT_NE(std::string(error.what()).find(needle), std::string::npos)
          << words << "\n is " << error.what();
    }
}

}  // namespace
}  // namespace cowire::cli

// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/address.hpp>

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <unordered_set>

namespace cowire {
namespace {

ip_address address(std::string_view text) {
  const auto parsed = ip_address::parse(text);
  EXPECT_TRUE(parsed) << text;
  return parsed.value_or(ip_address());
}
ip_prefix prefix(std::string_view text) {
  const auto parsed = ip_prefix::parse(text);
  EXPECT_TRUE(parsed) << text;
  return parsed.value_or(ip_prefix());
}

TEST(be16_and_be32, hold_network_order) {
  EXPECT_EQ(be16::from_host(0x1234).raw, htons(0x1234));
  EXPECT_EQ(be16::from_host(0x1234).host(), 0x1234);
  EXPECT_EQ(be32::from_host(0x12345678).raw, htonl(0x12345678));
  EXPECT_EQ(be32::from_host(0x12345678).host(), 0x12345678u);
}

TEST(mac_address, prints_and_parses) {
  const auto mac = mac_address::parse("02:00:5e:10:fF:0a");
  ASSERT_TRUE(mac);
  EXPECT_EQ(mac->to_string(), "02:00:5e:10:ff:0a");
  for (const char* wrong :
       {"", "02:00:5e:10:ff", "02:00:5e:10:ff:0", "02:00:5e:10:ff:0g", "02-00-5e-10-ff-0a",
        "02:00:5e:10:ff:0a:", "0x:00:5e:10:ff:0a", "-2:00:5e:10:ff:0a", "02:00:5e:10:ff: a"})
    EXPECT_FALSE(mac_address::parse(wrong)) << wrong;
}

TEST(ip_address, parses_and_prints_both_families) {
  EXPECT_EQ(address("10.1.2.3").to_string(), "10.1.2.3");
  EXPECT_EQ(address("10.1.2.3").v4_host(), 0x0a010203u);
  EXPECT_EQ(address("10.1.2.3"), ip_address::v4(0x0a010203));
  EXPECT_EQ(address("2001:DB8:0:0::1").to_string(), "2001:db8::1");
  EXPECT_EQ(address("::").to_string(), "::");
  EXPECT_TRUE(address("::1").is_v6());
  EXPECT_EQ(address("::ffff:10.0.0.1").family(), ip_family::v6);
  for (const char* wrong : {"", "10.1.2", "10.1.2.256", "10.1.2.3.4", " 10.1.2.3", "10.1.2.3 ",
                            "10.1.2.3/8", "fe80::1%1", "[::1]", "1:2:3:4:5:6:7:8:9", "default",
                            "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc"})
    EXPECT_FALSE(ip_address::parse(wrong)) << wrong;
}

TEST(ip_address, knows_its_kind) {
  EXPECT_TRUE(address("224.0.0.1").is_multicast());
  EXPECT_TRUE(address("239.255.255.255").is_multicast());
  EXPECT_FALSE(address("223.255.255.255").is_multicast());
  EXPECT_FALSE(address("240.0.0.1").is_multicast());
  EXPECT_TRUE(address("ff02::1").is_multicast());
  EXPECT_FALSE(address("fe80::1").is_multicast());
  EXPECT_TRUE(address("fe80::1").is_link_local_v6());
  EXPECT_TRUE(address("febf::1").is_link_local_v6());
  EXPECT_FALSE(address("fec0::1").is_link_local_v6());
  EXPECT_TRUE(address("127.9.9.9").is_loopback());
  EXPECT_TRUE(address("::1").is_loopback());
  EXPECT_FALSE(address("::").is_loopback());
  EXPECT_TRUE(address("0.0.0.0").is_unspecified());
  EXPECT_TRUE(address("::").is_unspecified());
  EXPECT_NE(address("0.0.0.0"), address("::"));
}

TEST(ip_address, bits_are_counted_from_the_most_significant) {
  EXPECT_TRUE(address("128.0.0.1").bit(0));
  EXPECT_FALSE(address("128.0.0.1").bit(1));
  EXPECT_TRUE(address("128.0.0.1").bit(31));
  EXPECT_TRUE(address("::1").bit(127));
}

TEST(ip_prefix, clears_host_bits) {
  EXPECT_EQ(prefix("10.1.2.3/8").to_string(), "10.0.0.0/8");
  EXPECT_EQ(prefix("255.255.255.255/0").to_string(), "0.0.0.0/0");
  EXPECT_EQ(prefix("10.1.2.3").to_string(), "10.1.2.3/32");
  EXPECT_EQ(prefix("2001:db8:ffff::1/33").to_string(), "2001:db8:8000::/33");
  EXPECT_EQ(prefix("2001:db8::1").length(), 128u);
  for (const char* wrong :
       {"", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8x", "10.0.0.0/8/8",
        "::/129", "default", "10.0.0.0/ 8", "10.0.0.0/4294967304"})
    EXPECT_FALSE(ip_prefix::parse(wrong)) << wrong;
}

TEST(ip_prefix, contains_what_shares_its_bits) {
  EXPECT_TRUE(prefix("10.0.0.0/8").contains(address("10.255.0.1")));
  EXPECT_FALSE(prefix("10.0.0.0/8").contains(address("11.0.0.0")));
  EXPECT_FALSE(prefix("0.0.0.0/0").contains(address("::")));
  EXPECT_TRUE(prefix("0.0.0.0/0").contains(address("255.255.255.255")));
  EXPECT_TRUE(prefix("10.0.0.0/8").contains(prefix("10.0.0.0/8")));
  EXPECT_TRUE(prefix("10.0.0.0/8").contains(prefix("10.3.0.0/16")));
  EXPECT_FALSE(prefix("10.3.0.0/16").contains(prefix("10.0.0.0/8")));
  EXPECT_EQ(prefix("10.0.0.0/9").last(), address("10.127.255.255"));
  EXPECT_EQ(prefix("2001:db8::/127").last(), address("2001:db8::1"));
  EXPECT_EQ(prefix("0.0.0.0/0").last(), address("255.255.255.255"));
}

TEST(ip_prefix, containment_agrees_with_comparing_bits_at_random) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 5000; ++i) {
    const auto a = ip_address::v4(static_cast<std::uint32_t>(random()));
    const auto flipped = static_cast<unsigned>(random() % 32);
    const auto b = ip_address::v4(a.v4_host() ^ 1u << (31 - flipped));
    const ip_prefix p(a, static_cast<unsigned>(random() % 33));
    ASSERT_TRUE(p.contains(a));
    ASSERT_TRUE(p.contains(p.last()));
    ASSERT_EQ(p.contains(b), flipped >= p.length()) << p.to_string();
  }
}

TEST(ip_prefix, sorts_prefixes_directly_before_what_they_contain) {
  EXPECT_LT(prefix("10.0.0.0/8"), prefix("10.0.0.0/16"));
  EXPECT_LT(prefix("10.0.0.0/16"), prefix("10.1.0.0/16"));
  EXPECT_LT(prefix("10.255.0.0/16"), prefix("11.0.0.0/8"));
  EXPECT_LT(prefix("255.0.0.0/8"), prefix("::/0"));
}

TEST(endpoint, prints_and_parses) {
  for (const char* text : {"10.0.0.1:8001", "[fd00::1]:8001", "10.0.0.1:1", "[::]:65535"}) {
    const auto parsed = endpoint::parse(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_EQ(parsed->to_string(), text);
  }
  for (const char* wrong :
       {"", ":", "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "fd00::1:80",
        "[10.0.0.1]:80", "[fd00::1]", "[fd00::1:80", "a:80", "10.0.0.1:+80", "10.0.0.1:80 "})
    EXPECT_FALSE(endpoint::parse(wrong)) << wrong;
}

TEST(ip_address, a_mapped_address_is_the_ipv4_host) {
  EXPECT_EQ(address("::ffff:10.9.0.2").unmapped(), address("10.9.0.2"));
  EXPECT_EQ(address("::ffff:0.0.0.0").unmapped(), address("0.0.0.0"));
  for (const char* other : {"10.9.0.2", "::", "::1", "::10.9.0.2", "::fffe:10.9.0.2",
                            "64:ff9b::10.9.0.2", "1::ffff:10.9.0.2", "::1:ffff:10.9.0.2"}) {
    EXPECT_FALSE(address(other).is_v4_mapped()) << other;
    EXPECT_EQ(address(other).unmapped(), address(other));
  }
}

TEST(ip_address, needs_a_scope_id_where_only_a_device_makes_it_unique) {
  for (const char* local : {"fe80::1", "febf::1", "ff01::1", "ff02::1", "ff12::1", "ff32::1"})
    EXPECT_TRUE(address(local).needs_scope_id()) << local;
  for (const char* other :
       {"fec0::1", "fd00::1", "::1", "ff00::1", "ff05::1", "ff0e::1", "169.254.0.1", "224.0.0.1"})
    EXPECT_FALSE(address(other).needs_scope_id()) << other;
}

TEST(endpoint, takes_a_zone_where_the_address_needs_one) {
  const auto parsed = endpoint::parse("[fe80::1%lo]:8001");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->scope_id, 1u);
  EXPECT_EQ(parsed->to_string(), "[fe80::1%lo]:8001");
  EXPECT_EQ(endpoint::parse("[ff02::1%1]:8001"), (endpoint{address("ff02::1"), 8001, 1}));
  EXPECT_EQ((endpoint{address("fe80::1"), 1, 0x7ffffff0}).to_string(), "[fe80::1%2147483632]:1");
  for (const char* wrong :
       {"[fe80::1%]:80", "[fe80::1%nosuch0]:80", "[fe80::1%0]:80", "[fe80::1%2147483632]:80",
        "[fe80::1%4294967297]:80", "[fe80::1%a_name_that_is_too_long]:80", "[fd00::1%lo]:80",
        "[ff0e::1%lo]:80", "10.0.0.1%lo:80", "fe80::1%lo:80", "[%lo]:80", "[fe80::1%lo%lo]:80"})
    EXPECT_FALSE(endpoint::parse(wrong)) << wrong;
}

TEST(endpoint, is_canonical_as_a_socket_understands_it) {
  EXPECT_EQ((endpoint{address("::ffff:10.9.0.2"), 9, 3}).canonical(),
            (endpoint{address("10.9.0.2"), 9}));
  EXPECT_EQ((endpoint{address("fd00::1"), 9, 3}).canonical(), (endpoint{address("fd00::1"), 9}));
  EXPECT_EQ((endpoint{address("fe80::1"), 9, 3}).canonical(), (endpoint{address("fe80::1"), 9, 3}));
}

TEST(hashes, tell_families_lengths_and_ports_apart) {
  std::unordered_set<ip_address> addresses{address("0.0.0.0"), address("::"), address("0.0.0.0")};
  EXPECT_EQ(addresses.size(), 2u);
  std::unordered_set<ip_prefix> prefixes{prefix("10.0.0.0/8"), prefix("10.0.0.0/9")};
  EXPECT_EQ(prefixes.size(), 2u);
  EXPECT_NE(std::hash<ip_prefix>{}(prefix("10.0.0.0/8")),
            std::hash<ip_prefix>{}(prefix("10.0.0.0/9")));
  EXPECT_NE(std::hash<endpoint>{}(*endpoint::parse("10.0.0.1:1")),
            std::hash<endpoint>{}(*endpoint::parse("10.0.0.1:2")));
  EXPECT_NE(std::hash<endpoint>{}({address("fe80::1"), 9, 1}),
            std::hash<endpoint>{}({address("fe80::1"), 9, 2}));
}

}  // namespace
}  // namespace cowire

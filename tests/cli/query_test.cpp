// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/parse.hpp>
#include <cowire/cli/query.hpp>

#include <gtest/gtest.h>
#include <unistd.h>

namespace cowire::cli {
namespace {

flow ask(const std::string& line) { return parse_query(split_query(line)); }

TEST(query, defaults_are_those_of_the_kernel) {
  const auto f = ask("192.0.2.7");
  EXPECT_EQ(f.destination, ip_address::parse("192.0.2.7"));
  EXPECT_EQ(f.cls.ip_protocol, 17);
  EXPECT_EQ(f.cls.uid, ::getuid());
  EXPECT_EQ(f.cls.output_interface, 0u);
  EXPECT_FALSE(f.cls.source_v4 || f.cls.source_v6);
}

TEST(query, takes_every_word_of_ip_route_get) {
  const auto f =
      ask("to 2001:db8::1 from fd00::1 mark 0x7 oif lo tos 10 ipproto tcp sport 5 dport 6 uid 7");
  EXPECT_EQ(f.destination, ip_address::parse("2001:db8::1"));
  EXPECT_EQ(f.cls.source_v6, ip_address::parse("fd00::1"));
  EXPECT_EQ(f.cls.mark, 7u);
  EXPECT_EQ(f.cls.output_interface, 1u);
  EXPECT_EQ(f.cls.tos, 0x10) << "hexadecimal, as ip takes it";
  EXPECT_EQ(f.cls.ip_protocol, 6);
  EXPECT_EQ(f.cls.source_port, 5);
  EXPECT_EQ(f.destination_port, 6);
  EXPECT_EQ(f.cls.uid, 7u);
}

TEST(query, an_ipv4_mapped_address_is_the_ipv4_host) {
  const auto f = ask("::ffff:192.0.2.7 from ::ffff:192.0.2.1");
  EXPECT_EQ(f.destination, ip_address::parse("192.0.2.7"));
  EXPECT_EQ(f.cls.source_v4, ip_address::parse("192.0.2.1"));
  EXPECT_FALSE(f.cls.source_v6);
  EXPECT_EQ(parse_endpoint("to", "[::ffff:192.0.2.7]:1").canonical(),
            endpoint::parse("192.0.2.7:1"));
}

TEST(query, a_zone_is_the_device_and_only_link_local_addresses_have_one) {
  EXPECT_EQ(ask("fe80::1%lo").cls.output_interface, 1u);
  EXPECT_EQ(ask("ff02::1%1").cls.output_interface, 1u);
  for (const char* wrong : {"fe80::1%nosuch0", "fe80::1%", "fd00::1%lo", "192.0.2.7%lo"})
    EXPECT_THROW(static_cast<void>(ask(wrong)), usage_error) << wrong;
}

TEST(query, a_batch_line_may_be_one_for_ip_batch) {
  EXPECT_EQ(split_query("route get 192.0.2.7 mark 1  # why"),
            (std::vector<std::string>{"192.0.2.7", "mark", "1"}));
  EXPECT_TRUE(split_query("  # nothing").empty());
  EXPECT_TRUE(split_query("").empty());
}

TEST(query, numbers_are_whole_and_in_range) {
  EXPECT_EQ(parse_number("n", "0x1f", 0, 100), 31u);
  EXPECT_EQ(parse_number("n", "010", 0, 100), 10u) << "no octal: nobody means it";
  for (const char* bad : {"", " 1", "+1", "-1", "1 ", "1x", "0x", "101", "99999999999999999999999"})
    EXPECT_THROW(static_cast<void>(parse_number("n", bad, 0, 100)), usage_error) << bad;
}

TEST(query, real_numbers_are_finite_and_in_range) {
  EXPECT_EQ(parse_real("n", "1e3", 0.5, 1e3), 1000);
  EXPECT_EQ(parse_real("n", "0.5", 0.5, 1e3), 0.5);
  for (const char* bad : {"", "x", "1x", "0", "-1", "nan", "inf", "1e-400", "0.4", "1001", "1e100"})
    EXPECT_THROW(static_cast<void>(parse_real("n", bad, 0.5, 1e3)), usage_error) << bad;
}

}  // namespace
}  // namespace cowire::cli

// SPDX-License-Identifier: Apache-2.0
#include "tests/netlink/random_message.hpp"

#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/detail/attributes.hpp>
#include <cowire/netlink/request.hpp>

#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/if_tunnel.h>
#include <linux/rtnetlink.h>

#include <cstring>
#include <map>

namespace cowire {
namespace {

using namespace netlink;
using bytes = std::vector<std::byte>;
using attributes = std::map<std::uint16_t, bytes>;

struct raw_request {
  nlmsghdr header{};
  ifinfomsg info{};
  attributes top, data;  ///< Of the message; of IFLA_INFO_DATA.
};

attributes read_attributes(std::span<const std::byte> from) {
  attributes found;
  std::error_code ec;
  netlink::detail::for_each_attribute(from, ec, [&](const netlink::detail::attribute& a) {
    found[a.type] = {a.payload.begin(), a.payload.end()};
  });
  EXPECT_FALSE(ec) << ec.message();
  return found;
}

raw_request take_apart(const bytes& request) {
  raw_request raw;
  std::memcpy(&raw.header, request.data(), sizeof raw.header);
  std::memcpy(&raw.info, request.data() + sizeof raw.header, sizeof raw.info);
  raw.top = read_attributes(std::span(request).subspan(sizeof raw.header + sizeof raw.info));
  if (raw.top.contains(IFLA_LINKINFO))
    raw.data = read_attributes(read_attributes(raw.top[IFLA_LINKINFO])[IFLA_INFO_DATA]);
  return raw;
}

link as_decoded(const bytes& request) {
  std::error_code ec;
  const auto m = decode(request, ec);
  EXPECT_FALSE(ec) << ec.message();
  return m ? std::get<link>(*m) : link{};
}

bytes number_bytes(std::uint32_t value) {
  bytes out(sizeof value);
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}

TEST(link_request, creation_carries_every_attribute_of_every_kind) {
  const unsigned seed = 20260801;
  std::mt19937_64 random(seed);
  for (const char* kind : test::tunnel_kinds)
    for (int round = 0; round < 500; ++round) {
      link wanted;
      wanted.name = "t" + std::to_string(round);
      wanted.kind = kind;
      wanted.mtu = round % 2 == 0 ? 0u : static_cast<std::uint32_t>(round);
      wanted.flags = round % 3 == 0 ? unsigned{IFF_UP} : 0u;
      wanted.info = test::random_tunnel(random, kind);
      ASSERT_EQ(as_decoded(create_link(wanted, 7)), wanted) << kind << ", seed " << seed;
    }
}

TEST(link_request, creation_is_exclusive_and_asks_for_nothing_else) {
  link wanted;
  wanted.name = "t0";
  wanted.kind = "gre";
  wanted.flags = IFF_UP | IFF_NOARP;
  wanted.group = 5;
  wanted.address = {1, 2, 3, 4};
  wanted.info = tunnel_info{};
  const auto raw = take_apart(create_link(wanted, 7));
  EXPECT_EQ(raw.header.nlmsg_type, RTM_NEWLINK);
  EXPECT_EQ(raw.header.nlmsg_flags, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL);
  EXPECT_EQ(raw.header.nlmsg_seq, 7u);
  EXPECT_EQ(raw.info.ifi_flags, unsigned{IFF_UP});
  EXPECT_EQ(raw.info.ifi_change, unsigned{IFF_UP});
  EXPECT_EQ(raw.info.ifi_index, 0);
  EXPECT_EQ(raw.top.size(), 2u);  // Name and link info; an MTU of 0 is the kernel's to choose.
  EXPECT_TRUE(raw.top.contains(IFLA_IFNAME));
}

// What is absent goes back to the kernel's default: so even zeros are written.
TEST(link_request, a_change_carries_every_attribute_even_when_zero) {
  const std::map<std::string, std::vector<std::uint16_t>> wanted_attributes = {
      {"gre",
       {IFLA_GRE_LINK, IFLA_GRE_IFLAGS, IFLA_GRE_OFLAGS, IFLA_GRE_IKEY, IFLA_GRE_OKEY, IFLA_GRE_TTL,
        IFLA_GRE_TOS, IFLA_GRE_PMTUDISC, IFLA_GRE_IGNORE_DF, IFLA_GRE_FWMARK, IFLA_GRE_ENCAP_TYPE,
        IFLA_GRE_ENCAP_FLAGS, IFLA_GRE_ENCAP_SPORT, IFLA_GRE_ENCAP_DPORT}},
      {"ip6gretap",
       {IFLA_GRE_LINK, IFLA_GRE_IFLAGS, IFLA_GRE_OFLAGS, IFLA_GRE_IKEY, IFLA_GRE_OKEY, IFLA_GRE_TTL,
        IFLA_GRE_ENCAP_LIMIT, IFLA_GRE_FLOWINFO, IFLA_GRE_FLAGS, IFLA_GRE_FWMARK,
        IFLA_GRE_ENCAP_TYPE, IFLA_GRE_ENCAP_FLAGS, IFLA_GRE_ENCAP_SPORT, IFLA_GRE_ENCAP_DPORT}},
      {"sit",
       {IFLA_IPTUN_LINK, IFLA_IPTUN_TTL, IFLA_IPTUN_TOS, IFLA_IPTUN_PROTO, IFLA_IPTUN_PMTUDISC,
        IFLA_IPTUN_FLAGS, IFLA_IPTUN_FWMARK, IFLA_IPTUN_ENCAP_TYPE, IFLA_IPTUN_ENCAP_FLAGS,
        IFLA_IPTUN_ENCAP_SPORT, IFLA_IPTUN_ENCAP_DPORT}},
      {"ip6tnl",
       {IFLA_IPTUN_LINK, IFLA_IPTUN_TTL, IFLA_IPTUN_PROTO, IFLA_IPTUN_ENCAP_LIMIT,
        IFLA_IPTUN_FLOWINFO, IFLA_IPTUN_FLAGS, IFLA_IPTUN_FWMARK, IFLA_IPTUN_ENCAP_TYPE,
        IFLA_IPTUN_ENCAP_FLAGS, IFLA_IPTUN_ENCAP_SPORT, IFLA_IPTUN_ENCAP_DPORT}}};
  for (const auto& [kind, types] : wanted_attributes) {
    link wanted;
    wanted.index = 9;
    wanted.kind = kind;
    wanted.info = tunnel_info{};
    const auto raw = take_apart(change_link(wanted, 1));
    EXPECT_EQ(raw.header.nlmsg_flags, NLM_F_REQUEST);
    EXPECT_EQ(raw.info.ifi_index, 9);
    EXPECT_EQ(raw.info.ifi_change, 0u);
    EXPECT_EQ(raw.data.size(), types.size()) << kind;
    for (const auto type : types) EXPECT_TRUE(raw.data.contains(type)) << kind << ' ' << type;
  }
}

TEST(link_request, a_change_is_read_back_as_it_was_asked_for) {
  std::mt19937_64 random(1);
  link wanted;
  wanted.index = 9;
  wanted.kind = "ip6gre";
  wanted.mtu = 1400;
  wanted.info = test::random_tunnel(random, wanted.kind);
  EXPECT_EQ(as_decoded(change_link(wanted, 1)), wanted);
  EXPECT_EQ(take_apart(change_link(wanted, 1)).top[IFLA_MTU], number_bytes(1400));
}

TEST(link_request, flags_and_keys_are_big_endian_and_sit_has_short_flags) {
  link wanted;
  wanted.kind = "gre";
  tunnel_info info;
  info.input_flags = 0x2000;
  info.input_key = be32::from_host(5);
  wanted.info = info;
  const auto gre = take_apart(change_link(wanted, 1));
  EXPECT_EQ(gre.data.at(IFLA_GRE_IFLAGS), (bytes{std::byte{0x20}, std::byte{0}}));
  EXPECT_EQ(gre.data.at(IFLA_GRE_IKEY),
            (bytes{std::byte{0}, std::byte{0}, std::byte{0}, std::byte{5}}));
  wanted.kind = "sit";
  EXPECT_EQ(take_apart(change_link(wanted, 1)).data.at(IFLA_IPTUN_FLAGS).size(), 2u);
}

// gretap refuses a remote of 0.0.0.0 that is spelled out.
TEST(link_request, an_end_point_that_is_not_set_is_left_out) {
  link wanted;
  wanted.kind = "gretap";
  tunnel_info info;
  info.local = ip_address::v4(0x0a000001);
  wanted.info = info;
  const auto raw = take_apart(create_link(wanted, 1));
  EXPECT_TRUE(raw.data.contains(IFLA_GRE_LOCAL));
  EXPECT_FALSE(raw.data.contains(IFLA_GRE_REMOTE));
}

TEST(link_request, removal_names_the_device_by_index) {
  const auto raw = take_apart(remove_link(12, 3));
  EXPECT_EQ(raw.header.nlmsg_type, RTM_DELLINK);
  EXPECT_EQ(raw.header.nlmsg_flags, NLM_F_REQUEST);
  EXPECT_EQ(raw.info.ifi_index, 12);
  EXPECT_TRUE(raw.top.empty());
}

}  // namespace
}  // namespace cowire

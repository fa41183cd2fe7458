// SPDX-License-Identifier: Apache-2.0
#include "tests/netlink/random_message.hpp"

#include <cowire/base/error.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/detail/message_builder.hpp>
#include <cowire/netlink/tc_codec.hpp>

#include <gtest/gtest.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/if_tunnel.h>
#include <linux/neighbour.h>
#include <linux/netconf.h>
#include <linux/nexthop.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <optional>

namespace cowire {
namespace {

using namespace netlink;
using netlink::detail::message_builder;
using bytes = std::vector<std::byte>;

std::error_code error_of(const bytes& message_bytes) {
  std::error_code ec;
  EXPECT_FALSE(decode(message_bytes, ec));
  return ec;
}

template <class T>
T decoded(const bytes& message_bytes) {
  std::error_code ec;
  const auto m = decode(message_bytes, ec);
  EXPECT_FALSE(ec) << ec.message();
  EXPECT_TRUE(m && std::holds_alternative<T>(*m));
  return m && std::holds_alternative<T>(*m) ? std::get<T>(*m) : T{};
}

message_builder ipv4_route(unsigned destination_length = 0) {
  rtmsg header{};
  header.rtm_family = AF_INET;
  header.rtm_dst_len = static_cast<std::uint8_t>(destination_length);
  header.rtm_type = RTN_UNICAST;
  return {RTM_NEWROUTE, 0, 0, header};
}

message_builder ipv4_rule() {
  fib_rule_hdr header{};
  header.family = AF_INET;
  header.action = FR_ACT_TO_TBL;
  return {RTM_NEWRULE, 0, 0, header};
}

message_builder any_link() {
  ifinfomsg header{};
  header.ifi_index = 7;
  return {RTM_NEWLINK, 0, 0, header};
}

TEST(codec, decodes_what_it_encodes) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 20000; ++i) {
    const message original = test::random_message(random);
    std::error_code ec;
    const auto copy = decode(encode(original), ec);
    ASSERT_FALSE(ec) << "message " << i << ": " << ec.message();
    ASSERT_TRUE(copy) << "message " << i;
    ASSERT_EQ(*copy, original) << "message " << i << " of kind " << original.index();
  }
}

TEST(codec, reports_every_truncation_of_a_message) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200; ++i) {
    const bytes whole = encode(test::random_message(random));
    for (std::size_t size = 0; size < whole.size(); ++size) {
      // A copy of exactly this size, so that a sanitizer sees a read past its end.
      const bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
      EXPECT_EQ(error_of(cut), error::truncated);
    }
  }
}

// The header agrees with the cut, so the attributes are what ends too early.
TEST(codec, survives_every_shorter_message) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 200; ++i) {
    const bytes whole = encode(test::random_message(random));
    for (std::uint32_t size = sizeof(nlmsghdr); size < whole.size(); ++size) {
      bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
      std::memcpy(cut.data(), &size, sizeof size);
      std::error_code ec;
      const auto m = decode(cut, ec);
      EXPECT_FALSE(m && ec);
    }
  }
}

TEST(codec, survives_every_corrupted_byte) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 100; ++i) {
    bytes message_bytes = encode(test::random_message(random));
    for (std::byte& victim : message_bytes) {
      const std::byte original = victim;
      for (const unsigned flip : {0x01u, 0x02u, 0x04u, 0x08u, 0x10u, 0x20u, 0x40u, 0x80u, 0xffu}) {
        victim = original ^ static_cast<std::byte>(flip);
        std::error_code ec;
        const auto m = decode(message_bytes, ec);
        EXPECT_FALSE(m && ec);
      }
      victim = original;
    }
  }
}

TEST(codec, ignores_messages_of_others) {
  for (const unsigned type : {0u, 15u, unsigned{RTM_GETROUTE}, unsigned{RTM_NEWQDISC}, 9999u}) {
    std::error_code ec;
    EXPECT_FALSE(
        decode(message_builder(static_cast<std::uint16_t>(type), 0, 0, rtmsg{}).finish(), ec));
    EXPECT_FALSE(ec) << type;
  }
}

TEST(codec, ignores_a_bridge_ports_and_a_wireless_view_of_a_link) {
  ifinfomsg bridge{};
  bridge.ifi_family = AF_BRIDGE;
  std::error_code ec;
  EXPECT_FALSE(decode(message_builder(RTM_NEWLINK, 0, 0, bridge).finish(), ec));
  EXPECT_FALSE(ec);
  auto wireless = any_link();
  wireless.put(IFLA_WIRELESS, std::uint32_t{0});
  EXPECT_FALSE(decode(std::move(wireless).finish(), ec));
  EXPECT_FALSE(ec);
}

TEST(codec, refuses_attributes_of_the_wrong_size) {
  auto priority = ipv4_route();
  priority.put(RTA_PRIORITY, std::uint16_t{1});
  EXPECT_EQ(error_of(std::move(priority).finish()), error::malformed);
  auto gateway = ipv4_route();
  gateway.put(RTA_GATEWAY, ip_address::any(ip_family::v6));
  EXPECT_EQ(error_of(std::move(gateway).finish()), error::malformed);
  auto via = ipv4_route();
  via.put(RTA_VIA, std::uint8_t{2});
  EXPECT_EQ(error_of(std::move(via).finish()), error::malformed);
  auto metric = ipv4_route();
  metric.put_nested(RTA_METRICS, [&] { metric.put(RTAX_MTU, std::uint8_t{1}); });
  EXPECT_EQ(error_of(std::move(metric).finish()), error::malformed);
  auto address = any_link();
  address.put(IFLA_ADDRESS, std::vector<std::uint8_t>(33));
  EXPECT_EQ(error_of(std::move(address).finish()), error::malformed);
  message_builder group(RTM_NEWNEXTHOP, 0, 0, nhmsg{});
  group.put(NHA_ID, std::uint32_t{1});
  group.put(NHA_GROUP, std::array<std::byte, 12>{});
  EXPECT_EQ(error_of(std::move(group).finish()), error::malformed);
}

TEST(codec, refuses_strings_without_an_end) {
  auto name = any_link();
  name.put(IFLA_IFNAME, "eth0", 4);
  EXPECT_EQ(error_of(std::move(name).finish()), error::malformed);
}

TEST(codec, refuses_lengths_that_lie) {
  auto short_attribute = ipv4_route();
  const nlattr too_small{3, RTA_OIF};
  short_attribute.write(short_attribute.begin(sizeof too_small), &too_small, sizeof too_small);
  EXPECT_EQ(error_of(std::move(short_attribute).finish()), error::malformed);
  auto long_attribute = ipv4_route();
  const nlattr too_long{200, RTA_OIF};
  long_attribute.write(long_attribute.begin(sizeof too_long), &too_long, sizeof too_long);
  EXPECT_EQ(error_of(std::move(long_attribute).finish()), error::truncated);
  for (const unsigned length : {0u, 7u, 9u, 0xffffu}) {
    auto hop = ipv4_route();
    rtnexthop header{};
    header.rtnh_len = static_cast<std::uint16_t>(length);
    hop.put(RTA_MULTIPATH, header);
    EXPECT_EQ(error_of(std::move(hop).finish()), error::malformed) << length;
  }
}

TEST(codec, refuses_prefixes_that_cannot_be) {
  auto too_long = ipv4_route(33);
  too_long.put(RTA_DST, ip_address::v4(0x0a000000));
  EXPECT_EQ(error_of(std::move(too_long).finish()), error::malformed);
  EXPECT_EQ(error_of(ipv4_route(8).finish()), error::malformed);  // Without the address.
}

TEST(codec, refuses_objects_without_their_key) {
  ndmsg neighbour_header{};
  neighbour_header.ndm_family = AF_INET;
  EXPECT_EQ(error_of(message_builder(RTM_NEWNEIGH, 0, 0, neighbour_header).finish()),
            error::malformed);
  EXPECT_EQ(error_of(message_builder(RTM_NEWNEXTHOP, 0, 0, nhmsg{}).finish()), error::malformed);
  ifaddrmsg address_header{};
  address_header.ifa_family = AF_INET6;
  EXPECT_EQ(error_of(message_builder(RTM_NEWADDR, 0, 0, address_header).finish()),
            error::malformed);
}

TEST(codec, lists_what_it_does_not_model) {
  auto r = ipv4_route();
  r.put(RTA_OIF, std::uint32_t{3});
  r.put(RTA_NEWDST, std::uint32_t{0});
  r.put(99, std::uint32_t{0});
  r.put_nested(RTA_METRICS, [&] { r.put(40, std::uint32_t{0}); });
  EXPECT_EQ(decoded<route>(std::move(r).finish()).unknown,
            (std::vector<std::uint16_t>{RTA_NEWDST, 99, RTA_METRICS}));
  auto q = ipv4_rule();
  q.put(FRA_FLOW, std::uint32_t{1});  // A realm labels and does not decide.
  q.put(31, std::uint8_t{0});
  EXPECT_EQ(decoded<rule>(std::move(q).finish()).unknown, (std::vector<std::uint16_t>{31}));
}

TEST(codec, reads_the_fields_that_travel_in_network_order) {
  auto q = ipv4_rule();
  q.put(FRA_TUN_ID, std::array<std::uint8_t, 8>{0, 0, 0, 0, 0, 0, 1, 2});
  q.put(26, std::array<std::uint8_t, 4>{0, 1, 2, 3});  // FRA_FLOWLABEL
  const rule r = decoded<rule>(std::move(q).finish());
  EXPECT_EQ(r.tunnel_id, 0x0102u);
  EXPECT_EQ(r.flow_label, 0x010203u);
}

// The attributes of `ip link add g type gre remote 192.168.50.2 local 192.168.50.1 okey 5 ttl 64`.
TEST(codec, reads_a_gre_tunnel) {
  auto l = any_link();
  l.put_nested(IFLA_LINKINFO, [&] {
    l.put(IFLA_INFO_KIND, std::string("gre"));
    l.put_nested(IFLA_INFO_DATA, [&] {
      l.put(IFLA_GRE_LINK, std::uint32_t{0});
      l.put(IFLA_GRE_IFLAGS, std::array<std::uint8_t, 2>{0, 0});
      l.put(IFLA_GRE_OFLAGS, std::array<std::uint8_t, 2>{0x20, 0});
      l.put(IFLA_GRE_OKEY, std::array<std::uint8_t, 4>{0, 0, 0, 5});
      l.put(IFLA_GRE_LOCAL, std::array<std::uint8_t, 4>{192, 168, 50, 1});
      l.put(IFLA_GRE_REMOTE, std::array<std::uint8_t, 4>{192, 168, 50, 2});
      l.put(IFLA_GRE_TTL, std::uint8_t{64});
    });
  });
  const link g = decoded<link>(std::move(l).finish());
  EXPECT_EQ(g.kind, "gre");
  ASSERT_TRUE(std::holds_alternative<tunnel_info>(g.info));
  const auto& info = std::get<tunnel_info>(g.info);
  EXPECT_EQ(info.output_flags, 0x2000);
  EXPECT_EQ(info.output_key.host(), 5u);
  EXPECT_EQ(info.local, ip_address::v4(0xc0a83201));
  EXPECT_EQ(info.remote, ip_address::v4(0xc0a83202));
  EXPECT_EQ(info.ttl, 64);
  EXPECT_TRUE(info.pmtu_discovery);  // Absent means on.
}

TEST(codec, takes_a_mark_without_a_mask_as_whole) {
  auto q = ipv4_rule();
  q.put(FRA_FWMARK, std::uint32_t{5});
  EXPECT_EQ(decoded<rule>(std::move(q).finish()).mark_mask, 0xffffffffu);
}

TEST(codec, joins_both_halves_of_a_members_weight) {
  message_builder group(RTM_NEWNEXTHOP, 0, 0, nhmsg{});
  group.put(NHA_ID, std::uint32_t{9});
  group.put(NHA_GROUP, std::array<std::uint8_t, 8>{1, 0, 0, 0, 0xff, 0x01, 0, 0});
  EXPECT_EQ(decoded<nexthop_object>(std::move(group).finish()).group,
            (std::vector<nexthop_object::member>{{1, 512}}));
}

TEST(envelope, walks_a_datagram_of_several_messages) {
  bytes datagram;
  for (const std::uint32_t sequence : {1u, 2u, 3u}) {
    const netconfmsg odd_size{AF_INET};
    const auto one = message_builder(RTM_NEWNETCONF, NLM_F_MULTI, sequence, odd_size).finish();
    datagram.insert(datagram.end(), one.begin(), one.end());
  }
  std::span<const std::byte> rest = datagram;
  std::error_code ec;
  for (const std::uint32_t sequence : {1u, 2u, 3u}) {
    const auto e = next_envelope(rest, ec);
    ASSERT_TRUE(e);
    EXPECT_EQ(e->sequence, sequence);
  }
  EXPECT_FALSE(next_envelope(rest, ec));
  EXPECT_FALSE(ec);
}

TEST(envelope, reports_a_rest_that_is_no_message) {
  std::error_code ec;
  const bytes scrap(10);
  std::span<const std::byte> rest = scrap;
  EXPECT_FALSE(next_envelope(rest, ec));
  EXPECT_EQ(ec, error::truncated);
  const bytes zeros(sizeof(nlmsghdr));
  rest = zeros;
  EXPECT_FALSE(next_envelope(rest, ec));
  EXPECT_EQ(ec, error::malformed);
}

completion completion_of(const bytes& message_bytes) {
  std::span<const std::byte> rest = message_bytes;
  std::error_code ec;
  const auto e = next_envelope(rest, ec);
  EXPECT_TRUE(e);
  const auto result = decode_completion(*e, ec);
  EXPECT_TRUE(result) << ec.message();
  return result.value_or(completion{-1, {}});
}

TEST(completion, carries_the_errno_and_the_kernels_words) {
  nlmsgerr refusal{};
  refusal.error = -ENETUNREACH;
  refusal.msg.nlmsg_len = sizeof(nlmsghdr) + 8;
  message_builder e(NLMSG_ERROR, NLM_F_ACK_TLVS, 1, refusal);
  const std::uint64_t payload_of_the_request = 0;
  e.write(e.begin(8), &payload_of_the_request, 8);
  e.put(NLMSGERR_ATTR_MSG, std::string("no way"));
  const completion c = completion_of(std::move(e).finish());
  EXPECT_EQ(c.error_number, ENETUNREACH);
  EXPECT_EQ(c.diagnostic, "no way");

  EXPECT_EQ(completion_of(message_builder(NLMSG_DONE, NLM_F_MULTI, 1, std::int32_t{0}).finish())
                .error_number,
            0);
  EXPECT_EQ(
      completion_of(message_builder(NLMSG_DONE, 0, 1, std::int32_t{-EBUSY}).finish()).error_number,
      EBUSY);
}

TEST(completion, refuses_numbers_that_are_no_errno) {
  for (const std::int32_t number : {1, -4096, std::numeric_limits<std::int32_t>::min()}) {
    const bytes b = message_builder(NLMSG_DONE, 0, 1, number).finish();
    std::span<const std::byte> rest = b;
    std::error_code ec;
    const auto e = next_envelope(rest, ec);
    EXPECT_FALSE(decode_completion(*e, ec));
    EXPECT_EQ(ec, error::malformed);
  }
}

/// Each kind has its own numbers for what it is limited to.
TEST(queueing_discipline, tells_of_its_limits_by_kind) {
  const auto told = [](const char* kind, std::uint16_t attribute, std::uint32_t value) {
    message_builder out(RTM_NEWQDISC, 0, 0, tcmsg{});
    out.put(TCA_KIND, std::string(kind));
    out.put_nested(TCA_OPTIONS, [&] { out.put(attribute, value); });
    const bytes all = std::move(out).finish();
    std::span<const std::byte> rest = all;
    std::error_code ec;
    const auto found = decode_discipline(*next_envelope(rest, ec), ec);
    EXPECT_TRUE(found && !ec) << kind << ": " << ec.message();
    return found.value_or(netlink::queueing_discipline{});
  };
  for (const std::uint32_t value : {0u, 7u}) {
    EXPECT_EQ(value, told("fq", TCA_FQ_PLIMIT, value).limit);
    EXPECT_EQ(value, told("fq", TCA_FQ_FLOW_PLIMIT, value).limit);
    EXPECT_EQ(value, told("fq_codel", TCA_FQ_CODEL_LIMIT, value).limit);
    EXPECT_EQ(value, told("codel", TCA_CODEL_LIMIT, value).limit);
    EXPECT_EQ(value, told("pie", TCA_PIE_LIMIT, value).limit);
    EXPECT_EQ(value, told("fq_pie", TCA_FQ_PIE_LIMIT, value).limit);
    EXPECT_EQ(value, told("fq_codel", TCA_FQ_CODEL_MEMORY_LIMIT, value).memory_limit);
    EXPECT_EQ(value, told("fq", TCA_FQ_CE_THRESHOLD, value).ce_threshold_us);
    EXPECT_EQ(value, told("fq_codel", TCA_FQ_CODEL_CE_THRESHOLD, value).ce_threshold_us);
    EXPECT_EQ(value, told("codel", TCA_CODEL_CE_THRESHOLD, value).ce_threshold_us);
  }
  EXPECT_EQ(std::nullopt, told("fq", TCA_FQ_QUANTUM, 0).limit);
  EXPECT_EQ(std::nullopt, told("codel", TCA_CODEL_TARGET, 0).limit);
  EXPECT_EQ(std::nullopt, told("sfq", TCA_FQ_PLIMIT, 0).limit);
}

TEST(filter_text, names_kind_preference_and_block) {
  const auto told = [](std::uint16_t type, const tcmsg& fixed, const char* kind) {
    message_builder out(type, 0, 0, fixed);
    if (kind != nullptr) out.put(TCA_KIND, std::string(kind));
    const bytes all = std::move(out).finish();
    std::span<const std::byte> rest = all;
    std::error_code ec;
    return filter_text(*next_envelope(rest, ec));
  };
  tcmsg fixed{};
  fixed.tcm_ifindex = 7;
  fixed.tcm_info = 49152u << 16 | 0x0300;  // Any protocol.
  EXPECT_EQ("matchall, preference 49152", told(RTM_NEWTFILTER, fixed, "matchall"));
  EXPECT_EQ("", told(RTM_DELTFILTER, fixed, "matchall"));
  // What cannot be read is an obstacle all the same.
  EXPECT_EQ("of an unknown kind", told(RTM_NEWTFILTER, fixed, nullptr));
  fixed.tcm_ifindex = -1;  // TCM_IFINDEX_MAGIC_BLOCK
  fixed.tcm_parent = 5;
  EXPECT_EQ("u32, preference 49152, block 5", told(RTM_NEWTFILTER, fixed, "u32"));
}

}  // namespace
}  // namespace cowire

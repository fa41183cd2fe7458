// SPDX-License-Identifier: Apache-2.0
// Which slave of a bond a frame takes, without a kernel that has bonding. Frames and hashes are
// another implementation's, in Python, that was written from bond_main.c beside this one and gave
// the kernel's slave for 60 000 captured frames on Linux 6.1, 6.18 and 7.3: random addresses and
// ports (seed 13), and for each frame bond_hash(frame, policy, tag). tests/async/bond_test.cpp has
// the kernel itself.
#include <cowire/route/detail/bond.hpp>

#include <gtest/gtest.h>
#include <linux/if_bonding.h>
#include <linux/if_ether.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cowire {
namespace {

struct hashed_frame {
  const char* what;
  const char* bytes;  ///< Without the tag.
  std::uint16_t tag;
  bool tunnelled, to_group;
  const char* source;
  const char* destination;
  std::uint16_t from_port, to_port;
  std::optional<std::uint32_t> hash[BOND_XMIT_POLICY_VLAN_SRCMAC + 1];  ///< By policy; or secret.
};

const hashed_frame frames[] = {
    {"IPv4",
     "024b735f4224026d960fdc4008004500001c0000400040110000c612844bc6125fa73f05aa8c00080000",
     0x0000,
     false,
     false,
     "198.18.132.75",
     "198.18.95.167",
     16133,
     43660,
     {0x00000864, 0x30088a15, 0xec373f5b, 0xec373f5b, 0x30088a15, 0x000db1d6}},
    {"IPv6",
     "028fca42fb78027863bb432586dd6000000000081140fd078d4b2b86e6df4783b677f9dbbadcfda03cb186e5"
     "45e1e35a96675bb681be799f430300080000",
     0x0000,
     false,
     false,
     "fd07:8d4b:2b86:e6df:4783:b677:f9db:badc",
     "fda0:3cb1:86e5:45e1:e35a:9667:5bb6:81be",
     31135,
     17155,
     {0x00008680, 0x5aff8861, 0xb6bf4962, 0xb6bf4962, std::nullopt, 0x00b93b46}},
    {"an IPv4 group",
     "01005e6dc70102167348fee308004500001c0000400040110000c612dca7efedc701bc086ca000080000",
     0x0000,
     false,
     true,
     "198.18.220.167",
     "239.237.199.1",
     48136,
     27808,
     {0x000008e2, 0x0338c309, 0xa6bd4a81, 0xa6bd4a81, 0x0338c309, 0x004ae890}},
    {"an IPv6 group",
     "3333e1af2f01029f3ed09a8986dd6000000000081140fd8151d380b367bf4679fe6c1513b7aeff3e5d976254"
     "39735523db13e1af2f012461ff7800080000",
     0x0000,
     false,
     true,
     "fd81:51d3:80b3:67bf:4679:fe6c:1513:b7ae",
     "ff3e:5d97:6254:3973:5523:db13:e1af:2f01",
     9313,
     65400,
     {0x00008655, 0x101877e6, 0x58b78fdd, 0x58b78fdd, std::nullopt, 0x00d205b7}},
    {"IPv4, tagged",
     "021202a3ab4f02fef2726a9708004500001c0000400040110000c61227f1c612f08661dfda0500080000",
     0x6064,
     false,
     false,
     "198.18.39.241",
     "198.18.240.134",
     25055,
     55813,
     {0x000008d8, 0x393fd060, 0x77a0a870, 0x77a0a870, 0x393fd060, 0x0070f401}},
    {"IPv6, tagged",
     "0294de464b1a0239bc506f9d86dd6000000000081140fd10c0504a84d96e84d978b67d93db68fdb3d913a2cb"
     "eb2c2317029c61e6f6c759360fb200080000",
     0x6064,
     false,
     false,
     "fd10:c050:4a84:d96e:84d9:78b6:7d93:db68",
     "fdb3:d913:a2cb:eb2c:2317:29c:61e6:f6c7",
     22838,
     4018,
     {0x0000865a, 0x1b229217, 0x84f82920, 0x84f82920, std::nullopt, 0x00523645}},
    {"an IPv4 group, tagged",
     "01005e4694110233b8fbe2de08004500001c0000400040110000c6129b9befc694115cfc20d700080000",
     0x6064,
     false,
     true,
     "198.18.155.155",
     "239.198.148.17",
     23804,
     8407,
     {0x000008cf, 0x2eb92d17, 0x8a8559bf, 0x8a8559bf, 0x2eb92d17, 0x00f9b102}},
    {"an IPv6 group, tagged",
     "33331a3b46bd02994c98852c86dd6000000000081140fd16b3974219a55540027f4c2df5be24ff3eb0876d18"
     "797ae163c91b1a3b46bd8c99658500080000",
     0x6064,
     false,
     true,
     "fd16:b397:4219:a555:4002:7f4c:2df5:be24",
     "ff3e:b087:6d18:797a:e163:c91b:1a3b:46bd",
     35993,
     25989,
     {0x0000864c, 0x3a404fd4, 0xf1606097, 0xf1606097, std::nullopt, 0x009a7c04}},
    {"IPv4 in gre",
     "02368a2eaad902529414383008004500003400004000402f0000c6129d68c612c679000008004500001c0000"
     "400040110000c612be0ec6120f2bbe1803fe00080000",
     0x0000,
     true,
     false,
     "198.18.190.14",
     "198.18.15.43",
     48664,
     1022,
     {0x000008e9, 0x08a52525, 0x114a42ab, 0x25949c75, std::nullopt, 0x00166aa4}},
    {"IPv6 in gre",
     "0202449d29fe021c6ddb0d0b08004500004800004000402f0000c612494dc6124ea7000086dd600000000008"
     "1140fdc7894d4ce69a010e848da9737ebfd5fd50f7d1854feced63c0f3610e11f65b24121a5700080000",
     0x0000,
     true,
     false,
     "fdc7:894d:4ce6:9a01:e84:8da9:737e:bfd5",
     "fd50:f7d1:854f:eced:63c0:f361:e11:f65b",
     9234,
     6743,
     {0x000008f5, 0x7576f6f6, 0xeaede510, 0x36091438, std::nullopt, 0x00d91166}},
    {"IPv4 in ip6gre",
     "0273f90b307c02a104e6ae7086dd6000000000283c40fd1ada780633bc4beeb444b074912f83fd44405b351c"
     "480decb6c3ffd322e38f2f00040104010000000008004500001c0000400040110000c6121bbcc612dbeec437"
     "41e600080000",
     0x0000,
     true,
     false,
     "198.18.27.188",
     "198.18.219.238",
     50231,
     16870,
     {0x000086d1, 0x1301e1aa, 0x26034502, 0x529214c5, std::nullopt, 0x00e40f74}},
    {"IPv4 in gretap",
     "02a7c027f4d402990de5c7d208004500004200004000402f0000c612f691c6121f150000655802806e014aa6"
     "02996adc960508004500001c0000400040110000c612ad62c6123fea38a7af0300080000",
     0x0000,
     true,
     false,
     "198.18.173.98",
     "198.18.63.234",
     14503,
     44803,
     {0x00000806, 0x4236b6b6, 0x846d6563, 0x881a1214, std::nullopt, 0x00e75edf}},
    {"an IPv4 group in gre",
     "022d394122c5026ca051085108004500003400004000402f0000c6125e0dc6121c3c000008004500001c0000"
     "400040110000c61268a2ef070809fd6ee05500080000",
     0x0000,
     true,
     false,
     "198.18.104.162",
     "239.7.8.9",
     64878,
     57429,
     {0x00000894, 0x18b9b9b9, 0x31737bef, 0xabcbd66b, std::nullopt, 0x005364f1}},
};

std::vector<std::byte> from_hex(std::string_view text) {
  std::vector<std::byte> out;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    out.push_back(static_cast<std::byte>(std::stoul(std::string(text.substr(i, 2)), nullptr, 16)));
  return out;
}

/// What a template knows: neither ports nor the innermost destination, nor a group's part of the
/// MAC address.
std::vector<std::byte> without_destination(const hashed_frame& of) {
  std::vector<std::byte> bytes = from_hex(of.bytes);
  const ip_address to = *ip_address::parse(of.destination);
  const std::size_t udp = bytes.size() - 8, address = udp - to.size();
  std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(address), bytes.end(), std::byte{0});
  if (of.to_group) std::fill(bytes.begin() + (to.is_v4() ? 3 : 2), bytes.begin() + 6, std::byte{0});
  return bytes;
}

TEST(SlaveRule, GivesTheKernelsHashForEachPolicy) {
  for (const hashed_frame& one : frames) {
    const auto bytes = without_destination(one);
    const detail::bond_frame frame{.bytes = bytes,
                                   .tag = one.tag,
                                   .tunnelled = one.tunnelled,
                                   .to_group = one.to_group,
                                   .source = *ip_address::parse(one.source)};
    for (std::uint8_t policy = 0; policy < std::size(one.hash); ++policy) {
      SCOPED_TRACE(std::string(one.what) + ", policy " + std::to_string(policy));
      const auto rule = detail::slave_rule_of(policy, frame);
      ASSERT_EQ(one.hash[policy].has_value(), std::holds_alternative<slave_rule>(rule));
      if (!one.hash[policy]) {
        EXPECT_EQ(divert_reason::bond_policy, std::get<divert_reason>(rule));
        continue;
      }
      const slave_terms terms =
          slave_terms_of(*ip_address::parse(one.destination), be16::from_host(one.from_port),
                         be16::from_host(one.to_port));
      EXPECT_EQ(*one.hash[policy], std::get<slave_rule>(rule).hash(terms));
      // As it is published.
      const hop_group_member published = std::get<slave_rule>(rule).as_member();
      EXPECT_EQ(std::get<slave_rule>(rule), slave_rule::from(published));
    }
  }
}

TEST(SlaveRule, KnowsNoPolicyOfLaterKernels) {
  const auto bytes = without_destination(frames[0]);
  const detail::bond_frame frame{.bytes = bytes, .source = *ip_address::parse(frames[0].source)};
  const auto rule = detail::slave_rule_of(BOND_XMIT_POLICY_VLAN_SRCMAC + 1, frame);
  EXPECT_EQ(divert_reason::bond_policy, std::get<divert_reason>(rule));
}

}  // namespace
}  // namespace cowire

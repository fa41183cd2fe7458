// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/error.hpp>
#include <cowire/gre/header.hpp>

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace cowire::gre {
namespace {

using bytes = std::vector<std::byte>;

bytes of(std::initializer_list<int> values) {
  bytes made;
  for (const int value : values) made.push_back(static_cast<std::byte>(value));
  return made;
}

bytes packet_of(const header& value, const bytes& payload) {
  bytes packet(value.size());
  EXPECT_EQ(encode(value, packet, payload), value.size());
  packet.insert(packet.end(), payload.begin(), payload.end());
  return packet;
}

std::error_code refusal(const bytes& packet) {
  std::error_code ec;
  EXPECT_FALSE(decode(packet, ec));
  return ec;
}

TEST(GreHeader, PlainHeaderIsFourBytes) {
  EXPECT_EQ(packet_of({}, {}), of({0, 0, 0x08, 0}));
  EXPECT_EQ(
      packet_of({.protocol = protocol_ipv6, .checksum = false, .key = {}, .sequence = {}}, {}),
      of({0, 0, 0x86, 0xdd}));
}

TEST(GreHeader, FieldsStandInTheOrderOfTheRfc) {
  const header full{.checksum = true, .key = be32::from_host(0x01020304), .sequence = 5};
  const bytes packet = packet_of(full, {});
  ASSERT_EQ(packet.size(), header_size_max);
  EXPECT_EQ(packet[0], std::byte{0xb0});
  EXPECT_EQ(bytes(packet.begin() + 8, packet.end()), of({1, 2, 3, 4, 0, 0, 0, 5}));
}

TEST(GreHeader, WhatIsEncodedIsDecoded) {
  std::mt19937 random(20);
  for (int i = 0; i < 1000; ++i) {
    header value{.protocol = static_cast<std::uint16_t>(random()),
                 .checksum = random() % 2 == 0,
                 .key = {},
                 .sequence = {}};
    if (random() % 2 == 0) value.key = be32{static_cast<std::uint32_t>(random())};
    if (random() % 2 == 0) value.sequence = static_cast<std::uint32_t>(random());
    bytes payload(random() % 40);
    for (std::byte& byte : payload) byte = static_cast<std::byte>(random());
    std::error_code ec;
    const auto back = decode(packet_of(value, payload), ec);
    ASSERT_TRUE(back) << ec.message();
    EXPECT_EQ(back->value, value);
    EXPECT_EQ(back->size, value.size());
  }
}

TEST(GreHeader, EveryCutIsTruncated) {
  const header full{.checksum = false, .key = be32{7}, .sequence = 9};
  const bytes packet = packet_of(full, {});
  for (std::size_t size = 0; size < packet.size(); ++size)
    EXPECT_EQ(refusal(bytes(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(size))),
              error::truncated);
}

TEST(GreHeader, OtherVersionsAndRoutingAreUnsupported) {
  EXPECT_EQ(refusal(of({0x00, 0x01, 0x08, 0})), error::unsupported);
  EXPECT_EQ(refusal(of({0x40, 0x00, 0x08, 0, 0, 0, 0, 0})), error::unsupported);
}

TEST(GreHeader, ReservedBitsAndWrongChecksumsAreMalformed) {
  EXPECT_EQ(refusal(of({0x08, 0x00, 0x08, 0})), error::malformed);
  bytes packet = packet_of({.checksum = true, .key = {}, .sequence = {}}, of({1, 2, 3}));
  packet.back() ^= std::byte{1};
  EXPECT_EQ(refusal(packet), error::malformed);
}

TEST(GreHeader, BitsThatAReceiverIgnoresAreIgnored) {
  std::error_code ec;
  EXPECT_TRUE(decode(of({0x03, 0xf8, 0x08, 0}), ec));
}

}  // namespace
}  // namespace cowire::gre

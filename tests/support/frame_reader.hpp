// SPDX-License-Identifier: Apache-2.0
/// Frames made comparable: what two senders of one datagram may differ in is taken out.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/base/checksum.hpp>
#include <cowire/gre/header.hpp>

#include <gtest/gtest.h>
#include <linux/if_packet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <system_error>

namespace cowire::test {

/// Datagrams to this port carry GRE (FOU).
inline constexpr std::uint16_t gre_in_udp_port = 5556;

/// Walks through link, IP, tunnel and UDP headers. Zeroes the identification and the checksum of
/// each IPv4 header after checking the latter.
class frame_reader {
 public:
  explicit frame_reader(std::string& frame) : frame_(frame) {}

  /// The destination port of the innermost UDP header, 0 where there is none.
  std::uint16_t udp_port() {
    std::size_t at = 12;
    while (word(at) == 0x8100 || word(at) == 0x88a8) at += 4;
    return after_type(word(at), at + 2);
  }

 private:
  [[nodiscard]] unsigned byte(std::size_t at) const {
    return at < frame_.size() ? static_cast<unsigned char>(frame_[at]) : 0u;
  }
  [[nodiscard]] unsigned word(std::size_t at) const { return byte(at) << 8 | byte(at + 1); }

  std::uint16_t after_type(unsigned type, std::size_t at) {
    const std::size_t length = 4 * (byte(at) & 15);  // IGMP comes with an option.
    if (type == gre::protocol_ipv4 && length >= 20 && at + length <= frame_.size()) {
      const auto header = std::as_bytes(std::span(frame_).subspan(at, length));
      EXPECT_EQ(0, finish_sum(sum_bytes(header))) << "IPv4 header checksum";
      for (const std::size_t i : {4u, 5u, 10u, 11u}) frame_[at + i] = 0;
      if ((word(at + 6) & 0x3fff) != 0) return 0;  // A fragment.
      return after_protocol(byte(at + 9), at + length);
    }
    if (type == gre::protocol_ipv6 && at + 40 <= frame_.size())
      return after_protocol(byte(at + 6), at + 40);
    if (type == gre::protocol_ethernet) return after_type(word(at + 12), at + 14);
    return 0;
  }

  std::uint16_t after_protocol(unsigned protocol, std::size_t at) {
    switch (protocol) {
      case IPPROTO_UDP:
        if (word(at + 2) == gre_in_udp_port) return after_protocol(IPPROTO_GRE, at + 8);
        return static_cast<std::uint16_t>(word(at + 2));
      case IPPROTO_IPIP:
        return after_type(gre::protocol_ipv4, at);
      case IPPROTO_IPV6:
        return after_type(gre::protocol_ipv6, at);
      case IPPROTO_DSTOPTS:
        return after_protocol(byte(at), at + 8 * (byte(at + 1) + 1));
      case IPPROTO_GRE: {
        std::error_code ec;
        const auto decoded =
            gre::decode(std::as_bytes(std::span(frame_).subspan(std::min(at, frame_.size()))), ec);
        return decoded ? after_type(decoded->value.protocol, at + decoded->size) : std::uint16_t{0};
      }
      default:
        return 0;
    }
  }

  std::string& frame_;
};

/// Puts back the VLAN tag that the kernel has taken out of a captured frame.
inline void put_tag_back(std::string& frame, const tpacket_auxdata& told) {
  if ((told.tp_status & TP_STATUS_VLAN_VALID) == 0) return;
  const be16 tag[2] = {be16::from_host(told.tp_vlan_tpid), be16::from_host(told.tp_vlan_tci)};
  frame.insert(12, reinterpret_cast<const char*>(tag), sizeof tag);
}

inline std::string hex(const std::string& bytes) {
  std::string out;
  char two[3];
  for (std::size_t i = 0; i < std::min<std::size_t>(bytes.size(), 160); ++i) {
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(bytes[i]));
    out += two;
  }
  return out;
}

}  // namespace cowire::test

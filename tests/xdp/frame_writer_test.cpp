// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/frame_writer.hpp>

#include <gtest/gtest.h>

#include <iostream>
#include <random>

#include "testbed/hand_made_table.hpp"

namespace cowire {
namespace {

using test::bytes;
using test::hop_spec;

/// As the TX core does it on newer processors, where this is one.
void write_fast(std::byte* payload, const hop& via, const tx_request& request) {
#if defined(__x86_64__)
  const auto write_with_avx2 =
      [](std::byte * to, const hop& hop, const tx_request& from) __attribute__((target("avx2"))) {
    write_headers_avx2(to, hop, from);
  };
  if (__builtin_cpu_supports("avx2")) return write_with_avx2(payload, via, request);
#elif defined(__aarch64__)
  return write_headers_neon(payload, via, request);
#endif
  write_headers(payload, via, request);
}

void expect_fast_descriptor(const tx_descriptor& expected, const hop& via,
                            const tx_request& request) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2")) return;
  tx_descriptor d;
  const auto describe_with_avx2 = [](tx_descriptor * to, const hop& hop, const tx_request& from)
      __attribute__((target("avx2"))) {
    describe_avx2(to, hop, from);
  };
  describe_with_avx2(&d, via, request);
  EXPECT_EQ(d.address, expected.address);
  EXPECT_EQ(d.length, expected.length);
  EXPECT_EQ(d.options, expected.options);
#else
  static_cast<void>(expected), static_cast<void>(via), static_cast<void>(request);
#endif
}

class frame_writer : public ::testing::Test {
 protected:
  std::mt19937_64 random_{make_seed()};

  static std::uint64_t make_seed() {
    const std::uint64_t seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    return seed;
  }
  std::uint8_t byte() { return static_cast<std::uint8_t>(random_()); }
  ip_address address(ip_family family) {
    std::array<std::uint8_t, 16> raw;
    for (auto& b : raw) b = byte();
    return ip_address::from_bytes(family, raw.data());
  }
  mac_address mac() {
    mac_address m;
    for (auto& b : m.bytes) b = byte();
    return m;
  }
  hop_spec spec(ip_family family, bool vlan, std::size_t tunnels) {
    hop_spec s;
    s.family = family;
    s.source_mac = mac();
    s.destination_mac = mac();
    if (vlan) s.vlan = static_cast<std::uint16_t>(random_() & 0xefff);
    for (std::size_t i = 0; i < tunnels; ++i)
      s.outer.emplace_back(address(ip_family::v4), address(ip_family::v4));
    s.source = address(family);
    s.ttl = byte();
    s.max_payload = 1900;
    return s;
  }

  /// What the writer makes of it: header and payload as the device would read them.
  bytes written(const hop_spec& s, const endpoint& to, std::uint16_t source_port,
                const bytes& payload, std::optional<unsigned> ecn = {}) {
    const hop via = test::make_hop(s);
    alignas(64) std::byte frame[2048];
    for (auto& b : frame) b = std::byte{byte()};
    const frame_memory memory{frame, 2048, 1};
    const auto sum = fold_sum(copy_and_sum(memory.payload(0), std::as_bytes(std::span(payload))));
    tx_request request =
        make_request({0, memory.payload_address(0)}, payload.size(), sum,
                     be16::from_host(source_port), request_destination::from(to), 0);
    if (ecn) with_ecn(request, *ecn);
    alignas(64) std::byte again[2048];
    std::memcpy(again, frame, sizeof frame);
    write_headers(memory.payload(0), via, request);
    write_fast(again + payload_offset, via, request);
    EXPECT_EQ(std::memcmp(again, frame, sizeof frame), 0);
    write_second_pass(memory.payload(0), via, request);
    tx_descriptor d = descriptor_of(via, request);
    expect_fast_descriptor(d, via, request);
    if (ecn) {
      EXPECT_TRUE(has_ecn(request));
      write_ecn(memory.payload(0), via, request);
      d.length = via.header_length + payload_size(request);
    }
    bytes out(d.length);
    std::memcpy(out.data(), frame + d.address, d.length);
    return out;
  }
};

TEST_F(frame_writer, writes_the_bytes_of_a_naive_builder_for_every_kind_of_hop) {
  for (int round = 0; round < 3000; ++round) {
    for (const ip_family family : ip_families) {
      for (const bool vlan : {false, true}) {
        for (std::size_t tunnels = 0; tunnels <= outer_headers_max; ++tunnels) {
          hop_spec s = spec(family, vlan, tunnels);
          s.gre_checksums = round % 2 != 0;
          const endpoint to{address(family), static_cast<std::uint16_t>(random_())};
          const auto source_port = static_cast<std::uint16_t>(random_());
          bytes payload(random_() % 1901);
          for (auto& b : payload) b = byte();
          ASSERT_EQ(written(s, to, source_port, payload),
                    test::naive_frame(s, to, source_port, payload))
              << "round " << round << (family == ip_family::v4 ? " v4" : " v6")
              << (vlan ? " vlan " : " ") << tunnels << " tunnels " << payload.size();
        }
      }
    }
  }
}

TEST_F(frame_writer, gives_one_datagram_the_bytes_of_a_hop_with_its_ecn_codepoint) {
  for (int round = 0; round < 400; ++round) {
    for (const ip_family family : ip_families) {
      for (std::size_t tunnels = 0; tunnels <= outer_headers_max; ++tunnels) {
        for (unsigned ecn = 0; ecn < 4; ++ecn) {
          hop_spec s = spec(family, round % 3 == 0, tunnels);
          s.gre_checksums = round % 2 != 0;
          s.tos = byte();
          const endpoint to{address(family), static_cast<std::uint16_t>(random_())};
          bytes payload(random_() % 1901);
          for (auto& b : payload) b = byte();
          const bytes ours = written(s, to, 8001, payload, ecn);
          s.tos = static_cast<std::uint8_t>((s.tos & 0xfc) | ecn);
          ASSERT_EQ(ours, test::naive_frame(s, to, 8001, payload))
              << "round " << round << (family == ip_family::v4 ? " v4 " : " v6 ") << tunnels
              << " tunnels, ecn " << ecn << ", " << payload.size();
        }
      }
    }
  }
}

TEST_F(frame_writer, sends_a_udp_checksum_of_zero_as_ffff) {
  // The payload's two bytes are chosen so that the sum of all comes out as ffff, its complement as
  // 0.
  const hop_spec s = spec(ip_family::v4, false, 0);
  const endpoint to{address(ip_family::v4), 53};
  const bytes probe = written(s, to, 7, {0, 0});
  const std::uint8_t high = probe[probe.size() - 4], low = probe[probe.size() - 3];
  const bytes frame = written(s, to, 7, {high, low});
  EXPECT_EQ(frame[frame.size() - 4], 0xff);
  EXPECT_EQ(frame[frame.size() - 3], 0xff);
}

TEST_F(frame_writer, writes_nothing_outside_the_header_room) {
  alignas(64) std::byte frame[2048] = {};
  const frame_memory memory{frame, 2048, 1};
  hop via{};
  std::memset(via.header, 0xff, sizeof via.header);
  write_headers(memory.payload(0), via, tx_request{});
  EXPECT_EQ(frame[payload_offset], std::byte{0});
  for (std::size_t i = 0; i < payload_offset - header_capacity; ++i)
    EXPECT_EQ(frame[i], std::byte{0}) << i;
}

}  // namespace
}  // namespace cowire

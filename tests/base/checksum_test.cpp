// SPDX-License-Identifier: Apache-2.0
/// The sums against the plain loop of RFC 1071, section 4.1, over bytes in network order.
#include <cowire/base/checksum.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace cowire {
namespace {

/// The checksum in host order, as the RFC computes it.
std::uint16_t rfc1071(std::span<const std::byte> bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    const auto high = std::to_integer<std::uint32_t>(bytes[i]);
    const auto low = i + 1 < bytes.size() ? std::to_integer<std::uint32_t>(bytes[i + 1]) : 0;
    sum += high << 8 | low;
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<std::uint16_t>(~sum);
}

/// A native 16-bit value as the number that its bytes mean on the wire.
std::uint16_t on_wire(std::uint16_t native) { return __builtin_bswap16(native); }

std::vector<std::byte> random_bytes(std::mt19937_64& random, std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

using detail::checksum_code;

struct named_code {
  checksum_code code;
  const char* name;
  const char* missing;  ///< What a processor lacks that cannot run it.
};

/// The code that is tested, so that one which cannot be is seen to be left out.
class checksum_by : public ::testing::TestWithParam<named_code> {
 protected:
  void SetUp() override {
    if (!detail::has_code(code())) GTEST_SKIP() << "this processor has no " << GetParam().missing;
  }
  static checksum_code code() { return GetParam().code; }
};

INSTANTIATE_TEST_SUITE_P(each, checksum_by,
                         ::testing::Values(named_code{checksum_code::portable, "portable", ""},
                                           named_code{checksum_code::portable_wide, "portable_wide",
                                                      ""},
                                           named_code{checksum_code::avx2, "avx2", "AVX2"},
                                           named_code{checksum_code::avx512, "avx512", "AVX-512"}),
                         [](const auto& of) { return std::string(of.param.name); });

TEST(checksum, matches_the_example_of_rfc1071) {
  constexpr unsigned char text[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
  EXPECT_EQ(on_wire(fold_sum(sum_bytes(std::as_bytes(std::span(text))))), 0xddf2);
}

TEST(checksum, of_every_size_and_alignment_matches_the_plain_loop) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (std::size_t size = 0; size < 700; ++size) {
    for (std::size_t offset = 0; offset < 3; ++offset) {
      const auto bytes = random_bytes(random, size + offset);
      const auto part = std::span(bytes).subspan(offset);
      ASSERT_EQ(on_wire(finish_sum(sum_bytes(part))), rfc1071(part)) << size;
      std::vector<std::byte> copy(size + 2);
      std::fill(copy.begin(), copy.end(), std::byte{0xee});
      ASSERT_EQ(fold_sum(copy_and_sum(copy.data() + 1, part)), fold_sum(sum_bytes(part))) << size;
    }
  }
}

TEST_P(checksum_by, of_every_size_and_alignment_is_the_sum_and_the_copy_exact) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (std::size_t size = 0; size < 700; ++size) {
    for (std::size_t offset = 0; offset < 3; ++offset) {
      const auto bytes = random_bytes(random, size + offset);
      const auto part = std::span(bytes).subspan(offset);
      ASSERT_EQ(fold_sum(detail::sum_with(code(), part)), fold_sum(sum_bytes(part))) << size;
      std::vector<std::byte> copy(size + 2);
      std::fill(copy.begin(), copy.end(), std::byte{0xee});
      ASSERT_EQ(fold_sum(detail::copy_and_sum_with(code(), copy.data() + 1, part)),
                fold_sum(sum_bytes(part)))
          << size;
      ASSERT_TRUE(std::equal(part.begin(), part.end(), copy.begin() + 1)) << size;
      ASSERT_EQ(copy.front(), std::byte{0xee});
      ASSERT_EQ(copy.back(), std::byte{0xee});
    }
  }
}

constexpr std::size_t large_sizes[] = {65535, (std::size_t{3} << 20) + 2};

TEST(checksum, of_a_large_buffer_of_ones_does_not_overflow) {
  for (const std::size_t size : large_sizes) {
    const std::vector<std::byte> bytes(size, std::byte{0xff});
    EXPECT_EQ(on_wire(finish_sum(sum_bytes(bytes))), rfc1071(bytes));
  }
}

TEST_P(checksum_by, of_a_large_buffer_of_ones_does_not_overflow) {
  for (const std::size_t size : large_sizes) {
    const std::vector<std::byte> bytes(size, std::byte{0xff});
    std::vector<std::byte> copy(size);
    EXPECT_EQ(on_wire(finish_sum(detail::copy_and_sum_with(code(), copy.data(), bytes))),
              rfc1071(bytes));
    EXPECT_EQ(on_wire(finish_sum(detail::sum_with(code(), bytes))), rfc1071(bytes));
    EXPECT_EQ(copy, bytes);
  }
}

TEST(checksum, sums_of_even_parts_add_up) {
  std::mt19937_64 random(7);
  const auto bytes = random_bytes(random, 1232);
  const auto all = std::span<const std::byte>(bytes);
  for (std::size_t cut = 0; cut <= bytes.size(); cut += 2) {
    const std::uint64_t sum = sum_bytes(all.first(cut)) + sum_bytes(all.subspan(cut));
    ASSERT_EQ(finish_sum(sum), finish_sum(sum_bytes(all)));
  }
}

TEST(checksum, folds_every_carry) {
  EXPECT_EQ(fold_sum(0), 0);
  EXPECT_EQ(fold_sum(0xffff), 0xffff);
  EXPECT_EQ(fold_sum(0x1ffff), 1);
  EXPECT_EQ(fold_sum(~std::uint64_t{0}), 0xffff);
  EXPECT_EQ(fold_sum(0xffffffff00000001u), 1);
  EXPECT_EQ(finish_sum(0xffff), 0);
}

TEST(checksum, of_udp_is_never_zero) {
  EXPECT_EQ(finish_udp_sum(0xffff), 0xffff);
  EXPECT_EQ(finish_udp_sum(0), 0xffff);
  EXPECT_EQ(finish_udp_sum(1), 0xfffe);
}

}  // namespace
}  // namespace cowire

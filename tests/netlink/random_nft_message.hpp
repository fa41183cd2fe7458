// SPDX-License-Identifier: Apache-2.0
/// nf_tables messages as a kernel could send them, made from nothing but a random generator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace cowire::test {

/// Attributes, nested as deep as one likes.
class nft_attributes {
 public:
  nft_attributes& put(std::uint16_t type, const std::vector<std::byte>& value);
  nft_attributes& put32(std::uint16_t type, std::uint32_t value);  ///< Big endian on the wire.
  nft_attributes& text(std::uint16_t type, const std::string& value);
  nft_attributes& nest(std::uint16_t type, const nft_attributes& inner);
  [[nodiscard]] const std::vector<std::byte>& bytes() const noexcept { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

/// `type` is NFT_MSG_*.
[[nodiscard]] std::vector<std::byte> nft_message(std::uint8_t type, std::uint8_t family,
                                                 std::uint16_t generation_low,
                                                 std::uint32_t sequence,
                                                 const nft_attributes& content);

/// A table, chain, rule, set, elements or generation.
[[nodiscard]] std::vector<std::byte> random_nft_message(std::mt19937_64& random,
                                                        std::uint32_t sequence = 0);

}  // namespace cowire::test

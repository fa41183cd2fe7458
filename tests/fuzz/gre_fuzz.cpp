// SPDX-License-Identifier: Apache-2.0
/// Any bytes as a GRE packet: what the decoder accepts, the encoder writes back.
#include "tests/fuzz/fuzz_target.hpp"

#include <cowire/base/assert.hpp>
#include <cowire/gre/header.hpp>

#include <algorithm>
#include <array>
#include <span>

namespace cowire::test {

std::vector<std::uint8_t> fuzz_seed(std::mt19937_64& random) {
  gre::header value;
  value.checksum = random() % 2 == 0;
  if (random() % 2 == 0) value.key = be32{static_cast<std::uint32_t>(random())};
  if (random() % 2 == 0) value.sequence = static_cast<std::uint32_t>(random());
  std::vector<std::byte> payload(random() % 64);
  for (std::byte& byte : payload) byte = static_cast<std::byte>(random());
  std::vector<std::byte> packet(value.size());
  gre::encode(value, packet, payload);
  packet.insert(packet.end(), payload.begin(), payload.end());
  std::vector<std::uint8_t> seed(packet.size());
  std::ranges::transform(packet, seed.begin(),
                         [](std::byte b) { return static_cast<std::uint8_t>(b); });
  return seed;
}

}  // namespace cowire::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cowire;
  const auto packet = std::as_bytes(std::span(data, size));
  std::error_code ec;
  const auto found = gre::decode(packet, ec);
  COWIRE_ASSERT(found.has_value() == !ec);
  if (!found) return 0;
  COWIRE_ASSERT(found->size <= size && found->size == found->value.size());
  std::array<std::byte, gre::header_size_max> again{};
  gre::encode(found->value, again, packet.subspan(found->size));
  // The same header, but for bits that a receiver ignores and checksums that are equal modulo
  // 0xffff.
  std::vector<std::byte> whole(again.begin(),
                               again.begin() + static_cast<std::ptrdiff_t>(found->size));
  whole.insert(whole.end(), packet.begin() + static_cast<std::ptrdiff_t>(found->size),
               packet.end());
  const auto back = gre::decode(whole, ec);
  COWIRE_ASSERT(back && back->value == found->value);
  return 0;
}

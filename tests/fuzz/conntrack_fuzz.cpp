// SPDX-License-Identifier: Apache-2.0
// An input is a datagram of ctnetlink. What is decoded comes back from its own encoding.
#include "tests/fuzz/fuzz_target.hpp"

#include <cowire/base/assert.hpp>
#include <cowire/netlink/conntrack_codec.hpp>

#include <linux/netfilter/nfnetlink.h>

#include <span>

namespace {

using namespace cowire;
using namespace cowire::netlink;

ip_address random_address(ip_family family, std::mt19937_64& random) {
  std::uint8_t bytes[16];
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return ip_address::from_bytes(family, bytes);
}

conntrack_entry random_entry(std::mt19937_64& random) {
  const auto family = random() % 2 == 0 ? ip_family::v4 : ip_family::v6;
  conntrack_entry out;
  out.original = {random_address(family, random), random_address(family, random),
                  static_cast<std::uint16_t>(random()), static_cast<std::uint16_t>(random()), 17};
  out.reply = out.original.inverse();
  out.status = static_cast<std::uint32_t>(random());
  if (random() % 2 == 0) out.timeout_s = static_cast<std::uint32_t>(random());
  out.mark = static_cast<std::uint32_t>(random() % 3);
  out.id = static_cast<std::uint32_t>(random());
  out.zone = static_cast<std::uint16_t>(random() % 3);
  out.has_helper = random() % 3 == 0;
  return out;
}

}  // namespace

std::vector<std::uint8_t> cowire::test::fuzz_seed(std::mt19937_64& random) {
  std::vector<std::uint8_t> input;
  for (auto messages = 1 + random() % 3; messages > 0; --messages)
    for (const std::byte b : encode_conntrack(random_entry(random), 1))
      input.push_back(static_cast<std::uint8_t>(b));
  return input;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A copy of its own, so that a sanitizer sees a read past its end.
  const auto given = std::as_bytes(std::span(data, size));
  const std::vector<std::byte> copy(given.begin(), given.end());
  std::span<const std::byte> rest = copy;
  std::error_code ec;
  while (auto one = next_envelope(rest, ec)) {
    for (const std::uint16_t type : {one->type, std::uint16_t{NFNL_SUBSYS_CTNETLINK << 8}}) {
      one->type = type;
      std::error_code broken;
      const auto entry = decode_conntrack(*one, broken);
      COWIRE_ASSERT(!(entry && broken));
      if (!entry) continue;
      const auto again = encode_conntrack(*entry, 1);
      std::span<const std::byte> bytes = again;
      const auto envelope_again = next_envelope(bytes, broken);
      COWIRE_ASSERT(envelope_again && decode_conntrack(*envelope_again, broken) == entry);
    }
  }
  return 0;
}

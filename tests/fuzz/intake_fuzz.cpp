// SPDX-License-Identifier: Apache-2.0
// An input is one message on the intake socket: it is refused, or taken apart within its bounds.
#include "tests/fuzz/fuzz_target.hpp"

#include <cowire/async/intake.hpp>
#include <cowire/base/assert.hpp>

#include <algorithm>
#include <cstring>
#include <span>

using namespace cowire;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static intake_message message;  // Used again and again, as the server does.
  const auto all = std::as_bytes(std::span(data, size));
  const auto header = all.first(std::min(size, sizeof(intake_header)));
  const auto body = all.subspan(header.size());
  std::error_code ec;
  parse_intake(header, body, message, ec);
  if (ec) return 0;
  COWIRE_ASSERT(message.type == intake_type::send || message.type == intake_type::flush);
  COWIRE_ASSERT(message.payload.size() + message.destinations.size() * sizeof(intake_destination) ==
                body.size());
  COWIRE_ASSERT(message.payload.empty() || message.payload.data() == body.data());
  COWIRE_ASSERT(message.destinations.empty() == (message.type == intake_type::flush));
  for (const endpoint& to : message.destinations) COWIRE_ASSERT(to.port != 0);
  return 0;
}

std::vector<std::uint8_t> cowire::test::fuzz_seed(std::mt19937_64& random) {
  intake_header header;
  header.payload_length = static_cast<std::uint32_t>(random() % 100);
  header.destination_count = static_cast<std::uint16_t>(1 + random() % 8);
  if (random() % 8 == 0) {
    header = {};
    header.type = intake_type::flush;
    header.source_port = static_cast<std::uint16_t>(random() % (intake_all_totals + 1));
  }
  std::vector<std::uint8_t> out(sizeof header + header.payload_length);
  std::memcpy(out.data(), &header, sizeof header);
  for (int i = 0; i < header.destination_count; ++i) {
    const auto to = intake_destination::from(
        {random() % 2 ? ip_address::v4(static_cast<std::uint32_t>(random()))
                      : ip_address::any(ip_family::v6),
         static_cast<std::uint16_t>(1 + random() % 65535)});
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&to);
    out.insert(out.end(), bytes, bytes + sizeof to);
  }
  return out;
}

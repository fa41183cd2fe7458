// SPDX-License-Identifier: Apache-2.0
// The wire format of intake.hpp: bytes from strangers in, checked values out.
#include <cowire/async/intake.hpp>

#include <algorithm>
#include <cstring>
#include <optional>

namespace cowire {
namespace {

bool read(const intake_destination& from, std::uint32_t scope_id, endpoint& to) noexcept {
  if (from.port.raw == 0) return false;
  to = {};
  if (from.family == 6) {
    to.address = ip_address::v6(from.address);
    to.port = from.port.host();
    if (to.address.needs_scope_id()) to.scope_id = scope_id;
    return true;
  }
  const auto rest = std::span(from.address).subspan(4);
  if (from.family != 4 || std::ranges::any_of(rest, [](auto byte) { return byte != 0; }))
    return false;
  to.address = ip_address::from_bytes(ip_family::v4, from.address.data());
  to.port = from.port.host();
  return true;
}

std::error_code check(const intake_header& header, std::size_t body_size) noexcept {
  if (header.magic != intake_magic || header.version != intake_version || header.flags != 0 ||
      header.reserved != 0)
    return error::malformed;
  if (header.type == intake_type::flush) {
    const bool empty =
        header.payload_length == 0 && header.destination_count == 0 && header.scope_id == 0;
    return empty && body_size == 0 ? std::error_code{} : error::malformed;
  }
  if (header.type != intake_type::send) return error::malformed;
  if (header.destination_count == 0) return error::no_destination;
  const std::uint64_t size = std::uint64_t{header.payload_length} +
                             std::uint64_t{header.destination_count} * sizeof(intake_destination);
  if (size > body_size) return error::truncated;
  return size == body_size ? std::error_code{} : error::malformed;
}

}  // namespace

intake_destination intake_destination::from(const endpoint& to) noexcept {
  intake_destination out;
  out.family = to.address.is_v4() ? 4 : 6;
  out.port = be16::from_host(to.port);
  out.address = to.address.bytes();
  return out;
}

std::size_t intake_alike(std::span<const endpoint> destinations, std::uint32_t& scope_id) noexcept {
  std::optional<std::uint32_t> common;
  std::size_t count = 0;
  for (; count < destinations.size(); ++count) {
    const endpoint& to = destinations[count];
    if (!to.address.needs_scope_id()) continue;
    if (common.value_or(to.scope_id) != to.scope_id) break;
    common = to.scope_id;
  }
  scope_id = common.value_or(0);
  return count;
}

void parse_intake(std::span<const std::byte> header, std::span<const std::byte> body,
                  intake_message& message, std::error_code& ec) {
  intake_header h;
  if (header.size() < sizeof h) {
    ec = error::truncated;
    return;
  }
  std::memcpy(&h, header.data(), sizeof h);
  if ((ec = check(h, body.size()))) return;
  message.type = h.type;
  message.source_port = h.source_port;
  message.token = h.token;
  message.payload = body.first(h.payload_length);
  message.destinations.resize(h.destination_count);
  auto trailer = body.subspan(h.payload_length);
  for (endpoint& to : message.destinations) {
    intake_destination raw;
    std::memcpy(&raw, trailer.data(), sizeof raw);
    trailer = trailer.subspan(sizeof raw);
    if (!read(raw, h.scope_id, to)) {
      ec = error::malformed;
      return;
    }
  }
}

}  // namespace cowire

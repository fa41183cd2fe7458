// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/base/checksum.hpp>
#include <cowire/base/error.hpp>
#include <cowire/base/gre_flag.hpp>
#include <cowire/gre/header.hpp>

#include <cstring>

namespace cowire::gre {
namespace {

constexpr std::uint16_t reserved_bits =
    0x0c00;  // Bits 4 and 5; a receiver ignores 6 to 12 (RFC 2784, 2.3).
constexpr std::uint16_t version_bits = 0x0007;

std::optional<decoded> refuse(std::error_code& ec, error reason) noexcept {
  ec = reason;
  return std::nullopt;
}

}  // namespace

std::size_t encode(const header& value, std::span<std::byte> out,
                   std::span<const std::byte> payload) noexcept {
  const std::size_t size = value.size();
  COWIRE_ASSERT(out.size() >= size);
  std::size_t at = 0;
  const auto put = [&](const auto& field) {
    std::memcpy(out.data() + at, &field, sizeof field);
    at += sizeof field;
  };
  const int flags = (value.checksum ? gre_flag::checksum : 0) | (value.key ? gre_flag::key : 0) |
                    (value.sequence ? gre_flag::sequence : 0);
  put(be16::from_host(static_cast<std::uint16_t>(flags)));
  put(be16::from_host(value.protocol));
  if (value.checksum) put(be32{});
  if (value.key) put(*value.key);
  if (value.sequence) put(be32::from_host(*value.sequence));
  if (value.checksum) {
    const std::uint16_t sum = finish_sum(sum_bytes(out.first(size)) + sum_bytes(payload));
    std::memcpy(out.data() + checksum_offset, &sum, sizeof sum);
  }
  return size;
}

std::optional<decoded> decode(std::span<const std::byte> packet, std::error_code& ec) noexcept {
  ec.clear();
  if (packet.size() < 4) return refuse(ec, error::truncated);
  std::size_t at = 0;
  const auto take = [&]<class T>(T field) {
    std::memcpy(&field, packet.data() + at, sizeof field);
    at += sizeof field;
    return field;
  };
  const std::uint16_t flags = take(be16{}).host();
  if ((flags & version_bits) != 0 || (flags & gre_flag::routing) != 0)
    return refuse(ec, error::unsupported);
  if ((flags & reserved_bits) != 0) return refuse(ec, error::malformed);
  decoded result;
  result.value.protocol = take(be16{}).host();
  result.value.checksum = (flags & gre_flag::checksum) != 0;
  if ((flags & gre_flag::key) != 0) result.value.key.emplace();
  if ((flags & gre_flag::sequence) != 0) result.value.sequence.emplace();
  result.size = result.value.size();
  if (packet.size() < result.size) return refuse(ec, error::truncated);
  if (result.value.checksum) {
    if (fold_sum(sum_bytes(packet)) != 0xffff) return refuse(ec, error::malformed);
    at += 4;
  }
  if (result.value.key) result.value.key = take(be32{});
  if (result.value.sequence) result.value.sequence = take(be32{}).host();
  return result;
}

}  // namespace cowire::gre

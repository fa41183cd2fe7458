// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/mirror.hpp>
#include <cowire/route/multipath_hash.hpp>

namespace cowire {

multipath_hash::multipath_hash(std::uint32_t seed, std::uint32_t fields,
                               std::uint8_t protocol) noexcept {
  using namespace multipath_field;
  fields_ =
      fields & (source | destination | multipath_field::protocol | source_port | destination_port);
  // Both halves of the key are equal.
  const std::uint64_t key = std::uint64_t{seed} << 32 | seed;
  after_constant_ = {key ^ 0x736f6d6570736575, key ^ 0x646f72616e646f6d, key ^ 0x6c7967656e657261,
                     key ^ 0x7465646279746573};
  std::array<std::uint8_t, constant_size> constant{};
  if ((fields_ & multipath_field::protocol) != 0) constant[2] = protocol;
  for (std::size_t i = 0; i < constant_size; i += 8) {
    std::uint64_t word;
    std::memcpy(&word, constant.data() + i, 8);
    after_constant_.absorb(word);
  }
}

std::uint32_t multipath_hash::operator()(const ip_address& source, const ip_address& destination,
                                         be16 source_port, be16 destination_port) const noexcept {
  if (destination.is_v6())
    return (*this)(source.bytes(), destination.bytes(), source_port, destination_port);
  std::array<std::uint8_t, 4> from, to;
  std::memcpy(from.data(), source.bytes().data(), 4);
  std::memcpy(to.data(), destination.bytes().data(), 4);
  return (*this)(from, to, source_port, destination_port);
}

std::uint32_t multipath_fields(ip_family family, std::uint8_t policy,
                               std::uint32_t custom) noexcept {
  using namespace multipath_field;
  switch (policy) {
    case 1:
      return source | destination | protocol | source_port | destination_port;
    case 3:
      return custom;
    default:
      // Policy 2 looks inside tunnels and at plain datagrams as policy 0 does.
      return family == ip_family::v4 ? source | destination : source | destination | protocol;
  }
}

multipath_hash multipath_hash_of(const mirror_settings& settings, ip_family family,
                                 std::uint8_t protocol) noexcept {
  const multipath_settings& own =
      family == ip_family::v4 ? settings.multipath_v4 : settings.multipath_v6;
  return {settings.multipath_hash_seed, multipath_fields(family, own.policy, own.fields), protocol};
}

}  // namespace cowire

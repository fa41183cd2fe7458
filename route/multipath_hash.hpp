// SPDX-License-Identifier: Apache-2.0
/// Which member of a multipath route a flow takes: the kernel's flow hash
/// (fib_multipath_hash_from_keys() and its IPv6 twin), a SipHash of the fields that the hash policy
/// selects.
///
/// The seed is known only where net.ipv4.fib_multipath_hash_seed is set (6.11 and later); then the
/// value is the kernel's own, for a socket that is bound to its source port. Otherwise the kernel's
/// is a secret of the boot, and the same function with seed 0 takes its place: as constant per flow
/// and as evenly spread, but a flow may take another member of the set than the kernel's would.
///
/// The resolver and the TX core both use it. Immutable; any thread.
#pragma once

#include <cowire/base/address.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace cowire {

struct mirror_settings;

/// As in net.ipv4.fib_multipath_hash_fields and net.ipv6.fib_multipath_hash_fields.
namespace multipath_field {
inline constexpr std::uint32_t source = 0x01, destination = 0x02, protocol = 0x04,
                               source_port = 0x10, destination_port = 0x20;
}

class multipath_hash {
 public:
  /// Addresses only, seed 0.
  multipath_hash() noexcept
      : multipath_hash(0, multipath_field::source | multipath_field::destination, 0) {}
  /// `fields` are multipath_field bits; others do not count.
  multipath_hash(std::uint32_t seed, std::uint32_t fields, std::uint8_t protocol) noexcept;

  /// 31 bits for a flow. The source is the one *asked* for, zero where the kernel chooses it.
  template <std::size_t Size>
  [[nodiscard]] std::uint32_t operator()(std::array<std::uint8_t, Size> source,
                                         std::array<std::uint8_t, Size> destination,
                                         be16 source_port, be16 destination_port) const noexcept;

  /// The same for addresses of either family.
  [[nodiscard]] std::uint32_t operator()(const ip_address& source, const ip_address& destination,
                                         be16 source_port, be16 destination_port) const noexcept;

 private:
  /// SipHash-2-4.
  struct siphash {
    std::uint64_t v0, v1, v2, v3;

    void rounds(int n) noexcept {
      while (n-- > 0) {
        v0 += v1, v1 = std::rotl(v1, 13) ^ v0, v0 = std::rotl(v0, 32);
        v2 += v3, v3 = std::rotl(v3, 16) ^ v2;
        v0 += v3, v3 = std::rotl(v3, 21) ^ v0;
        v2 += v1, v1 = std::rotl(v1, 17) ^ v2, v2 = std::rotl(v2, 32);
      }
    }
    void absorb(std::uint64_t word) noexcept {
      v3 ^= word;
      rounds(2);
      v0 ^= word;
    }
    [[nodiscard]] std::uint64_t finish(std::size_t length) noexcept {
      absorb(std::uint64_t{length} << 56);
      v2 ^= 0xff;
      rounds(4);
      return v0 ^ v1 ^ v2 ^ v3;
    }
  };

  /// Bytes of struct flow_keys, from its `basic` member on, that are equal for all flows.
  static constexpr std::size_t constant_size = 24;
  static constexpr std::size_t ports_at = 28 - constant_size, addresses_at = 36 - constant_size;

  siphash after_constant_;
  std::uint32_t fields_;
};

template <std::size_t Size>
std::uint32_t multipath_hash::operator()(std::array<std::uint8_t, Size> source,
                                         std::array<std::uint8_t, Size> destination,
                                         be16 source_port, be16 destination_port) const noexcept {
  static_assert(Size == 4 || Size == 16);
  if (fields_ == 0) return 0;
  if ((fields_ & multipath_field::source) == 0) source = {};
  if ((fields_ & multipath_field::destination) == 0) destination = {};
  if ((fields_ & multipath_field::source_port) == 0) source_port = {};
  if ((fields_ & multipath_field::destination_port) == 0) destination_port = {};
  // Both directions of a flow hash alike: addresses and ports are ordered, each as the kernel
  // compares them: IPv4 addresses and ports as native numbers, IPv6 addresses as bytes.
  bool swap_addresses;
  if constexpr (Size == 4)
    swap_addresses =
        std::bit_cast<std::uint32_t>(destination) < std::bit_cast<std::uint32_t>(source);
  else
    swap_addresses = destination < source;
  if (swap_addresses) std::swap(source, destination);
  if (destination_port.raw < source_port.raw) std::swap(source_port, destination_port);

  constexpr std::size_t rest = Size == 4 ? 24 : 48;
  std::array<std::uint8_t, rest> message{};
  std::memcpy(message.data() + ports_at, &source_port.raw, 2);
  std::memcpy(message.data() + ports_at + 2, &destination_port.raw, 2);
  std::memcpy(message.data() + addresses_at, source.data(), Size);
  std::memcpy(message.data() + addresses_at + Size, destination.data(), Size);
  siphash state = after_constant_;
  for (std::size_t i = 0; i < rest; i += 8) {
    std::uint64_t word;
    std::memcpy(&word, message.data() + i, 8);
    state.absorb(word);
  }
  const auto hash = static_cast<std::uint32_t>(state.finish(constant_size + rest));
  return (hash == 0 ? 1 : hash) >> 1;
}

/// The hash as the kernel is set up for flows of `protocol`.
[[nodiscard]] multipath_hash multipath_hash_of(const mirror_settings& settings, ip_family family,
                                               std::uint8_t protocol) noexcept;

/// What it looks at under policy 0, 1, 2 or 3; `custom` are the fields of policy 3.
[[nodiscard]] std::uint32_t multipath_fields(ip_family family, std::uint8_t policy,
                                             std::uint32_t custom) noexcept;

}  // namespace cowire

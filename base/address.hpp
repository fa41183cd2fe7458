// SPDX-License-Identifier: Apache-2.0
/// Addresses as plain values: byte order in the type, parsing and printing in one place.
///
/// Everything here is trivially copyable, ordered and hashable. Bytes are kept in network order, as
/// they go on the wire; `host()` gives the number for arithmetic.
#pragma once

#include <array>
#include <bit>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

namespace cowire {

static_assert(std::endian::native == std::endian::little,
              "cowire is written for little-endian machines");

/// A 16-bit number in network byte order.
struct be16 {
  std::uint16_t raw = 0;  ///< As it lies in memory.
  /// Of a number.
  [[nodiscard]] static constexpr be16 from_host(std::uint16_t v) noexcept {
    return {__builtin_bswap16(v)};
  }
  /// The number.
  [[nodiscard]] constexpr std::uint16_t host() const noexcept { return __builtin_bswap16(raw); }
  friend constexpr bool operator==(be16, be16) noexcept = default;
};

/// A 32-bit number in network byte order.
struct be32 {
  std::uint32_t raw = 0;  ///< As it lies in memory.
  /// Of a number.
  [[nodiscard]] static constexpr be32 from_host(std::uint32_t v) noexcept {
    return {__builtin_bswap32(v)};
  }
  /// The number.
  [[nodiscard]] constexpr std::uint32_t host() const noexcept { return __builtin_bswap32(raw); }
  friend constexpr bool operator==(be32, be32) noexcept = default;
};

/// An Ethernet address.
struct mac_address {
  std::array<std::uint8_t, 6> bytes{};  ///< As on the wire.
  friend constexpr auto operator<=>(const mac_address&, const mac_address&) noexcept = default;
  /// "02:00:00:00:00:0a".
  [[nodiscard]] std::string to_string() const;
  /// The same form; empty for anything else.
  [[nodiscard]] static std::optional<mac_address> parse(std::string_view text) noexcept;
};

/// IPv4 or IPv6.
enum class ip_family : std::uint8_t { v4, v6 };

/// For loops over both.
inline constexpr ip_family ip_families[] = {ip_family::v4, ip_family::v6};

/// An IPv4 or IPv6 address. IPv4 lies in the first four bytes, the rest is zero.
class ip_address {
 public:
  /// 0.0.0.0
  constexpr ip_address() noexcept = default;
  /// IPv4: 10.0.0.1 is 0x0a000001.
  [[nodiscard]] static constexpr ip_address v4(std::uint32_t host_order) noexcept {
    ip_address a;
    for (unsigned i = 0; i < 4; ++i)
      a.bytes_[i] = static_cast<std::uint8_t>(host_order >> (24 - 8 * i));
    return a;
  }
  /// `bytes` in network order.
  [[nodiscard]] static constexpr ip_address v6(const std::array<std::uint8_t, 16>& bytes) noexcept {
    ip_address a;
    a.bytes_ = bytes;
    a.family_ = ip_family::v6;
    return a;
  }
  /// 4 or 16 bytes in network order; the caller guarantees that they are there.
  [[nodiscard]] static ip_address from_bytes(ip_family family, const void* bytes) noexcept {
    ip_address a;
    a.family_ = family;
    std::memcpy(a.bytes_.data(), bytes, family == ip_family::v4 ? 4 : 16);
    return a;
  }
  /// The unspecified address of a family: 0.0.0.0 or ::.
  [[nodiscard]] static constexpr ip_address any(ip_family family) noexcept {
    ip_address a;
    a.family_ = family;
    return a;
  }
  /// Dotted quad or RFC 4291 text; nothing else around it (no port, no zone, no brackets).
  [[nodiscard]] static std::optional<ip_address> parse(std::string_view text) noexcept;

  /// A mapped address is IPv6.
  [[nodiscard]] constexpr ip_family family() const noexcept { return family_; }
  /// family() == ip_family::v4
  [[nodiscard]] constexpr bool is_v4() const noexcept { return family_ == ip_family::v4; }
  /// family() == ip_family::v6
  [[nodiscard]] constexpr bool is_v6() const noexcept { return family_ == ip_family::v6; }
  /// 32 or 128.
  [[nodiscard]] constexpr unsigned bits() const noexcept { return is_v4() ? 32 : 128; }
  /// 4 or 16.
  [[nodiscard]] constexpr std::size_t size() const noexcept { return is_v4() ? 4 : 16; }
  /// All 16 bytes, IPv4 in the first four.
  [[nodiscard]] constexpr const std::array<std::uint8_t, 16>& bytes() const noexcept {
    return bytes_;
  }
  /// IPv4 only: the address as a number.
  [[nodiscard]] constexpr std::uint32_t v4_host() const noexcept {
    return static_cast<std::uint32_t>(bytes_[0]) << 24 |
           static_cast<std::uint32_t>(bytes_[1]) << 16 |
           static_cast<std::uint32_t>(bytes_[2]) << 8 | bytes_[3];
  }
  /// 0.0.0.0 or ::.
  [[nodiscard]] constexpr bool is_unspecified() const noexcept {
    return bytes_ == std::array<std::uint8_t, 16>{};
  }
  /// 224.0.0.0/4 or ff00::/8.
  [[nodiscard]] constexpr bool is_multicast() const noexcept {
    return is_v4() ? (bytes_[0] & 0xf0) == 0xe0 : bytes_[0] == 0xff;
  }
  /// fe80::/10.
  [[nodiscard]] constexpr bool is_link_local_v6() const noexcept {
    return is_v6() && bytes_[0] == 0xfe && (bytes_[1] & 0xc0) == 0x80;
  }
  /// `::ffff:0:0/96`: an IPv4 address as AF_INET6 sockets write it (RFC 4291, 2.5.5.2).
  [[nodiscard]] constexpr bool is_v4_mapped() const noexcept {
    if (is_v4() || bytes_[10] != 0xff || bytes_[11] != 0xff) return false;
    for (std::size_t i = 0; i < 10; ++i)
      if (bytes_[i] != 0) return false;
    return true;
  }
  /// The IPv4 address that a mapped one stands for; any other as it is.
  [[nodiscard]] constexpr ip_address unmapped() const noexcept {
    if (!is_v4_mapped()) return *this;
    ip_address a;
    for (std::size_t i = 0; i < 4; ++i) a.bytes_[i] = bytes_[12 + i];
    return a;
  }
  /// Whether only a device makes it unique: fe80::/10 and multicast of the scopes interface-local
  /// and link-local. The kernel heeds the scope id of no other (__ipv6_addr_needs_scope_id in
  /// include/net/ipv6.h).
  [[nodiscard]] constexpr bool needs_scope_id() const noexcept {
    if (is_link_local_v6()) return true;
    const unsigned scope = bytes_[1] & 0x0fu;
    return is_v6() && is_multicast() && (scope == 1 || scope == 2);
  }
  /// 127.0.0.0/8 or ::1.
  [[nodiscard]] bool is_loopback() const noexcept;
  /// Bit `index`, counted from the most significant one.
  [[nodiscard]] constexpr bool bit(unsigned index) const noexcept {
    return (bytes_[index / 8] >> (7 - index % 8)) & 1;
  }
  /// As inet_ntop() writes it.
  [[nodiscard]] std::string to_string() const;

  friend constexpr bool operator==(const ip_address&, const ip_address&) noexcept = default;
  /// By family, then as numbers.
  friend constexpr std::strong_ordering operator<=>(const ip_address& a,
                                                    const ip_address& b) noexcept {
    if (a.family_ != b.family_) return a.family_ <=> b.family_;
    if (std::is_constant_evaluated()) return a.bytes_ <=> b.bytes_;
    const auto [a_high, a_low] = a.words();
    const auto [b_high, b_low] = b.words();
    return a_high != b_high ? a_high <=> b_high : a_low <=> b_low;
  }

 private:
  friend class ip_prefix;
  friend ip_address masked(const ip_address& address, unsigned length) noexcept;
  struct word_pair {
    std::uint64_t high, low;
  };
  /// In host order.
  [[nodiscard]] word_pair words() const noexcept {
    word_pair words;
    std::memcpy(&words, bytes_.data(), sizeof words);
    return {__builtin_bswap64(words.high), __builtin_bswap64(words.low)};
  }
  /// The first `length` bits.
  [[nodiscard]] static word_pair mask(unsigned length) noexcept {
    const std::uint64_t ones = ~std::uint64_t{0};
    return {length == 0    ? 0
            : length >= 64 ? ones
                           : ones << (64 - length),
            length <= 64 ? 0 : ones << (128 - length)};
  }

  ip_family family_ = ip_family::v4;
  std::array<std::uint8_t, 16> bytes_{};
};

/// An address and a length, host bits zero. Ordered by family, address, then length: the prefixes
/// inside a prefix follow it directly.
class ip_prefix {
 public:
  constexpr ip_prefix() noexcept = default;
  /// Clears the host bits. `length` is at most 32 or 128; larger is an assertion.
  ip_prefix(const ip_address& address, unsigned length) noexcept;
  /// "10.0.0.0/8", "default" is not accepted; a bare address is a host prefix; set host bits are
  /// cleared.
  [[nodiscard]] static std::optional<ip_prefix> parse(std::string_view text) noexcept;
  /// The whole address space of a family.
  [[nodiscard]] static ip_prefix all(ip_family family) noexcept {
    return {ip_address::any(family), 0};
  }

  /// The lowest one inside.
  [[nodiscard]] constexpr const ip_address& address() const noexcept { return address_; }
  /// In bits: 0 to address().bits().
  [[nodiscard]] constexpr unsigned length() const noexcept { return length_; }
  /// Of its addresses.
  [[nodiscard]] constexpr ip_family family() const noexcept { return address_.family(); }
  /// Whether there is one address inside.
  [[nodiscard]] constexpr bool is_host() const noexcept { return length_ == address_.bits(); }
  /// Whether `a` lies inside; one of the other family never does.
  [[nodiscard]] bool contains(const ip_address& a) const noexcept {
    const auto [own_high, own_low] = address_.words();
    const auto [high, low] = a.words();
    const auto mask = ip_address::mask(length_);
    return a.family() == family() && ((high ^ own_high) & mask.high) == 0 &&
           ((low ^ own_low) & mask.low) == 0;
  }
  /// Whether `other` lies inside, or is the same.
  [[nodiscard]] bool contains(const ip_prefix& other) const noexcept {
    return other.length_ >= length_ && contains(other.address_);
  }
  /// The highest address inside.
  [[nodiscard]] ip_address last() const noexcept;
  /// "10.0.0.0/8", with the length of host prefixes, too.
  [[nodiscard]] std::string to_string() const;

  friend constexpr auto operator<=>(const ip_prefix&, const ip_prefix&) noexcept = default;

 private:
  ip_address address_;
  std::uint8_t length_ = 0;
};

/// `address` with every bit after the first `length` cleared.
[[nodiscard]] ip_address masked(const ip_address& address, unsigned length) noexcept;

/// An IPv6 zone as RFC 4007 writes it behind "%": the index of the interface of that name, or that
/// number, in the calling thread's network namespace; nothing where there is no such interface, and
/// for 0. Asks the kernel.
[[nodiscard]] std::optional<std::uint32_t> parse_zone(std::string_view text) noexcept;

/// Where a datagram goes: address, UDP port (host order), and the scope id.
///
/// An IPv4-mapped IPv6 address means the IPv4 host, as it does to a socket.
struct endpoint {
  ip_address address;      ///< Unicast, multicast or broadcast.
  std::uint16_t port = 0;  ///< Host order.
  /// As sin6_scope_id: the index of the interface that the address belongs to; 0 = not said.
  /// Without meaning unless address.needs_scope_id().
  std::uint32_t scope_id = 0;
  friend constexpr auto operator<=>(const endpoint&, const endpoint&) noexcept = default;
  /// With ip_address::unmapped(), and without a scope id that means nothing.
  [[nodiscard]] constexpr endpoint canonical() const noexcept {
    return {address.unmapped(), port, address.needs_scope_id() ? scope_id : 0};
  }
  /// "10.0.0.1:8001", "[fd00::1]:8001" or "[fe80::1%eth0]:8001" (with the interface's number where
  /// it has no name any more).
  [[nodiscard]] std::string to_string() const;
  /// The same forms; the port is 1 to 65535. A zone (parse_zone()) goes only with an address that
  /// needs one.
  [[nodiscard]] static std::optional<endpoint> parse(std::string_view text) noexcept;
};

}  // namespace cowire

template <>
struct std::hash<cowire::ip_address> {
  std::size_t operator()(const cowire::ip_address& a) const noexcept;
};
template <>
struct std::hash<cowire::ip_prefix> {
  std::size_t operator()(const cowire::ip_prefix& p) const noexcept;
};
template <>
struct std::hash<cowire::endpoint> {
  std::size_t operator()(const cowire::endpoint& e) const noexcept;
};

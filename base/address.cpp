// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/address.hpp>

#include <cowire/base/assert.hpp>

#include <arpa/inet.h>
#include <net/if.h>

#include <charconv>
#include <cstdio>

namespace cowire {
namespace {

template <class Number>
std::optional<Number> parse_number(std::string_view text, unsigned max) noexcept {
  unsigned value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc{} || end != text.data() + text.size() || text.empty() || value > max)
    return {};
  return static_cast<Number>(value);
}

[[nodiscard]] std::uint64_t mix(std::uint64_t x) noexcept {  // The finaliser of splitmix64.
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

std::string mac_address::to_string() const {
  char text[18];
  std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", bytes[0], bytes[1], bytes[2],
                bytes[3], bytes[4], bytes[5]);
  return text;
}

std::optional<mac_address> mac_address::parse(std::string_view text) noexcept {
  if (text.size() != 17) return {};
  mac_address mac;
  for (std::size_t i = 0; i < 6; ++i) {
    const std::string_view byte = text.substr(3 * i, 2);
    if (i < 5 && text[3 * i + 2] != ':') return {};
    const auto [end, ec] = std::from_chars(byte.data(), byte.data() + 2, mac.bytes[i], 16);
    if (ec != std::errc{} || end != byte.data() + 2) return {};
  }
  return mac;
}

std::optional<ip_address> ip_address::parse(std::string_view text) noexcept {
  char buffer[INET6_ADDRSTRLEN];
  if (text.empty() || text.size() >= sizeof buffer) return {};
  std::memcpy(buffer, text.data(), text.size());
  buffer[text.size()] = '\0';
  std::uint8_t raw[16];
  if (::inet_pton(AF_INET, buffer, raw) == 1) return from_bytes(ip_family::v4, raw);
  if (::inet_pton(AF_INET6, buffer, raw) == 1) return from_bytes(ip_family::v6, raw);
  return {};
}

bool ip_address::is_loopback() const noexcept {
  if (is_v4()) return bytes_[0] == 127;
  std::array<std::uint8_t, 16> one{};
  one[15] = 1;
  return bytes_ == one;
}

std::string ip_address::to_string() const {
  char text[INET6_ADDRSTRLEN];
  ::inet_ntop(is_v4() ? AF_INET : AF_INET6, bytes_.data(), text, sizeof text);
  return text;
}

ip_address masked(const ip_address& address, unsigned length) noexcept {
  auto [high, low] = address.words();
  const auto mask = ip_address::mask(length);
  const std::uint64_t kept[] = {__builtin_bswap64(high & mask.high),
                                __builtin_bswap64(low & mask.low)};
  ip_address result = address;
  std::memcpy(result.bytes_.data(), kept, sizeof kept);
  return result;
}

ip_prefix::ip_prefix(const ip_address& address, unsigned length) noexcept
    : address_(masked(address, length)), length_(static_cast<std::uint8_t>(length)) {
  COWIRE_ASSERT(length <= address.bits());
}

std::optional<ip_prefix> ip_prefix::parse(std::string_view text) noexcept {
  const auto slash = text.find('/');
  const auto address = ip_address::parse(text.substr(0, slash));
  if (!address) return {};
  if (slash == std::string_view::npos) return ip_prefix(*address, address->bits());
  const auto length = parse_number<unsigned>(text.substr(slash + 1), address->bits());
  if (!length) return {};
  return ip_prefix(*address, *length);
}

ip_address ip_prefix::last() const noexcept {
  std::array<std::uint8_t, 16> bytes = address_.bytes();
  const std::size_t size = address_.size();
  for (unsigned i = 0; i < size; ++i) {
    const unsigned keep = length_ > 8 * i ? length_ - 8 * i : 0;
    if (keep < 8) bytes[i] = static_cast<std::uint8_t>(bytes[i] | (0xffu >> keep));
  }
  return ip_address::from_bytes(family(), bytes.data());
}

std::string ip_prefix::to_string() const {
  return address_.to_string() + '/' + std::to_string(length_);
}

std::optional<std::uint32_t> parse_zone(std::string_view text) noexcept {
  char name[IF_NAMESIZE];
  if (text.empty() || text.size() >= sizeof name) return {};
  std::memcpy(name, text.data(), text.size());
  name[text.size()] = '\0';
  // A name first: an interface may be called "7".
  if (const unsigned index = ::if_nametoindex(name); index != 0) return index;
  const auto number = parse_number<std::uint32_t>(text, 0x7fffffff);
  if (!number || ::if_indextoname(*number, name) == nullptr) return {};
  return number;
}

std::string endpoint::to_string() const {
  std::string host = address.to_string();
  if (scope_id != 0 && address.needs_scope_id()) {
    char name[IF_NAMESIZE];
    const bool named = ::if_indextoname(scope_id, name) != nullptr;
    host += '%' + (named ? std::string(name) : std::to_string(scope_id));
  }
  return (address.is_v6() ? '[' + host + ']' : host) + ':' + std::to_string(port);
}

std::optional<endpoint> endpoint::parse(std::string_view text) noexcept {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return {};
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const auto percent = host.find('%');
  const auto address = ip_address::parse(host.substr(0, percent));
  const auto port = parse_number<std::uint16_t>(text.substr(colon + 1), 65535);
  if (!address || !port || *port == 0 || address->is_v6() != bracketed) return {};
  if (percent == std::string_view::npos) return endpoint{*address, *port};
  const auto zone = parse_zone(host.substr(percent + 1));
  if (!zone || !address->needs_scope_id()) return {};
  return endpoint{*address, *port, *zone};
}

}  // namespace cowire

std::size_t std::hash<cowire::ip_address>::operator()(const cowire::ip_address& a) const noexcept {
  std::uint64_t words[2];
  std::memcpy(words, a.bytes().data(), sizeof words);
  return cowire::mix(words[0] ^ cowire::mix(words[1] + static_cast<std::uint64_t>(a.family())));
}

std::size_t std::hash<cowire::ip_prefix>::operator()(const cowire::ip_prefix& p) const noexcept {
  return cowire::mix(std::hash<cowire::ip_address>{}(p.address()) + p.length());
}

std::size_t std::hash<cowire::endpoint>::operator()(const cowire::endpoint& e) const noexcept {
  return cowire::mix(std::hash<cowire::ip_address>{}(e.address) + e.port +
                     (std::uint64_t{e.scope_id} << 16));
}

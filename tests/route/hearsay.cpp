// SPDX-License-Identifier: Apache-2.0
#include "hearsay.hpp"

#include <cowire/base/checksum.hpp>

#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>

#include <span>
#include <sstream>

namespace cowire::testing {
namespace {

/// Big-endian.
std::string number(std::uint64_t value, int size) {
  std::string out;
  for (int shift = 8 * (size - 1); shift >= 0; shift -= 8)
    out += static_cast<char>(value >> shift & 0xff);
  return out;
}

std::string text_of(const ip_address& address) {
  return {reinterpret_cast<const char*>(address.bytes().data()), address.size()};
}

std::uint64_t sum_of(const std::string& text) {
  return sum_bytes(std::as_bytes(std::span(text.data(), text.size())));
}

/// With the checksum in place, which goes over `pseudo_header` as well.
std::string checked(std::string message, std::size_t offset, const std::string& pseudo_header) {
  const std::uint16_t sum = finish_sum(sum_of(pseudo_header) + sum_of(message));
  message.replace(offset, sizeof sum, reinterpret_cast<const char*>(&sum), sizeof sum);
  return message;
}

std::string header(const ip_address& from, const ip_address& to, std::size_t payload) {
  const auto length = static_cast<std::uint32_t>(payload);
  if (from.is_v6())
    return number(6u << 28, 4) + number(length, 2) + number(IPPROTO_ICMPV6 << 8 | 255, 2) +
           text_of(from) + text_of(to);
  const std::string start =
      number(0x4500, 2) + number(length + 20, 2) + number(0, 4) + number(64 << 8 | IPPROTO_ICMP, 2);
  return checked(start + number(0, 2) + text_of(from) + text_of(to), 10, {});
}

/// The start of what the message is about.
std::string echo_reply(const ip_address& from, const ip_address& to) {
  return header(from, to, 8) + number(from.is_v6() ? ICMP6_ECHO_REPLY : 0, 1) + number(0, 3) +
         number(0, 4);
}

}  // namespace

std::string link_address_of(std::uint32_t device) {
  return "02:aa:00:00:00:0" + std::to_string(device);
}

std::optional<hearsay> hearsay::parse(const std::string& line) {
  std::istringstream words(line);
  std::string icmp, from, own, about, what, value;
  hearsay made;
  if (!(words >> icmp >> made.device >> from >> own >> about >> what >> value) || icmp != "icmp")
    return std::nullopt;
  made.from = ip_address::parse(from).value();
  made.own = ip_address::parse(own).value();
  made.about = ip_address::parse(about).value();
  if (what == "redirect")
    made.gateway = ip_address::parse(value);
  else
    made.mtu = static_cast<std::uint32_t>(std::stoul(value));
  return made;
}

std::string hearsay::to_string() const {
  return "icmp " + std::to_string(device) + " " + from.to_string() + " " + own.to_string() + " " +
         about.to_string() +
         (gateway ? " redirect " + gateway->to_string() : " mtu " + std::to_string(mtu));
}

std::string hearsay::frame() const {
  std::string message, pseudo_header;
  const bool v6 = own.is_v6();
  // RFC 792; RFC 4443, 3.2; RFC 4861, 4.5, with none of its options.
  if (!v6 && gateway)
    message = number(ICMP_REDIRECT << 24 | ICMP_REDIR_HOST << 16, 4) + text_of(*gateway);
  else if (!v6)
    message = number(ICMP_UNREACH << 24 | ICMP_UNREACH_NEEDFRAG << 16, 4) + number(mtu, 4);
  else if (gateway)
    message = number(static_cast<std::uint32_t>(ND_REDIRECT) << 24, 4) + number(0, 4) +
              text_of(*gateway) + text_of(about);
  else
    message = number(ICMP6_PACKET_TOO_BIG << 24, 4) + number(mtu, 4);
  if (!v6 || !gateway) message += echo_reply(own, about);
  if (v6)
    pseudo_header = text_of(from) + text_of(own) +
                    number(static_cast<std::uint32_t>(message.size()), 4) +
                    number(IPPROTO_ICMPV6, 4);
  message = checked(message, 2, pseudo_header);
  const std::string there = number(0x02aa0000, 4) + number(device, 2), router = number(2, 6);
  return there + router + number(v6 ? 0x86dd : 0x0800, 2) + header(from, own, message.size()) +
         message;
}

}  // namespace cowire::testing

// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/parse.hpp>

#include <cowire/base/unique_fd.hpp>

#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>

namespace cowire::cli {
namespace {

std::string quote(std::string_view what, std::string_view text) {
  return std::string(what) + " '" + std::string(text) + "': ";
}

std::string_view trimmed(std::string_view line) {
  line = line.substr(0, line.find('#'));
  const auto first = line.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
}

[[noreturn]] void cannot_read(std::string_view what, const std::string& path) {
  throw usage_error(quote(what, path) + std::strerror(errno) + "; name a file that you can read");
}

}  // namespace

std::uint64_t parse_number(std::string_view what, std::string_view text, std::uint64_t low,
                           std::uint64_t high, int base) {
  const auto range = std::to_string(low) + " to " + std::to_string(high);
  std::string_view digits = text;
  if (base != 10 && (text.starts_with("0x") || text.starts_with("0X"))) {
    digits.remove_prefix(2);
    base = 16;
  }
  std::uint64_t value = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, base == 0 ? 10 : base);
  if (error == std::errc::invalid_argument || end != digits.data() + digits.size())
    throw usage_error(quote(what, text) + "not a number; use " + range);
  if (error == std::errc::result_out_of_range || value < low || value > high)
    throw usage_error(quote(what, text) + "out of range; use " + range);
  return value;
}

double parse_positive(std::string_view what, std::string_view text) {
  const std::string word(text);
  char* end = nullptr;
  const double value = std::strtod(word.c_str(), &end);
  if (word.empty() || *end != '\0' || !std::isfinite(value) || value <= 0)
    throw usage_error(quote(what, text) + "not a number above zero; use for example 1000 or 0.5");
  return value;
}

ip_address parse_address(std::string_view what, std::string_view text) {
  if (const auto address = ip_address::parse(text)) return *address;
  throw usage_error(
      quote(what, text) +
      "not an IP address; write it as 192.0.2.1 or 2001:db8::1, without a port or a zone");
}

ip_address parse_local_address(std::string_view what, std::string_view text) {
  const auto address = parse_address(what, text);
  sockaddr_in v4{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {}, .sin_zero = {}};
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  std::memcpy(&v4.sin_addr, address.bytes().data(), sizeof v4.sin_addr);
  std::memcpy(&v6.sin6_addr, address.bytes().data(), sizeof v6.sin6_addr);
  const auto* name = address.is_v4() ? reinterpret_cast<const sockaddr*>(&v4)
                                     : reinterpret_cast<const sockaddr*>(&v6);
  const unique_fd fd{::socket(name->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  if (::bind(fd.get(), name, address.is_v4() ? sizeof v4 : sizeof v6) != 0)
    throw usage_error(quote(what, text) + std::strerror(errno) +
                      "; use an address of this host, 'ip address' lists them");
  return address;
}

endpoint parse_endpoint(std::string_view what, std::string_view text) {
  if (const auto to = endpoint::parse(text)) return *to;
  throw usage_error(
      quote(what, text) +
      "not ADDR:PORT with a port from 1 to 65535; write 192.0.2.1:8001 or [2001:db8::1]:8001");
}

std::uint32_t parse_interface(std::string_view what, const std::string& text) {
  const auto index = ::if_nametoindex(text.c_str());
  if (index == 0)
    throw usage_error(quote(what, text) + "no such network interface; 'ip link' lists them");
  return index;
}

std::vector<endpoint> read_endpoints(const std::string& path) {
  std::ifstream file(path);
  if (!file) cannot_read("--to-file", path);
  std::vector<endpoint> result;
  std::string line;
  for (std::size_t number = 1; std::getline(file, line); ++number) {
    const auto text = trimmed(line);
    if (!text.empty()) result.push_back(parse_endpoint(path + ":" + std::to_string(number), text));
  }
  if (file.bad()) cannot_read("--to-file", path);
  if (result.empty())
    throw usage_error(quote("--to-file", path) +
                      "no destinations in it; write one ADDR:PORT a line");
  return result;
}

std::vector<std::byte> read_bytes(std::string_view what, const std::string& path,
                                  std::size_t limit) {
  std::ifstream file;
  if (path != "-") {
    file.open(path, std::ios::binary);
    if (!file) cannot_read(what, path);
  }
  std::istream& in = path == "-" ? std::cin : file;
  std::vector<std::byte> bytes(limit + 1);
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (in.bad() || (in.fail() && !in.eof())) cannot_read(what, path);
  bytes.resize(static_cast<std::size_t>(in.gcount()));
  if (bytes.size() > limit)
    throw usage_error(quote(what, path) + "longer than the " + std::to_string(limit) +
                      " bytes that one datagram carries here; send less");
  return bytes;
}

}  // namespace cowire::cli

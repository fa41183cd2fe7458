// SPDX-License-Identifier: Apache-2.0
#include <cowire/cli/parse.hpp>

#include <cowire/base/unique_fd.hpp>
#include <cowire/cli/output.hpp>

#include <grp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>
#include <vector>

namespace cowire::cli {
namespace {

/// So much of a word is shown.
constexpr std::size_t shown_max = 200;

std::string quote(std::string_view what, std::string_view text) {
  // Here already, where a file's null bytes would end the message of an exception.
  return std::string(what) + " '" + terminal_safe(text.substr(0, shown_max)) +
         (text.size() > shown_max ? "...': " : "': ");
}

std::string decimal(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
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

double parse_real(std::string_view what, std::string_view text, double low, double high) {
  const std::string word(text);
  char* end = nullptr;
  const double value = std::strtod(word.c_str(), &end);
  // What is too small for a double is zero to strtod.
  if (word.empty() || *end != '\0' || std::isnan(value) || value <= 0)
    throw usage_error(quote(what, text) + "not a number above zero; use for example 1000 or 0.5");
  if (value < low || value > high)
    throw usage_error(quote(what, text) + "out of range; use " +
                      (low > 0 ? decimal(low) + " to " : "at most ") + decimal(high));
  return value;
}

ip_address parse_address(std::string_view what, std::string_view text) {
  if (const auto address = ip_address::parse(text)) return *address;
  throw usage_error(
      quote(what, text) +
      "not an IP address; write it as 192.0.2.1 or 2001:db8::1, without a port or a zone");
}

scoped_address parse_scoped_address(std::string_view what, std::string_view text) {
  const auto percent = text.find('%');
  if (percent == std::string_view::npos) return {parse_address(what, text).unmapped(), 0};
  const auto address = parse_address(what, text.substr(0, percent));
  if (!address.needs_scope_id())
    throw usage_error(quote(what, text) +
                      "only link-local addresses have a zone; leave out what begins at '%'");
  const auto zone = parse_zone(text.substr(percent + 1));
  if (!zone)
    throw usage_error(quote(what, text) +
                      "no such network interface after '%'; 'ip link' lists them");
  return {address, *zone};
}

ip_address parse_local_address(std::string_view what, std::string_view text,
                               const std::string& device, bool comes_later) {
  const auto address = parse_address(what, text).unmapped();
  if (address.needs_scope_id() && device.empty())
    throw usage_error(quote(what, text) + "a link-local address needs its device; add --device IF");
  if (comes_later) return address;
  sockaddr_in v4{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {}, .sin_zero = {}};
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  std::memcpy(&v4.sin_addr, address.bytes().data(), sizeof v4.sin_addr);
  std::memcpy(&v6.sin6_addr, address.bytes().data(), sizeof v6.sin6_addr);
  if (address.needs_scope_id()) v6.sin6_scope_id = ::if_nametoindex(device.c_str());
  const auto* name = address.is_v4() ? reinterpret_cast<const sockaddr*>(&v4)
                                     : reinterpret_cast<const sockaddr*>(&v6);
  const unique_fd fd{::socket(name->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  // Addresses of a VRF are those of sockets in it alone.
  if (!device.empty())
    static_cast<void>(::setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, device.c_str(),
                                   static_cast<socklen_t>(device.size())));
  if (::bind(fd.get(), name, address.is_v4() ? sizeof v4 : sizeof v6) != 0)
    throw usage_error(quote(what, text) + std::strerror(errno) +
                      "; use an address of this host, 'ip address' lists them");
  return address;
}

endpoint parse_endpoint(std::string_view what, std::string_view text) {
  if (const auto to = endpoint::parse(text)) return *to;
  if (const auto end = text.find(']'); text.starts_with('[') && text.find('%') < end)
    static_cast<void>(parse_scoped_address(what, text.substr(1, end - 1)));  // It tells more.
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

std::uint32_t parse_group(std::string_view what, const std::string& text) {
  constexpr std::uint64_t gid_max = 0xffff'fffe;  // The next one means "as it is" to chown().
  if (!text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; }))
    return static_cast<std::uint32_t>(parse_number(what, text, 0, gid_max, 10));
  std::vector<char> room(1 << 16);
  ::group entry{};
  ::group* found = nullptr;
  ::getgrnam_r(text.c_str(), &entry, room.data(), room.size(), &found);
  if (found == nullptr)
    throw usage_error(std::string(what) + " '" + text +
                      "': no such group; give one of /etc/group, or its number");
  return found->gr_gid;
}

bool read_line(std::istream& from, std::string& line) {
  line.clear();
  for (int next = from.get(); next != std::istream::traits_type::eof(); next = from.get()) {
    if (next == '\n') return true;
    line += static_cast<char>(next);
    if (line.size() > line_length_max) return true;
  }
  return !line.empty();
}

std::vector<endpoint> read_endpoints(const std::string& path) {
  std::ifstream file(path);
  if (!file) cannot_read("--to-file", path);
  std::vector<endpoint> result;
  std::string line;
  for (std::size_t number = 1; read_line(file, line); ++number) {
    const std::string place = path + ":" + std::to_string(number);
    if (line.size() > line_length_max)
      throw usage_error(quote(place, line) + "longer than " + std::to_string(line_length_max) +
                        " bytes; write one ADDR:PORT a line");
    if (number > endpoint_lines_max)
      throw usage_error(quote("--to-file", path) + "more than " +
                        std::to_string(endpoint_lines_max) + " lines; give fewer destinations");
    const auto text = trimmed(line);
    if (!text.empty()) result.push_back(parse_endpoint(place, text));
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

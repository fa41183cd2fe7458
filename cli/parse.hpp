// SPDX-License-Identifier: Apache-2.0
/// Words of the command line as values. Every function either returns a value or throws a
/// usage_error whose text names the option, the word, the limit and the remedy, in one line. No
/// state; any thread.
#pragma once

#include <cowire/base/address.hpp>

#include <cstdint>
#include <iosfwd>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace cowire::cli {

/// What the user can mend: printed as one line after "cowire: ", exit status 2.
class usage_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Of a device, as AF_XDP counts them: in 16 bits (xsk_get_pool_from_qid() in net/xdp/xsk.c).
inline constexpr std::uint64_t queue_max = 65'535;

/// A whole number from `low` to `high`. Base 0 takes "10" and "0x0a", base 16 also "0a".
[[nodiscard]] std::uint64_t parse_number(std::string_view what, std::string_view text,
                                         std::uint64_t low, std::uint64_t high, int base = 0);

/// A number above zero from `low` to `high`, fractions and exponents allowed ("0.5", "1e6").
[[nodiscard]] double parse_real(std::string_view what, std::string_view text, double low,
                                double high);

[[nodiscard]] ip_address parse_address(std::string_view what, std::string_view text);

struct scoped_address {
  ip_address address;
  std::uint32_t scope_id = 0;  ///< 0 = no zone was given.
};
/// The same, and "fe80::1%eth0" for addresses that need a zone. An IPv4-mapped address gives the
/// IPv4 address.
[[nodiscard]] scoped_address parse_scoped_address(std::string_view what, std::string_view text);

/// An address that a UDP socket may bind to here and now, on `device` if that is not empty: asks
/// the kernel, with a socket of its own, unless it `comes_later`. An IPv4-mapped address gives the
/// IPv4 address.
[[nodiscard]] ip_address parse_local_address(std::string_view what, std::string_view text,
                                             const std::string& device, bool comes_later = false);

/// "10.0.0.1:8001", "[fd00::1]:8001" or "[fe80::1%eth0]:8001".
[[nodiscard]] endpoint parse_endpoint(std::string_view what, std::string_view text);

/// The index of an existing network interface.
[[nodiscard]] std::uint32_t parse_interface(std::string_view what, const std::string& text);

/// The gid of a group, by its name or its number.
[[nodiscard]] std::uint32_t parse_group(std::string_view what, const std::string& text);

/// The longest line that is read from a file: several times what any of them can need.
inline constexpr std::size_t line_length_max = 4096;
/// A file of destinations has at most so many lines.
inline constexpr std::size_t endpoint_lines_max = 1'000'000;

/// The next line without its end, as std::getline; of one that is too long, so much that it shows.
[[nodiscard]] bool read_line(std::istream& from, std::string& line);

/// A file of destinations, one ADDR:PORT a line; "#" starts a comment. Errors name the file and the
/// line.
[[nodiscard]] std::vector<endpoint> read_endpoints(const std::string& path);

/// All bytes of a file, or of standard input for "-". Throws when there are more than `limit`.
[[nodiscard]] std::vector<std::byte> read_bytes(std::string_view what, const std::string& path,
                                                std::size_t limit);

}  // namespace cowire::cli

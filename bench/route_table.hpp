// SPDX-License-Identifier: Apache-2.0
/// Tables to measure with: a real IPv4 one from a file, or synthetic ones with the shape of the
/// global routing tables (prefix lengths, nesting, runs of neighbours with one next hop).
#pragma once

#include <cowire/base/address.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

namespace cowire::bench {

struct table_route {
  std::uint32_t prefix;
  unsigned length;
  std::uint32_t value;  ///< 1 .. number of next hops.
};

[[nodiscard]] constexpr std::uint32_t host_bits(unsigned length) {
  return static_cast<std::uint32_t>((std::uint64_t{1} << (32 - length)) - 1);
}

/// Sorted by prefix, then length, without duplicates.
inline void normalise(std::vector<table_route>& routes) {
  const auto key = [](const table_route& r) { return std::tie(r.prefix, r.length); };
  std::sort(routes.begin(), routes.end(),
            [&](const auto& a, const auto& b) { return key(a) < key(b); });
  routes.erase(std::unique(routes.begin(), routes.end(),
                           [&](const auto& a, const auto& b) { return key(a) == key(b); }),
               routes.end());
}

/// About `count` routes, always the same ones.
inline std::vector<table_route> synthetic_table(std::size_t count, unsigned next_hops) {
  // Prefixes by length in the global IPv4 table of 2024, /8 to /24, in thousands.
  constexpr double share[] = {0.016, 0.013, 0.04, 0.1, 0.3, 0.6, 1.2, 2.1, 13.6,
                              8.3,   14.0,  25.5, 45,  55,  115, 105, 620};
  std::mt19937_64 random(20240601);
  std::discrete_distribution<unsigned> length_beyond_8(std::begin(share), std::end(share));
  std::vector<unsigned> lengths(count + count / 4);
  for (auto& length : lengths) length = 8 + length_beyond_8(random);
  std::sort(lengths.begin(), lengths.end());

  std::vector<table_route> routes;
  routes.reserve(lengths.size());
  for (const unsigned length : lengths) {
    const std::uint32_t step = 1u << (32 - length);
    const auto draw = random();
    table_route next{static_cast<std::uint32_t>(random()), length,
                     1 + static_cast<std::uint32_t>(random() % next_hops)};
    if (!routes.empty() && draw % 16 < 9) {  // The neighbour of the last one, usually with its hop.
      next.prefix = routes.back().prefix + step;
      if (draw / 16 % 8 != 0) next.value = routes.back().value;
    } else if (!routes.empty() && draw % 16 < 15) {  // Inside of a shorter one.
      const table_route& outer = routes[random() % routes.size()];
      next.prefix = outer.prefix | (next.prefix & host_bits(outer.length));
    }
    next.prefix &= ~(step - 1);
    if (next.prefix >> 24 == 0 || next.prefix >> 24 >= 224) continue;
    routes.push_back(next);
  }
  normalise(routes);
  while (routes.size() > count) {  // Thin out evenly.
    std::vector<table_route> kept;
    std::sample(routes.begin(), routes.end(), std::back_inserter(kept), count, random);
    routes.swap(kept);
  }
  return routes;
}

struct table_route6 {
  std::uint64_t prefix;  ///< The first 64 bits.
  unsigned length;       ///< At most 64.
  std::uint32_t value;
};

/// At most `count` routes, always the same ones, shorter ones first.
inline std::vector<table_route6> synthetic_table6(std::size_t count, unsigned next_hops) {
  // What the registries hand out of: RIPE, ARIN, APNIC, the oldest blocks, LACNIC, AfriNIC.
  constexpr std::pair<std::uint64_t, unsigned> registries[] = {
      {0x2a00, 12}, {0x2600, 12}, {0x2400, 12}, {0x2001, 16}, {0x2800, 12}, {0x2c00, 12}};
  // Prefixes by length in the global IPv6 table, /29 to /48, in thousands; others are rare.
  constexpr double share[] = {6.5, 1.6, 0.6, 25, 4, 3,  1.2, 9,  1.5, 3.5,
                              1.7, 23,  1.5, 6,  2, 22, 4,   11, 5.5, 98};
  std::mt19937_64 random(20240602);
  std::discrete_distribution<unsigned> length_beyond_29(std::begin(share), std::end(share));
  std::discrete_distribution<unsigned> registry({35, 25, 25, 5, 7, 3});
  std::vector<unsigned> lengths(count);
  for (auto& length : lengths) length = 29 + length_beyond_29(random);
  std::sort(lengths.begin(), lengths.end());

  std::map<std::pair<unsigned, std::uint64_t>, std::uint32_t> seen;
  std::vector<table_route6> routes;
  for (const unsigned length : lengths) {
    const auto [block, bits] = registries[registry(random)];
    const auto draw = random();
    table_route6 next{block << 48 | random() >> bits, length,
                      1 + static_cast<std::uint32_t>(random() % next_hops)};
    if (!routes.empty() && draw % 16 < 8) {  // The neighbour of the last one.
      next.prefix = routes.back().prefix + (std::uint64_t{1} << (64 - length));
      if (draw / 16 % 8 != 0) next.value = routes.back().value;
    } else if (!routes.empty() && draw % 16 < 15) {  // Inside of a shorter one.
      const table_route6& outer = routes[random() % routes.size()];
      next.prefix = outer.prefix | random() >> outer.length;
    }
    next.prefix &= ~std::uint64_t{0} << (64 - length);
    if (seen.try_emplace({length, next.prefix}, next.value).second) routes.push_back(next);
  }
  return routes;
}

/// Lines "prefix/length nexthop"; IPv6 lines and comments are skipped. Ends the program if the file
/// cannot be read or holds no route.
inline std::vector<table_route> read_table(const std::string& path) {
  std::ifstream file(path);
  std::vector<table_route> routes;
  std::map<std::string, std::uint32_t> hops;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string prefix_text, hop;
    words >> prefix_text >> hop;
    const auto prefix = ip_prefix::parse(prefix_text);
    if (!prefix || prefix->family() != ip_family::v4) continue;
    const auto id = hops.try_emplace(hop, static_cast<std::uint32_t>(hops.size()) + 1);
    routes.push_back({prefix->address().v4_host(), prefix->length(), id.first->second});
  }
  if (routes.empty()) {
    std::fprintf(stderr, "--table %s: no line \"prefix/length nexthop\" could be read\n",
                 path.c_str());
    std::exit(2);
  }
  normalise(routes);
  return routes;
}

}  // namespace cowire::bench

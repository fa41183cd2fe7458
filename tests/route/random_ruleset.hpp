// SPDX-License-Identifier: Apache-2.0
/// Random nf_tables rulesets of which a part can be taken away, so that a failing one shrinks.
#pragma once

#include <cowire/base/address.hpp>

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace cowire::test {

/// Where the flows of the rulesets' world go, and from where.
struct ruleset_world {
  ip_family family = ip_family::v4;
  std::string source, device;
  std::vector<std::string> destinations;
  std::vector<std::uint16_t> ports;
};

struct random_ruleset {
  struct chain {
    std::string head;  ///< Name, and for a base chain its hook.
    std::vector<std::string> rules;
    std::size_t table = 0;  ///< Jumps stay in one table.
  };
  std::vector<std::string> families;  ///< Of each table.
  std::vector<std::string> sets;      ///< Of each table the same.
  std::vector<chain> chains;          ///< Those that are jumped to first.

  /// As nft(8) reads it; everything that was there is flushed.
  [[nodiscard]] std::string text() const;
  [[nodiscard]] std::size_t rule_count() const;
};

[[nodiscard]] random_ruleset make_ruleset(std::mt19937_64& random, const ruleset_world& world);

}  // namespace cowire::test

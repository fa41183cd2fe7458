// SPDX-License-Identifier: Apache-2.0
/// JSON values as the words of a line for people.
#pragma once

#include <nlohmann/json.hpp>

#include <ostream>
#include <string>

namespace cowire::cli {

/// Strings without quotes.
[[nodiscard]] inline std::string word(const nlohmann::ordered_json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

/// `before` and the value of `key`, where `from` has it.
inline void add_word(std::ostream& out, const nlohmann::ordered_json& from, const char* key,
                     const char* before) {
  if (const auto found = from.find(key); found != from.end()) out << before << word(*found);
}

}  // namespace cowire::cli

// SPDX-License-Identifier: Apache-2.0
/// JSON values as the words of a line for people, and as a line for scripts.
#pragma once

#include <nlohmann/json.hpp>

#include <ostream>
#include <string>

namespace cowire::cli {

/// One line, all of it ASCII: names that are no UTF-8 neither end the command nor reach a terminal
/// as they are.
[[nodiscard]] inline std::string json_line(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace);
}

/// Strings without quotes.
[[nodiscard]] inline std::string word(const nlohmann::ordered_json& value) {
  return value.is_string() ? value.get<std::string>() : json_line(value);
}

/// `before` and the value of `key`, where `from` has it.
inline void add_word(std::ostream& out, const nlohmann::ordered_json& from, const char* key,
                     const char* before) {
  if (const auto found = from.find(key); found != from.end()) out << before << word(*found);
}

}  // namespace cowire::cli

// SPDX-License-Identifier: Apache-2.0
/// Numbers of options, checked before anything is made of them.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <utility>

namespace cowire {

namespace detail {

[[noreturn]] void refuse_option(const char* option, std::uint64_t least, std::uint64_t most,
                                const char* unit, const std::string& value);

}  // namespace detail

/// Throws std::system_error (error::invalid_argument) naming the option, its value and its range
/// unless `value` is `least` to `most`; `unit` is put behind the latter (" ms").
template <std::integral Number>
void check_range(const char* option, Number value, std::uint64_t least, std::uint64_t most,
                 const char* unit = "") {
  if (std::cmp_less(value, least) || std::cmp_greater(value, most))
    detail::refuse_option(option, least, most, unit, std::to_string(value));
}

}  // namespace cowire

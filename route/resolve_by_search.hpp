// SPDX-License-Identifier: Apache-2.0
/// resolve() for those who ask often: it searches the tables as the compiler does, where the
/// reference walks over every route. Same answers, same rules of use.
#pragma once

#include <cowire/route/resolve.hpp>

#include <cstdint>
#include <vector>

namespace cowire {

/// `tables` are those that rules may lead to; what goes to another is table_not_mirrored. Null =
/// all.
[[nodiscard]] resolution resolve_by_search(const mirror& state, const flow& question,
                                           route_question as,
                                           const std::vector<std::uint32_t>* tables = nullptr);

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// resolve() for those who ask often: it searches the tables as the compiler does, where the
/// reference walks over every route. Same answers, same rules of use.
#pragma once

#include <cowire/route/resolve.hpp>

namespace cowire {

[[nodiscard]] resolution resolve_by_search(const mirror& state, const flow& question,
                                           route_question as);

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// Whose path exceptions the kernel's answers show.
#pragma once

#include <cowire/route/flow.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/path_exception.hpp>

#include <optional>

namespace cowire {

/// The next hop that the kernel's answer about a flow is an answer of; unset where that is not
/// certain: several may be meant, there is no route, or exceptions depend on more than it.
[[nodiscard]] std::optional<exception_owner> exception_owner_of(const mirror& state,
                                                                const flow& question);

}  // namespace cowire

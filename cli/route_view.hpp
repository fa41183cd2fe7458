// SPDX-License-Identifier: Apache-2.0
/// Routes and route decisions as iproute2 shows them: the keys of `ip -j route`, and its text made
/// from those keys, so that text and JSON cannot disagree.
#pragma once

#include <cowire/netlink/message.hpp>
#include <cowire/route/compiler.hpp>
#include <cowire/route/flow.hpp>

#include <nlohmann/json.hpp>

#include <optional>
#include <string>

namespace cowire::cli {

using json = nlohmann::ordered_json;

/// A route of a table, as `ip -j route show` prints it; `show_table` adds its table even where `ip`
/// leaves it out.
[[nodiscard]] json route_json(const netlink::route& route, bool show_table);

/// The answer to `question`, as `ip -j route get` prints it, with the object "cowire": what the
/// fast path would do. Where the kernel would refuse: only "dst" and "error", the name of the errno
/// that a sendto would get.
[[nodiscard]] json answer_json(const flow& question, const explanation& answer);

/// One line (and lines for "nexthops", "cache" and "cowire") for either of them.
[[nodiscard]] std::string route_text(const json& route);

}  // namespace cowire::cli

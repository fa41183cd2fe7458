// SPDX-License-Identifier: Apache-2.0
/// Numbers of routing messages by the names that iproute2 prints, the administrator's own names
/// included (/etc/iproute2). The files are read once, at the first use; not for several threads at
/// once.
#pragma once

#include <cstdint>
#include <string>

namespace cowire::cli {

[[nodiscard]] std::string table_name(std::uint32_t table);
/// A name or a number, as `ip route show table T` takes it; "all" is not a table. Throws
/// usage_error.
[[nodiscard]] std::uint32_t parse_table(const std::string& text);
[[nodiscard]] std::string protocol_name(std::uint8_t protocol);
[[nodiscard]] std::string scope_name(std::uint8_t scope);
/// RTN_*.
[[nodiscard]] std::string type_name(std::uint8_t type);
/// The name of an interface now, "if7" when it has gone.
[[nodiscard]] std::string interface_name(std::uint32_t index);

}  // namespace cowire::cli

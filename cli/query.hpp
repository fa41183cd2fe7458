// SPDX-License-Identifier: Apache-2.0
/// The question of `cowire route get`, in the words of `ip route get`.
#pragma once

#include <cowire/base/address.hpp>
#include <cowire/route/flow.hpp>

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace cowire::cli {

/// DST[%ZONE] [from SRC] [mark M] [oif DEV] [tos T] [ipproto P] [sport N] [dport N] [uid U], "to"
/// in front of DST and "dev" for "oif" as `ip` takes them. `tos` is hexadecimal, as there. Without
/// `uid` it is the caller's, without `ipproto` UDP: the kernel's own defaults. Without `oif` or
/// `mark` they are what the sockets of this process have from the start (`ip vrf exec`). A zone is
/// the device, and goes before `oif`. IPv4-mapped addresses are IPv4. Throws usage_error.
[[nodiscard]] flow parse_query(std::span<const std::string> words);

/// One line of a batch file: a query, or a whole "route get ..." as in a file for `ip -batch`.
/// Empty for blank lines and comments ("#").
[[nodiscard]] std::vector<std::string> split_query(std::string_view line);

}  // namespace cowire::cli

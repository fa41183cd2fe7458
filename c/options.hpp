// SPDX-License-Identifier: Apache-2.0
/// Option structs that begin with their size: of programs older and newer than the library.
#pragma once

#include <cowire/base/error.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>

namespace cowire::c {

/// What a program of its own header's size has set, the rest as in `defaults`. Throws
/// std::system_error: EINVAL where the size is not one, E2BIG where something is set that we do not
/// know.
template <class Options>
[[nodiscard]] Options known(const Options* from, const Options& defaults, const char* name) {
  Options out = defaults;
  if (from == nullptr) return out;
  std::size_t size = 0;
  std::memcpy(&size, from, sizeof size);
  if (size < sizeof size || size > 4096)
    throw_error(errno_code(EINVAL), std::string(name) + ".size is " + std::to_string(size) +
                                        "; begin with the macro that sets it");
  const auto* const bytes = reinterpret_cast<const unsigned char*>(from);
  for (std::size_t i = sizeof out; i < size; ++i)
    if (bytes[i] != 0)
      throw_error(errno_code(E2BIG), std::string(name) + " sets what this version does not know");
  std::memcpy(&out, from, std::min(size, sizeof out));
  return out;
}

}  // namespace cowire::c

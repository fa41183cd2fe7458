// SPDX-License-Identifier: Apache-2.0
#include <cowire/xdp/send_mode.hpp>

namespace cowire {

std::string_view name(send_mode mode) noexcept {
  switch (mode) {
    case send_mode::zero_copy:
      return "zero-copy";
    case send_mode::copy:
      return "copy";
    case send_mode::generic:
      return "generic";
    case send_mode::kernel:
      return "kernel";
  }
  return "?";
}

std::optional<send_mode> parse_send_mode(std::string_view text) noexcept {
  for (const send_mode mode :
       {send_mode::zero_copy, send_mode::copy, send_mode::generic, send_mode::kernel})
    if (text == name(mode)) return mode;
  return std::nullopt;
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// The ways that frames of an interface may leave, and what a transmit queue may be told of them.
///
/// The ladder, best rung first:
/// | rung      | what happens to a frame                      | needs                            |
/// |-----------|----------------------------------------------|----------------------------------|
/// | zero_copy | the NIC reads it from the umem               | driver support, XDP_PASS program |
/// | copy      | copied into an skb, straight to the driver   | a driver with native XDP         |
/// | generic   | the same, on a driver without XDP of its own | an Ethernet device               |
/// | kernel    | no socket: the kernel path sends it          | nothing                          |
///
/// On the sending side copy and generic differ in name only: the name tells the operator whether
/// zero-copy can ever come. Neither attaches a program, for attaching resets some NICs.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace cowire {

/// A rung of the ladder.
enum class send_mode : std::uint8_t { zero_copy, copy, generic, kernel };
/// "zero-copy", "copy", "generic", "kernel".
[[nodiscard]] std::string_view name(send_mode mode) noexcept;
/// The inverse of name().
[[nodiscard]] std::optional<send_mode> parse_send_mode(std::string_view text) noexcept;

/// Frames that one busy poll of a zero-copy queue handles at most.
inline constexpr std::uint32_t busy_poll_budget_default = 64;

}  // namespace cowire

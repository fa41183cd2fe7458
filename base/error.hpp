// SPDX-License-Identifier: Apache-2.0
/// Our own error conditions. What the kernel answered stays an errno in std::system_category().
///
/// Synchronous set-up functions come as twins: f() throws std::system_error naming operation and
/// object, f(ec) does not throw. Asynchronous signatures begin with std::error_code.
#pragma once

#include <string>
#include <system_error>

namespace cowire {

/// Compares with a std::error_code: `ec == cowire::error::closed`.
enum class error {
  would_block = 1,   ///< No free frame now; await async_acquire, or shed load.
  closed,            ///< The object was closed, or its transmitter stopped.
  too_long,          ///< The payload does not fit a frame (frame_pool::payload_capacity()).
  no_destination,    ///< A send without any destination.
  family_mismatch,   ///< IPv4 and IPv6 mixed where one family is required.
  malformed,         ///< Bytes from outside break their format.
  truncated,         ///< Bytes from outside end too early.
  overrun,           ///< The kernel dropped notifications; a re-sync follows.
  interrupted_dump,  ///< A dump stayed inconsistent after its bounded retries.
  unsupported,       ///< The kernel, driver or device lacks what was asked for.
  port_in_use,       ///< Somebody else holds the UDP port; pass their socket as adopt_socket.
  invalid_argument,  ///< A value is out of its documented range.
  forked,            ///< The object was made before a fork(), and this is the child.
  no_producer,       ///< All producers are lent (transmitter_config::max_producers).
};

/// "cowire", whose messages are for people. Valid for ever; any thread.
[[nodiscard]] const std::error_category& error_category() noexcept;
/// What std::error_code makes itself of an `error` by.
[[nodiscard]] inline std::error_code make_error_code(error e) noexcept {
  return {static_cast<int>(e), error_category()};
}

/// errno (or a positive errno number) as an error_code.
[[nodiscard]] inline std::error_code errno_code(int number) noexcept {
  return {number, std::system_category()};
}

/// "ENETUNREACH" for 101 and so on; "errno N" for numbers without a name. Static storage for named
/// ones.
[[nodiscard]] std::string errno_name(int number);

/// Throws std::system_error with `what` naming the operation and its object.
[[noreturn]] void throw_error(std::error_code ec, const std::string& what);

}  // namespace cowire

template <>
struct std::is_error_code_enum<cowire::error> : std::true_type {};

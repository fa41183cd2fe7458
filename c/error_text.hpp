// SPDX-License-Identifier: Apache-2.0
/// How the C interface says what failed: a negative errno, and a text of the calling thread's.
#pragma once

#include <string>
#include <system_error>

namespace cowire::c {

/// The errno of a condition, negative, the text remembered. `what` may be empty.
int failed(std::error_code ec, const std::string& what = {}) noexcept;
int failed(int number, const std::string& what) noexcept;
/// The text of the last of them.
[[nodiscard]] const char* text() noexcept;

/// The current exception as failed(). In a catch block.
int failed_with_exception() noexcept;

/// Runs what may throw; its result, or the exception as failed().
template <class Call>
auto guarded(Call&& call) noexcept -> decltype(call()) {
  try {
    return call();
  } catch (...) {
    return failed_with_exception();
  }
}

}  // namespace cowire::c

// SPDX-License-Identifier: Apache-2.0
/// Assertions that do not depend on NDEBUG.
///
/// - COWIRE_ASSERT: always compiled in; for cold paths and for invariants whose breach would
/// corrupt traffic.
/// - COWIRE_DEBUG_ASSERT: for hot paths; compiled in where COWIRE_DEBUG_CHECKS is defined (debug,
/// sanitizer and
///   fuzz builds), otherwise its expression is not evaluated.
///
/// Not for bad input: that is an error with a message (error.hpp).
#pragma once

namespace cowire::detail {
/// Writes one line to standard error and aborts.
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line) noexcept;
}  // namespace cowire::detail

#define COWIRE_ASSERT(expression) \
  (static_cast<bool>(expression)  \
       ? static_cast<void>(0)     \
       : ::cowire::detail::assertion_failed(#expression, __FILE__, __LINE__))

#if defined(COWIRE_DEBUG_CHECKS)
#define COWIRE_DEBUG_ASSERT(expression) COWIRE_ASSERT(expression)
#else
#define COWIRE_DEBUG_ASSERT(expression) static_cast<void>(sizeof(static_cast<bool>(expression)))
#endif

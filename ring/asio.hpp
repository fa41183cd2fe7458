// SPDX-License-Identifier: Apache-2.0
/// The one place that includes Asio and hides how its versions differ.
///
/// Asio 1.22 (Debian 12) keeps as_tuple and deferred in asio::experimental; from 1.23 on they are
/// in asio. Code of this project says cowire::as_tuple and so on, and works with both. `deferred`
/// cannot be co_awaited before 1.23: use use_awaitable there.
///
/// Asio's configuration macros change the layout of its classes; they are set by the build, on the
/// cowire_asio target, never here.
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/associated_allocator.hpp>
#include <asio/associated_cancellation_slot.hpp>
#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/awaitable.hpp>
#include <asio/bind_cancellation_slot.hpp>
#include <asio/bind_executor.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/defer.hpp>
#include <asio/detached.hpp>
#include <asio/dispatch.hpp>
#include <asio/error.hpp>
#include <asio/execution.hpp>
#include <asio/execution_context.hpp>
#include <asio/experimental/awaitable_operators.hpp>
#include <asio/post.hpp>
#include <asio/prefer.hpp>
#include <asio/require.hpp>
#include <asio/strand.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/use_future.hpp>
#include <asio/version.hpp>
#if ASIO_VERSION >= 102300
#include <asio/as_tuple.hpp>
#include <asio/deferred.hpp>
#else
#include <asio/experimental/as_tuple.hpp>
#include <asio/experimental/deferred.hpp>
#endif

#include <exception>
#include <system_error>

namespace cowire {

#if ASIO_VERSION >= 102300
using asio::as_tuple;
using asio::deferred;
#else
using asio::experimental::as_tuple;
using asio::experimental::deferred;
#endif
using asio::awaitable;
using asio::co_spawn;
using asio::detached;
using asio::use_awaitable;
using asio::use_future;

/// Handler for a co_spawn() whose exception is its context's: it leaves run().
inline void rethrow(const std::exception_ptr& error) {
  if (error) std::rethrow_exception(error);
}

/// `using namespace cowire::awaitable_operators;` brings `a() || b()` and `a() && b()`.
namespace awaitable_operators = asio::experimental::awaitable_operators;

/// What a cancelled operation completes with. Asio's own system category is another than
/// std::system_category(): this equals asio::error::operation_aborted, not errno_code(ECANCELED).
[[nodiscard]] inline std::error_code operation_aborted() noexcept {
  return asio::error::operation_aborted;
}

}  // namespace cowire

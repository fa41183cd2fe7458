// SPDX-License-Identifier: Apache-2.0
/// A completion token for coroutines that waits for frames only:
///
///     co_await s.async_send(bytes, destination, cowire::await_frames);
///
/// As asio::use_awaitable, but where async_acquire() and async_send() of bytes to one destination
/// need not wait, the coroutine goes on at once, without a way through its executor, which costs
/// several times as much as the datagram (docs/performance.md). Other operations, and those that
/// must wait or fail, are as with use_awaitable, to the same results and exceptions.
///
/// A coroutine that finds a frame each time keeps its executor's thread for itself. Where others
/// are to run in between, let it `co_await asio::post(asio::use_awaitable)` now and then, or name
/// use_awaitable itself, which gives way with every datagram.
///
/// A plain value; any thread.
#pragma once

#include <cowire/ring/asio.hpp>

#include <concepts>
#include <system_error>
#include <type_traits>
#include <utility>

namespace cowire {

/// The type of `await_frames`, for coroutines of one kind of executor.
template <class Executor = asio::any_io_executor>
struct await_frames_t {
  /// What it awaits by where it must wait.
  using waiting_token = asio::use_awaitable_t<Executor>;

  /// An executor that names it as the default token (as_default_on()).
  template <class Inner>
  struct executor_with_default : Inner {
    using default_completion_token_type = await_frames_t;  ///< As Asio asks for it.
    /// Of an executor without it.
    template <class From>
    requires(!std::same_as<std::remove_cvref_t<From>, executor_with_default> &&
             std::convertible_to<const From&, Inner>) executor_with_default(const From& from)
    noexcept : Inner(from) {}
  };
  /// As of Asio's tokens: `auto s = cowire::await_frames.as_default_on(tx.make_sender());`
  template <class T>
  using as_default_on_t = typename std::decay_t<T>::template rebind_executor<
      executor_with_default<typename std::decay_t<T>::executor_type>>::other;
  /// The object with that.
  template <class T>
  [[nodiscard]] static as_default_on_t<T> as_default_on(T&& object) {
    return as_default_on_t<T>(std::forward<T>(object));
  }
};

/// For coroutines of any executor, asio::awaitable<T>.
inline constexpr await_frames_t<> await_frames{};

}  // namespace cowire

/// @cond
/// Of operations with one result or none. What an initiation function can do without waiting is its
/// at_once().
template <class Executor, class... Results>
class asio::async_result<cowire::await_frames_t<Executor>, void(std::error_code, Results...)> {
  using signature = void(std::error_code, Results...);
  using token = typename cowire::await_frames_t<Executor>::waiting_token;

 public:
  using return_type = typename async_result<token, signature>::return_type;

  template <class Initiation, class... Arguments>
  static return_type initiate(Initiation initiation, cowire::await_frames_t<Executor>,
                              Arguments... arguments) {
    if constexpr (requires { initiation.at_once(arguments...); })
      if (auto now = initiation.at_once(arguments...)) co_return std::move(*now);
    token waiting;
    co_return co_await asio::async_initiate<token, signature>(std::move(initiation), waiting,
                                                              std::move(arguments)...);
  }
};
/// @endcond

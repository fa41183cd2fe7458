// SPDX-License-Identifier: Apache-2.0
/// A sender whose operations have a default completion token, Asio's way:
///
///     auto s = asio::use_awaitable.as_default_on(tx.make_sender());
///     co_await s.async_send(bytes, destination);
///
/// Everything else is sender.hpp's.
#pragma once

#include <cowire/async/datagram_bytes.hpp>
#include <cowire/async/datagram_options.hpp>
#include <cowire/async/message.hpp>
#include <cowire/async/payload.hpp>
#include <cowire/async/sender.hpp>
#include <cowire/base/address.hpp>
#include <cowire/ring/asio.hpp>

#include <concepts>
#include <span>
#include <type_traits>
#include <utility>

namespace cowire {

/// Options in the place of a token are none: another overload has them, and the default token.
template <class Token>
concept token_not_options = !std::same_as<std::remove_cvref_t<Token>, datagram_options>;

/// `Executor` is a ring_context::executor_type that names the token: as_default_on() makes one.
template <class Executor>
class basic_sender : public sender {
 public:
  using executor_type = Executor;
  using default_token = asio::default_completion_token_t<Executor>;
  template <class Other>
  struct rebind_executor {
    using other = basic_sender<Other>;
  };

  basic_sender() noexcept = default;
  /// Takes the sender over.
  explicit basic_sender(sender&& from) noexcept : sender(std::move(from)) {}

  [[nodiscard]] executor_type get_executor() const noexcept {
    return executor_type(sender::get_executor());
  }

  /// As sender::async_acquire().
  template <class Token = default_token>
  auto async_acquire(Token&& token = default_token()) {
    return sender::async_acquire(std::forward<Token>(token));
  }
  /// As sender::async_send().
  template <token_not_options Token = default_token>
  auto async_send(payload what, std::span<const endpoint> destinations,
                  Token&& token = default_token()) {
    return sender::async_send(std::move(what), destinations, std::forward<Token>(token));
  }
  template <token_not_options Token = default_token>
  auto async_send(payload what, const endpoint& destination, Token&& token = default_token()) {
    return sender::async_send(std::move(what), destination, std::forward<Token>(token));
  }
  template <token_not_options Token = default_token>
  auto async_send(datagram_bytes bytes, std::span<const endpoint> destinations,
                  Token&& token = default_token()) {
    return sender::async_send(bytes, destinations, std::forward<Token>(token));
  }
  template <token_not_options Token = default_token>
  auto async_send(datagram_bytes bytes, const endpoint& destination,
                  Token&& token = default_token()) {
    return sender::async_send(bytes, destination, std::forward<Token>(token));
  }
  template <class Token = default_token>
  auto async_send(payload what, std::span<const endpoint> destinations,
                  const datagram_options& options, Token&& token = default_token()) {
    return sender::async_send(std::move(what), destinations, options, std::forward<Token>(token));
  }
  template <class Token = default_token>
  auto async_send(payload what, const endpoint& destination, const datagram_options& options,
                  Token&& token = default_token()) {
    return sender::async_send(std::move(what), destination, options, std::forward<Token>(token));
  }
  template <class Token = default_token>
  auto async_send(datagram_bytes bytes, std::span<const endpoint> destinations,
                  const datagram_options& options, Token&& token = default_token()) {
    return sender::async_send(bytes, destinations, options, std::forward<Token>(token));
  }
  template <class Token = default_token>
  auto async_send(datagram_bytes bytes, const endpoint& destination,
                  const datagram_options& options, Token&& token = default_token()) {
    return sender::async_send(bytes, destination, options, std::forward<Token>(token));
  }
  /// As sender::async_send_segments().
  template <class Token = default_token>
  auto async_send_segments(datagram_bytes bytes, std::size_t segment_size,
                           const endpoint& destination, const datagram_options& options,
                           Token&& token = default_token()) {
    return sender::async_send_segments(bytes, segment_size, destination, options,
                                       std::forward<Token>(token));
  }
  /// As sender::async_send_batch().
  template <class Token = default_token>
  auto async_send_batch(std::span<const message> messages, Token&& token = default_token()) {
    return sender::async_send_batch(messages, std::forward<Token>(token));
  }
  template <token_not_options Token = default_token>
  auto async_send_segments(datagram_bytes bytes, std::size_t segment_size,
                           const endpoint& destination, Token&& token = default_token()) {
    return sender::async_send_segments(bytes, segment_size, destination,
                                       std::forward<Token>(token));
  }
  /// As sender::async_flush().
  template <class Token = default_token>
  auto async_flush(Token&& token = default_token()) {
    return sender::async_flush(std::forward<Token>(token));
  }
  /// As sender::async_resolve().
  template <token_not_options Token = default_token>
  auto async_resolve(const endpoint& destination, Token&& token = default_token()) {
    return sender::async_resolve(destination, std::forward<Token>(token));
  }
  template <class Token = default_token>
  auto async_resolve(const endpoint& destination, const datagram_options& options,
                     Token&& token = default_token()) {
    return sender::async_resolve(destination, options, std::forward<Token>(token));
  }
  /// As sender::async_next_error().
  template <class Token = default_token>
  auto async_next_error(Token&& token = default_token()) {
    return sender::async_next_error(std::forward<Token>(token));
  }
};

}  // namespace cowire

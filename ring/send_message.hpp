// SPDX-License-Identifier: Apache-2.0
/// async_send_message: one sendmsg on a ring_context, waiting while the socket is full.
///
/// For occasional datagrams. What sends many should embed a detail::request of its own and spare
/// the allocation; and the fast path is cowire::sender, not this.
#pragma once

#include <cowire/ring/detail/completion.hpp>
#include <cowire/ring/ring_context.hpp>

#include <cstddef>
#include <memory>
#include <span>
#include <system_error>
#include <utility>

namespace cowire {

/// What to send. `payload` and `control` stay valid until the handler is called; the address is
/// copied (at most sizeof(sockaddr_storage) bytes, longer is an assertion).
struct message_view {
  std::span<const std::byte> payload{};  ///< What the datagram holds.
  std::span<const std::byte> address{};  ///< A sockaddr; empty on a connected socket.
  std::span<const std::byte> control{};  ///< Complete cmsghdr after cmsghdr, aligned for them.
  int flags = 0;                         ///< MSG_*; MSG_NOSIGNAL is added.
};

namespace detail {

[[nodiscard]] std::shared_ptr<ring_object> make_send(event_loop& l, int socket,
                                                     const message_view& m);
/// `object` is of make_send().
void start_send(ring_object& object, completion_ptr<std::error_code, std::size_t> c);

}  // namespace detail

/// Sends one datagram on `socket`, which stays open until the handler is called. Signature:
/// void(std::error_code, std::size_t bytes). Any thread.
///
/// Errors: errno of sendmsg; operation_aborted.
/// Per-operation cancellation: terminal, partial, total. With operation_aborted nothing was sent; a
/// cancellation that comes too late changes nothing.
template <class Token>
auto async_send_message(ring_context& ring, int socket, const message_view& message,
                        Token&& token) {
  auto object = detail::make_send(loop_of(ring), socket, message);
  auto* target = object.get();
  return detail::initiate<std::error_code, std::size_t>(
      std::forward<Token>(token), ring, std::move(object),
      [target](detail::completion_ptr<std::error_code, std::size_t> c) {
        detail::start_send(*target, std::move(c));
      });
}

}  // namespace cowire

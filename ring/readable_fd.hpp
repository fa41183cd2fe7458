// SPDX-License-Identifier: Apache-2.0
/// Waits until a file descriptor is readable: an eventfd (base/doorbell.hpp), a signalfd, a socket
/// that somebody else reads.
///
/// One poll stays armed inside from the first wait on; a wait costs no request of its own. The
/// object works on its own duplicate of the descriptor, so that the caller may close theirs at any
/// time.
///
/// Threads: as an Asio object, one thread at a time, not necessarily the ring thread.
/// Not for datagrams one wants to have: datagram_source receives them without a system call each.
#pragma once

#include <cowire/ring/detail/completion.hpp>
#include <cowire/ring/ring_context.hpp>

#include <memory>
#include <system_error>
#include <utility>

namespace cowire {

class readable_fd {
 public:
  using executor_type = ring_context::executor_type;

  /// `fd` is something that can be polled; it is duplicated. Throws std::system_error if it cannot
  /// be.
  readable_fd(ring_context& ring, int fd);
  readable_fd(readable_fd&&) noexcept = default;
  readable_fd& operator=(readable_fd&& other) noexcept;
  /// Cancels.
  ~readable_fd();

  [[nodiscard]] executor_type get_executor() const noexcept { return ring_->get_executor(); }

  /// Every wait begun before completes with operation_aborted. Returns at once.
  void cancel();

  /// Completes as soon as the descriptor is readable; at once (but never inside this call) if it is
  /// readable already. Nothing is read. Signature: void(std::error_code).
  ///
  /// Errors: operation_aborted after cancel() or the object's destruction; errno of poll.
  /// Per-operation cancellation: terminal, partial, total; all end the wait with operation_aborted.
  template <class Token>
  auto async_wait(Token&& token) {
    return detail::initiate<std::error_code>(
        std::forward<Token>(token), *ring_, object(),
        [s = state_.get()](detail::completion_ptr<std::error_code> c) { start(*s, std::move(c)); });
  }

 private:
  struct state;
  [[nodiscard]] std::shared_ptr<detail::ring_object> object() const noexcept;
  static void start(state& s, detail::completion_ptr<std::error_code> c);
  void close() noexcept;

  ring_context* ring_;
  std::shared_ptr<state> state_;
};

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// A netlink socket that questions are sent on and whose answers come as they are read.
///
/// What is lost, either way, is not noticed here: whoever asks gives up in time and asks again.
/// Ring thread. Network namespace: the creating thread's.
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/ring/asio.hpp>
#include <cowire/ring/datagram_source.hpp>
#include <cowire/ring/ring_context.hpp>

#include <cstddef>
#include <functional>
#include <span>

namespace cowire::detail {

/// A non-blocking request socket with room for many answers. Throws std::system_error.
[[nodiscard]] unique_fd open_questions();

/// How a datagram_source reads netlink, `count` datagrams at a time.
[[nodiscard]] datagram_source::options netlink_buffers(std::size_t count);

/// Whether the kernel sent it, and not another process.
[[nodiscard]] bool from_kernel(const datagram& d) noexcept;

class question_socket {
 public:
  /// Throws std::system_error.
  explicit question_socket(ring_context& ring);

  /// False where it cannot be sent now.
  bool send(std::span<const std::byte> question) noexcept;
  /// Waits for answers; hands over whole datagrams of the kernel's, one by one. An overrun hands
  /// over none.
  [[nodiscard]] awaitable<void> receive(
      std::function<void(std::span<const std::byte> answer)> take);
  /// A waiting receive() ends.
  void cancel() { answers_.cancel(); }

 private:
  const unique_fd fd_;
  datagram_source answers_;
};

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// Reads the answers to dump requests, on a thread of its own.
///
/// The kernel makes each part of a dump inside the call that reads the one before. Reading takes
/// therefore as long as making sense of what was read, and goes on meanwhile; a few parts ahead, no
/// more. The thread starts with the CPU affinity of the one that makes it and sleeps while nothing
/// is asked for.
///
/// Made, used and destroyed on the ring thread, or while the ring does not run. The socket outlives
/// it; nobody else reads it.
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/follow/detail/stop_event.hpp>
#include <cowire/ring/event_queue.hpp>

#include <atomic>
#include <cstddef>
#include <memory>
#include <semaphore>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace cowire::detail {

class dump_reader {
 public:
  /// A datagram from the kernel; empty = one was lost.
  using part = std::vector<std::byte>;
  using next_signature = void(std::error_code, part);

  /// `socket` is a non-blocking netlink socket. Throws std::system_error.
  dump_reader(ring_context& ring, int socket);
  /// Waits until the thread has ended.
  ~dump_reader();
  dump_reader(const dump_reader&) = delete;
  dump_reader& operator=(const dump_reader&) = delete;

  /// The next part, oldest first; one call at a time. Errors: error::closed after stop().
  template <class Token>
  auto async_next(Token&& token) {
    return asio::async_initiate<Token, next_signature>(
        [this](auto handler) { event_queue<part>::start_next(parts_, std::move(handler)); }, token);
  }
  /// The part that was taken is done with: another one may be read.
  void release() noexcept { room_.release(); }
  /// Nothing is read any more; who waits hears of it.
  void stop() noexcept;

 private:
  void run();
  [[nodiscard]] part receive();
  void wait() noexcept;

  const int socket_;
  stop_event stop_event_;
  std::atomic<bool> stopping_{false};
  std::counting_semaphore<> room_;
  const std::shared_ptr<event_queue<part>> parts_;
  std::thread thread_;
};

}  // namespace cowire::detail

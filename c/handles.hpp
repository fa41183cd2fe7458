// SPDX-License-Identifier: Apache-2.0
/// What the handles of cowire.h are.
///
///     cowire_sender ---> sender_core: shared_sender, signals
///                             ^ weak        ^ shared
///     handlers on the control thread: of errors, of room
///
/// What the control thread completes goes into the signals, and makes their descriptor readable;
/// nothing of the application's is called. The handlers do not keep the sender, so that it ends
/// with its handle.
#pragma once

#include <cowire/c/cowire.h>
#include <cowire/async/shared_sender.hpp>
#include <cowire/async/transmitter.hpp>
#include <cowire/base/forked.hpp>
#include <cowire/base/unique_fd.hpp>
#include <cowire/cli/config.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>

namespace cowire::c {

/// What a sender's descriptor stands for. Any thread.
class signals {
 public:
  /// Throws std::system_error.
  explicit signals(std::size_t errors_max);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  void there_is_room() noexcept;
  /// False when full: then nobody is to read on until pop() has made room.
  [[nodiscard]] bool push(const send_error& error);
  /// The oldest; false, and the descriptor unreadable, where there is none.
  [[nodiscard]] bool pop(send_error& error);

 private:
  void set() noexcept;

  const unique_fd fd_;
  const std::size_t errors_max_;
  std::mutex mutex_;
  std::deque<send_error> errors_;
};

class sender_core : public std::enable_shared_from_this<sender_core> {
 public:
  sender_core(shared_sender through, std::size_t errors_max);
  /// Once it is in a shared_ptr.
  void begin() { read_errors(); }

  [[nodiscard]] const shared_sender& through() const noexcept { return through_; }
  [[nodiscard]] int fd() const noexcept { return signals_->fd(); }
  /// Whether this is a child of fork(), where no lock may be taken: a thread of the parent's may
  /// have held it.
  [[nodiscard]] bool inherited() const noexcept { return born_.inherited(); }
  /// The parent's only.
  [[nodiscard]] bool next_error(send_error& error);
  /// Somebody was told that there is no room at a shared_sender::place(): makes the descriptor
  /// readable when there is.
  void tell_of_room(std::size_t place) noexcept;

 private:
  void read_errors();

  const detail::fork_mark born_;
  const shared_sender through_;
  const std::shared_ptr<signals> signals_;
  std::atomic<bool> reading_{false};
  /// By shared_sender::place(): whether somebody waits there already.
  struct places {
    std::array<std::atomic<bool>, transmitter_limits::shared_producers_max> asked{};
  };
  const std::shared_ptr<places> places_ = std::make_shared<places>();
};

}  // namespace cowire::c

struct cowire_transmitter {
  cowire::transmitter sends;
  cowire::cli::file_options more{};  ///< Of the file that it was opened with.
};

struct cowire_sender {
  std::shared_ptr<cowire::c::sender_core> core;
};

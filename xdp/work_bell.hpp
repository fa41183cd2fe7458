// SPDX-License-Identifier: Apache-2.0
/// How producers make requests known to a TX core, which may be asleep.
///
/// While the core is awake, ringing is a fence and two loads. While it sleeps, or has offered its
/// CPU to others, whoever rings does its next batch in its place: waking a thread takes several
/// times as long as sending a datagram, on a busy machine a thousand times, and a lone datagram
/// must not wait for it. What is too much for that (a stream, say) wakes the core.
///
/// One thread at a time is the core: its own, except in wait() and yield(). Then the place is
/// vacant, and a ringer takes it by an exchange for one batch. A ringer that finds the place taken
/// rings the doorbell below instead, whose rules (base/doorbell.hpp) see to it that no request is
/// slept over.
#pragma once

#include <cowire/base/doorbell.hpp>
#include <cowire/base/forked.hpp>

#include <poll.h>

#include <atomic>
#include <ctime>

namespace cowire {

class work_bell {
 public:
  /// Does what there is to do, on the thread of a ringer. False: the core is to wake up.
  using stand_in_call = bool (*)(void* context) noexcept;

  /// Throws std::system_error when no doorbell can be made. `context` must outlive the bell.
  work_bell(stand_in_call act, void* context) : act_(act), context_(context) {}

  /// Any thread, after its requests are visible to the core. Never blocks; it may be as long as a
  /// batch of the core.
  void ring() noexcept {
    if (vacant_.load(std::memory_order_relaxed)) [[unlikely]]
      return stand_in();
    bell_.ring();
  }

  /// The core: as doorbell::arm().
  void arm() noexcept { bell_.arm(); }
  /// The core, between arm() and disarm(): sleeps until it is needed, then true, or for `limit`.
  bool wait(const timespec& limit) noexcept;
  /// The core, at any time: offers its CPU to others.
  void yield() noexcept;
  /// The core: as doorbell::disarm().
  void disarm() noexcept { bell_.disarm(); }

 private:
  void stand_in() noexcept;
  void leave() noexcept;
  void come_back() noexcept;

  const detail::fork_mark born_;
  doorbell bell_;
  const stand_in_call act_;
  void* const context_;
  /// Who exchanges it from true to false is the core until it stores true again. Acquire and
  /// release: all that one core did happened before the next one begins.
  alignas(64) std::atomic<bool> vacant_{false};
  std::atomic<bool> core_returns_{false};  ///< The core wants its place: no ringer takes it first.
};

}  // namespace cowire

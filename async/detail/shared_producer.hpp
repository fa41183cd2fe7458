// SPDX-License-Identifier: Apache-2.0
/// What is behind shared_sender: a few producers, each under a lock, for all threads.
///
///     any thread --number--> shared_producer (lock, waiters) --> producer --> TX cores
///
/// A thread uses the same one always, by its number, so that what it sends stays in order. The lock
/// is held for a datagram or a batch of them, copies included; handlers are completed, and what an
/// operation held is destroyed, outside of it, because both may come back here.
///
/// Waiters are served by whoever makes it possible: the kernel path's thread when frames come back,
/// a thread that drops a payload. in_turn() of the producer is false meanwhile, so the first in
/// line gets the next frame. Nobody sleeps over frames: who begins to wait enters the list, and
/// then serves it (so sees frames that were taken home before), and then asks for frames with a
/// fence as a lone producer does.
///
/// Order of locks: this one, then the producer's (wake, held back) or the kernel's of others. Never
/// the other way.
#pragma once

#include <cowire/async/detail/producer.hpp>
#include <cowire/async/payload.hpp>
#include <cowire/base/forked.hpp>
#include <cowire/base/short_lock.hpp>
#include <cowire/ring/direct_completion.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <system_error>
#include <vector>

namespace cowire::detail {

class engine;
class shared_producers;

/// One of them. Any thread.
class shared_producer final : public cancellable {
 public:
  explicit shared_producer(producer& via) noexcept : via_(via) {}
  shared_producer(const shared_producer&) = delete;
  shared_producer& operator=(const shared_producer&) = delete;

  [[nodiscard]] payload try_acquire(const sender_state& from) noexcept;
  /// The same; `ec` says why there is none.
  [[nodiscard]] payload try_acquire(const sender_state& from, std::error_code& ec) noexcept;
  [[nodiscard]] std::error_code try_send(const sender_state& from, std::span<const std::byte> bytes,
                                         const endpoint& to) noexcept;
  [[nodiscard]] std::error_code send(const sender_state& from, payload&& what,
                                     const endpoint& to) noexcept;
  [[nodiscard]] std::error_code try_send(const sender_state& from, std::span<const std::byte> bytes,
                                         const endpoint& to,
                                         const datagram_options& options) noexcept;
  [[nodiscard]] std::error_code send(const sender_state& from, payload&& what, const endpoint& to,
                                     const datagram_options& options) noexcept;
  [[nodiscard]] std::error_code ask_about(const sender_state& from, const endpoint& to,
                                          const datagram_options& options, path_question& out);
  /// Submits what there are frames for; `op` says how much that was. would_block if not all.
  [[nodiscard]] std::error_code try_send(producer::send_operation& op) noexcept;
  /// `keep` is what the operation needs until it is over: its sender.
  void begin_acquire(const sender_state& from, std::shared_ptr<void> keep,
                     direct_completion<std::error_code, payload> done);
  void begin_send(producer::send_operation op, std::shared_ptr<void> keep);
  /// Gives a leased frame back.
  void release(frame_index frame) noexcept;

  /// Serves who waits, as far as there are frames or all is over.
  void serve() noexcept;
  /// Takes home what came back, unless somebody else is at it.
  void settle() noexcept;
  void retire(const sender_state& sender);

  [[nodiscard]] producer& via() const noexcept { return via_; }

 private:
  friend class shared_producers;
  struct waiter {
    std::uint64_t ticket = 0;
    direct_completion<std::error_code, payload> acquire{};  ///< Either this ...
    producer::send_operation send{};  ///< ... or this one's `done`, then `from` is set.
    std::shared_ptr<void> keep{};
    payload got{};
    std::error_code result{};

    [[nodiscard]] bool acquires() const noexcept { return !send.from; }
    [[nodiscard]] bool armed() const noexcept {
      return acquires() ? acquire.armed() : send.done.armed();
    }
  };
  using waiters = std::list<waiter>;

  void cancel(std::uint64_t ticket) override;
  void context_gone(std::uint64_t ticket) override;
  void wait(waiter next);
  /// Under the lock: moves who is done to `out`.
  void serve_frames(waiters& out) noexcept;
  [[nodiscard]] bool take_out(std::uint64_t ticket, waiters& out) noexcept;
  static void complete(waiters& done);

  const fork_mark born_;
  /// What keeps this object, for those who come later.
  std::weak_ptr<shared_producers> all_;
  producer& via_;
  std::atomic<std::uint64_t> ticket_{0};
  alignas(64) short_lock lock_;  ///< Of `via_` and all below.
  waiters waiters_;
};

/// All of a transmitter, as long as any shared_sender or payload of one needs them.
class shared_producers : public std::enable_shared_from_this<shared_producers> {
 public:
  /// Borrows `some` of the engine's. To be begun once it is in a shared_ptr.
  shared_producers(std::shared_ptr<engine> owner, std::span<producer* const> some);
  shared_producers(const shared_producers&) = delete;
  shared_producers& operator=(const shared_producers&) = delete;
  ~shared_producers();
  void begin();

  [[nodiscard]] std::size_t size() const noexcept { return all_.size(); }
  [[nodiscard]] shared_producer& operator[](std::size_t index) const noexcept {
    return *all_[index];
  }
  /// The number of the calling thread's.
  [[nodiscard]] std::size_t mine() const noexcept;
  /// Takes home what came back to those that nobody uses just now.
  void settle() noexcept {
    for (const auto& one : all_) one->settle();
  }
  [[nodiscard]] engine& owner() const noexcept { return *owner_; }

 private:
  std::shared_ptr<engine> owner_;
  std::vector<std::unique_ptr<shared_producer>> all_;
};

/// What all copies of a shared_sender share.
struct shared_sender_state {
  std::shared_ptr<shared_producers> producers;
  /// One for each of them, with the same options, socket and error queue.
  std::vector<std::shared_ptr<sender_state>> states;

  shared_sender_state(std::shared_ptr<shared_producers> through,
                      std::vector<std::shared_ptr<sender_state>> made) noexcept
      : producers(std::move(through)), states(std::move(made)) {}
  shared_sender_state(const shared_sender_state&) = delete;
  shared_sender_state& operator=(const shared_sender_state&) = delete;
  ~shared_sender_state();
};

}  // namespace cowire::detail

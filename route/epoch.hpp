// SPDX-License-Identifier: Apache-2.0
/// Epoch-based reclamation: when may the writer free what it has replaced, if readers never lock?
///
/// A reader announces, once per batch, the epoch it has seen; from then on it uses only what it
/// loads after the announcement. The writer publishes a replacement, retires the old object, and
/// frees it once every reader that is online has announced an epoch that began after the
/// replacement (quiescent-state based reclamation). An offline reader holds back nothing.
///
/// | call                           | writer thread | a reader's own | may run concurrently with  |
/// |--------------------------------|---------------|----------------|----------------------------|
/// | retire, reclaim, synchronize,  | yes           |                | any call of any reader     |
/// | statistics                     |               |                |                            |
/// | register_reader                | yes           | yes (any)      | everything                 |
/// | reader::enter, leave           |               | yes            | everything but itself      |
/// | ~reader                        |               | yes            | everything but itself      |
/// | ~epoch_domain                  | yes           |                | nothing; no reader is left |
///
/// "Thread" means serialised use. Readers never wait, retry, lock or allocate; the writer never
/// blocks them, and waits for them only inside synchronize().
///
/// Order of work. Reader: enter(), load the published pointer (acquire), use it until the next
/// enter() or leave(). Writer: store the new pointer (release), and only then retire() the old one.
///
/// Memory order. Let an object be retired under epoch t: it was unlinked, then `epoch_` became t.
/// The writer frees it when each slot reads offline or at least t.
/// - `epoch_` advances with release and is loaded with acquire in enter(). Who has read t or more
///   therefore also sees the unlinking, and cannot load the old pointer any more.
/// - A slot is stored with release and scanned with acquire. What a reader did under its previous
///   announcement, or before leave(), happens before the free.
/// - An online reader that finds `epoch_` unchanged writes nothing: its slot still reads less than
///   t for all that is retired later, which is safe. One that moves on from a < t to t needs no
///   fence: until the store is visible the writer waits, and after it the two points above hold. So
///   the usual price of enter() is one load and one comparison.
/// - Only from offline to online a fence is needed: the slot's store must be visible before the
///   published pointer is loaded. Either the writer's scan sees the slot, or the reader's load sees
///   the unlinking (Dekker's pattern). The fence in come_online() pairs with the one in
///   begin_epoch().
///
/// Not for readers that sleep while online: one of them holds back all reclamation.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <type_traits>
#include <utility>

namespace cowire {

struct epoch_statistics {
  std::size_t waiting = 0;        ///< Retired objects that are not yet freed.
  std::size_t bytes_waiting = 0;  ///< Their sizes as given to retire().
  std::uint64_t freed = 0;        ///< Objects freed since the domain was made.
  std::uint64_t epochs = 0;       ///< Times the epoch advanced.
};

class epoch_domain {
  struct slot;

 public:
  /// One thread's registration. Offline at first. Movable between batches; destroying it gives the
  /// slot back. Must not outlive its domain.
  class reader {
   public:
    reader() noexcept = default;
    reader(reader&& other) noexcept
        : domain_(std::exchange(other.domain_, nullptr)),
          slot_(std::exchange(other.slot_, nullptr)) {}
    reader& operator=(reader&& other) noexcept;
    reader(const reader&) = delete;
    reader& operator=(const reader&) = delete;
    ~reader() { unregister(); }

    /// Announces the current epoch and comes online if need be. Whatever was loaded before is no
    /// longer protected. Once per batch.
    void enter() noexcept {
      const std::uint64_t epoch = domain_->epoch_.load(std::memory_order_acquire);
      const std::uint64_t announced = slot_->announced.load(std::memory_order_relaxed);
      if (epoch == announced) return;
      slot_->announced.store(epoch, std::memory_order_release);
      if (announced == offline) come_online();
    }

    /// Goes offline: nothing that was loaded is protected any more, nothing is held back.
    void leave() noexcept { slot_->announced.store(offline, std::memory_order_release); }

    /// Whether this handle is registered with a domain.
    [[nodiscard]] explicit operator bool() const noexcept { return slot_ != nullptr; }

   private:
    friend class epoch_domain;
    reader(const epoch_domain* domain, slot* own) noexcept : domain_(domain), slot_(own) {}
    void come_online() noexcept {
      std::atomic_thread_fence(std::memory_order_seq_cst);  // Pairs with the one in begin_epoch().
    }
    void unregister() noexcept;

    const epoch_domain* domain_ = nullptr;
    slot* slot_ = nullptr;
  };

  epoch_domain() = default;
  epoch_domain(const epoch_domain&) = delete;
  epoch_domain& operator=(const epoch_domain&) = delete;
  /// Frees everything that still waits. Every reader must have been destroyed before (asserted).
  ~epoch_domain();

  /// A new reader, offline. Reuses the slot of a destroyed one, else allocates one.
  [[nodiscard]] reader register_reader();

  /// Writer: takes an object that no newly entering reader can reach any more. `destroy` runs on
  /// the writer's thread, inside reclaim(), synchronize() or the destructor, and may call retire().
  /// Throws std::bad_alloc, and then has not taken the object.
  void retire(void* object, void (*destroy)(void*) noexcept, std::size_t bytes);

  /// Writer: the same for an object on the heap; `bytes` is for the statistics.
  template <class T>
  void retire(std::unique_ptr<T> object, std::size_t bytes = sizeof(T)) {
    using plain = std::remove_const_t<T>;
    retire(
        const_cast<plain*>(object.get()),
        [](void* raw) noexcept { delete static_cast<plain*>(raw); }, bytes);
    static_cast<void>(object.release());  // Owned by the domain now.
  }

  /// Writer: begins an epoch for what was retired since the last call, then frees what is past its
  /// grace period. Never blocks; returns how many objects were freed.
  std::size_t reclaim() noexcept;

  /// Writer: as reclaim(), repeated until all that was retired before is freed, or `deadline` has
  /// passed: then false. Spins shortly, then yields.
  [[nodiscard]] bool synchronize(std::chrono::steady_clock::time_point deadline) noexcept;

  [[nodiscard]] epoch_statistics statistics() const noexcept;

 private:
  static constexpr std::uint64_t offline = 0;

  /// A reader's announcement. Slots stay in the list until the domain is destroyed, so that the
  /// writer walks it without a lock.
  struct alignas(128) slot {
    std::atomic<std::uint64_t> announced{offline};
    std::atomic<bool> taken{true};
    slot* next = nullptr;  ///< Written before the slot is linked, constant afterwards.
  };
  struct retired_object {
    void* object;
    void (*destroy)(void*) noexcept;
    std::size_t bytes;
    std::uint64_t epoch;  ///< Free when no online reader has announced less.
  };

  void begin_epoch() noexcept;
  [[nodiscard]] std::uint64_t oldest_announced() const noexcept;
  void free_front() noexcept;

  alignas(128) std::atomic<std::uint64_t> epoch_{1};
  alignas(128) std::atomic<slot*> slots_{nullptr};
  std::deque<retired_object> retired_;  ///< Oldest first.
  std::size_t bytes_waiting_ = 0;
  std::uint64_t freed_ = 0;
};

}  // namespace cowire

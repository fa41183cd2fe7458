// SPDX-License-Identifier: Apache-2.0
/// Receives the datagrams of one socket among many of a ring, for an object that has a queue of its
/// own (async/port.hpp). datagram_source is for those that have not.
///
///     shared_source  (one a socket)  --take()--> datagram_sink
///          |   at most buffer_count leases each
///     shared_pool    (one a ring and layout; ring/detail/shared_pool.hpp)
///
/// A source has `buffer_count` leases at most, and is sure to get these whatever others do. What
/// the kernel delivers beyond that, until it has taken notice, is copied aside and handed over as
/// leases end.
#pragma once

#include <cowire/base/forked.hpp>
#include <cowire/ring/datagram_source.hpp>
#include <cowire/ring/detail/backend.hpp>
#include <cowire/ring/detail/event_loop.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <system_error>
#include <vector>

namespace cowire::detail {

class shared_pool;

/// A datagram, or an error in its place.
struct source_entry {
  datagram received;
  std::error_code ec;
};

/// Who takes what arrives.
class datagram_sink {
 public:
  /// Ring thread, from within the backend: runs no handlers. May move from what it keeps. False:
  /// the source receives nothing more until deliver_to() is called again.
  [[nodiscard]] virtual bool take(source_entry& arrived) noexcept = 0;
  /// The ring is being destroyed, and what would run on it goes uncalled.
  virtual void ring_gone() noexcept = 0;

 protected:
  ~datagram_sink() = default;
};

/// Held by shared_ptr. Ring thread, but for what is marked.
class shared_source final : public ring_object, public request {
 public:
  using options = datagram_source::options;

  /// `socket` is duplicated. `keep` goes after the duplicate, on the ring thread. Throws
  /// std::system_error: error::invalid_argument for a buffer_count out of range, errno otherwise.
  shared_source(ring_context& ring, int socket, const options& wanted, std::shared_ptr<void> keep);

  /// Any thread, one at a time: from now on `sink`, always the same, takes what arrives. Nothing of
  /// it counts as work of the ring.
  void deliver_to(const std::shared_ptr<datagram_sink>& sink);
  /// Any thread: ends it.
  void close() noexcept;
  /// Any thread: times that all leases were in use.
  [[nodiscard]] std::uint64_t starved() const noexcept {
    return times_starved_.load(std::memory_order_relaxed);
  }
  /// Any thread; a system call. See datagram_source.
  [[nodiscard]] std::uint32_t socket_drops() const noexcept;

  /// By the pool, while it keeps others out.
  void lease_ended() noexcept {
    --held_;
    if (starved_) schedule_flush();
  }

 private:
  void on_event(const event& e) noexcept override;
  void on_cancel(std::uint64_t) override {}
  void on_shutdown() noexcept override;
  void begin(std::shared_ptr<datagram_sink> sink);
  void finish();
  void leave() noexcept;
  void receive(std::uint16_t id, int result);
  void hand_over(std::uint16_t id, int result);
  void deliver(source_entry entry) noexcept;
  void conclude(int result) noexcept;
  void starve();
  void flush();
  void schedule_flush() noexcept;
  [[nodiscard]] bool has_room() const noexcept { return held_ < wanted_.buffer_count; }

  std::shared_ptr<datagram_sink> sink_;
  std::shared_ptr<shared_pool> pool_;
  std::shared_ptr<ring_object> self_;  // While the backend holds the request.
  std::size_t held_ = 0;
  bool listening_ = false, closed_ = false;
  bool ending_ = false;   // Counts as work until the last event.
  bool starved_ = false;  // Not armed, or about to be cancelled, for want of leases.
  std::deque<std::vector<std::byte>> parked_;  // What came all the same.
  member_operation<shared_source> flush_{&shared_source::flush};

  const std::shared_ptr<void> kept_;
  const parents_fd socket_;
  const options wanted_;
  std::weak_ptr<datagram_sink> owner_;  // As sink_, from the first deliver_to() on.
  std::atomic<std::uint64_t> times_starved_{0};
};

}  // namespace cowire::detail

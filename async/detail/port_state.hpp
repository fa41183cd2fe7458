// SPDX-License-Identifier: Apache-2.0
/// What is behind a port: the sources that read its sockets, what they have read, and the receives
/// that wait for it.
///
///     ring thread: shared_source --take()--> the first waiter, or arrivals --> waiters
///     any thread:  begin() takes an arrival, or waits
///
/// A mutex guards both queues: either is empty, but for what arrives for a receive of several: that
/// is given them when the ring thread has seen all that has come. Handlers are completed outside of
/// it. Arrivals are bounded by the leases of the sources.
///
/// Handlers that run on the reading ring wait here and nowhere else, and go with the ring
/// (ring_gone()); others have a place in their context (ring/detail/waiting_place.hpp).
///
/// Work: sources count for nothing on the ring; a receive that waits does, so that the ring runs as
/// long as somebody waits.
#pragma once

#include <cowire/async/detail/backing_socket.hpp>
#include <cowire/async/port.hpp>
#include <cowire/base/forked.hpp>
#include <cowire/ring/asio.hpp>
#include <cowire/ring/datagram_source.hpp>
#include <cowire/ring/direct_completion.hpp>
#include <cowire/ring/ring_context.hpp>
#include <cowire/ring/shared_source.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <system_error>
#include <vector>

namespace cowire::detail {

/// What the name and the control messages of a datagram say; `segment_size` is that of UDP_GRO, 0 =
/// the datagram is one. dropped_before as the socket counts.
[[nodiscard]] arrival_facts facts_of(const datagram& from, std::size_t& segment_size) noexcept;

class port_state final : public cancellable, public std::enable_shared_from_this<port_state> {
 public:
  using executor_type = ring_context::executor_type;
  using single_receive = direct_completion<std::error_code, received_datagram>;
  using several_receive = direct_completion<std::error_code, std::size_t>;

  /// Throws std::system_error: error::port_in_use where another port receives on the socket,
  /// error::invalid_argument for options out of range, errno otherwise.
  port_state(ring_context& ring, std::shared_ptr<backing_socket> socket,
             const port_options& options);
  port_state(const port_state&) = delete;
  port_state& operator=(const port_state&) = delete;
  ~port_state();

  // Any thread. -----------------------------------------------------------------------------------

  void begin(single_receive done);
  void begin(std::span<received_datagram> into, several_receive done);
  void cancel_all() { fail_all(operation_aborted()); }
  /// Ends everything; idempotent. The ring must still be there, the first time.
  void close() noexcept;
  [[nodiscard]] port_stats stats() const;
  [[nodiscard]] executor_type get_executor() const noexcept { return ring_.get_executor(); }

 private:
  using work = std::decay_t<decltype(asio::prefer(std::declval<const executor_type&>(),
                                                  asio::execution::outstanding_work.tracked))>;
  /// A socket, and what reads it.
  struct channel final : datagram_sink {
    [[nodiscard]] bool take(source_entry& arrived) noexcept override {
      return owner->take(*this, arrived);
    }
    void ring_gone() noexcept override { owner->ring_gone(); }
    port_state* owner = nullptr;
    std::shared_ptr<shared_source> source;
    bool listening = false;
    std::uint32_t first_drops = 0;  ///< Of the socket, before there was a port.
    mutable std::uint32_t last_drops = 0;
  };
  /// What one buffer holds, from `offset` on; or an error.
  struct arrival {
    datagram lease;
    arrival_facts facts;
    std::size_t segment_size = 0;  ///< 0 = all of it is one datagram.
    std::size_t offset = 0;
    std::error_code ec;
  };
  struct waiter {
    std::uint64_t ticket = 0;
    single_receive single;  ///< Either this ...
    several_receive several;
    std::span<received_datagram> into;  ///< ... or this one with that.
    std::optional<work> busy;           ///< Of the ring, while one of another context waits.

    [[nodiscard]] bool armed() const noexcept { return single.armed() || several.armed(); }
    void fail(const std::error_code& ec) {
      single.armed() ? single.complete(ec, received_datagram{}) : several.complete(ec, 0);
    }
  };
  /// First come, first served. The first has its place in here.
  class waiters {
   public:
    [[nodiscard]] bool empty() const noexcept { return !first_.ticket; }
    [[nodiscard]] const waiter& front() const noexcept { return first_; }
    void push_back(waiter&& next);
    [[nodiscard]] waiter pop_front();
    /// Empty where there is none with that ticket.
    [[nodiscard]] waiter remove(std::uint64_t ticket);

   private:
    waiter first_;  ///< Ticket 0: there is none.
    std::deque<waiter> more_;
  };
  /// A waiter and what it gets.
  struct served {
    waiter whom;
    received_datagram got;
    std::size_t count = 0;
    std::error_code ec;
    void complete();
  };

  void begin(waiter next);
  void cancel(std::uint64_t ticket) override;
  void context_gone(std::uint64_t ticket) override;
  void fail_all(const std::error_code& ec);
  [[nodiscard]] bool take(channel& from, source_entry& arrived) noexcept;
  void serve_all();
  void ring_gone() noexcept;
  [[nodiscard]] static arrival describe(const channel& from, source_entry& entry) noexcept;
  // With mutex_ locked:
  void listen();
  void wait(waiter next);
  void count(const arrival& what) noexcept;
  /// Whoever waits gets it when the ring thread has seen all that has come.
  void keep(arrival&& what);
  [[nodiscard]] received_datagram next_datagram();
  void serve(served& out);
  void read_counters() const noexcept;
  [[nodiscard]] bool anything() const noexcept { return first_ < arrivals_.size(); }

  const fork_mark born_;
  ring_context& ring_;

  // In the order in which one datagram for one waiter needs them.
  mutable std::mutex mutex_;
  bool closed_ = false;
  std::uint64_t ticket_ = 0;
  std::vector<arrival> arrivals_;  ///< From first_ on.
  std::size_t first_ = 0;
  mutable port_stats stats_;
  waiters waiters_;
  std::array<channel, 2> channels_;  ///< Those with a source.
  member_operation<port_state> serve_{&port_state::serve_all};
  const std::shared_ptr<backing_socket> socket_;
};

}  // namespace cowire::detail

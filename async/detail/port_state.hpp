// SPDX-License-Identifier: Apache-2.0
/// What is behind a port: the sources that read its sockets, what they have read, and the receives
/// that wait for it.
///
///     ring thread: datagram_source --take()--> arrivals --> waiters
///     any thread:  begin() takes an arrival, or waits
///
/// A mutex guards both queues: either is empty. Handlers are completed outside of it. Arrivals are
/// bounded by the buffers of the sources.
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
    [[nodiscard]] bool take(std::span<source_entry> arrived) noexcept override {
      return owner->take(*this, arrived);
    }
    port_state* owner = nullptr;
    std::optional<datagram_source> source;
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
    std::optional<work> busy;           ///< Of the ring, while it waits.

    [[nodiscard]] bool armed() const noexcept { return single.armed() || several.armed(); }
    void fail(const std::error_code& ec) {
      single.armed() ? single.complete(ec, received_datagram{}) : several.complete(ec, 0);
    }
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
  [[nodiscard]] bool take(channel& from, std::span<source_entry> arrived) noexcept;
  // With mutex_ locked:
  void listen();
  [[nodiscard]] bool add(channel& from, source_entry& entry);
  [[nodiscard]] received_datagram next_datagram();
  void serve(served& out);
  void read_counters() const noexcept;
  [[nodiscard]] waiter remove(std::uint64_t ticket);
  [[nodiscard]] bool anything() const noexcept { return first_ < arrivals_.size(); }

  const fork_mark born_;
  ring_context& ring_;
  const std::shared_ptr<backing_socket> socket_;

  mutable std::mutex mutex_;
  std::array<channel, 2> channels_;  ///< Those with a source.
  std::vector<arrival> arrivals_;    ///< From first_ on.
  std::size_t first_ = 0;
  std::deque<waiter> waiters_;
  std::uint64_t ticket_ = 0;
  bool closed_ = false;
  mutable port_stats stats_;
};

}  // namespace cowire::detail

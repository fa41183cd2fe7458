// SPDX-License-Identifier: Apache-2.0
/// What QUIC needs of UDP: where each datagram came from and went to, its ECN bits, and the same of
/// those that are sent. Two ways to it, which the rest of the server does not know apart:
///
///     port_transport      cowire::port: sends past the kernel, receives through it (io_uring)
///     socket_transport    an Asio socket on epoll, with sendmsg(2) and recvmsg(2)
///
/// Of one thread, inside run(), but for stop().
#pragma once

#include <cowire/cowire.hpp>
#include <cowire/ring/ring_timer.hpp>

#include <asio/io_context.hpp>
#include <asio/ip/udp.hpp>
#include <asio/steady_timer.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace quic {

using clock = std::chrono::steady_clock;

/// A datagram that has arrived.
struct arrival {
  std::span<const std::byte> bytes;
  cowire::endpoint source;
  cowire::ip_address destination;
  std::uint8_t ecn = 0;
};

class transport {
 public:
  virtual ~transport() = default;
  /// The UDP port.
  [[nodiscard]] virtual std::uint16_t number() const = 0;
  /// Waits for datagrams, until `deadline` at most. Returns none then, and now and then before.
  /// They are valid until the next call.
  virtual asio::awaitable<std::span<const arrival>> receive(clock::time_point deadline) = 0;
  /// Sends all, in their order, and waits for room. What is refused is lost, as on the way.
  virtual asio::awaitable<void> send(std::span<const cowire::message> messages) = 0;
  /// Runs a coroutine, until it ends or stop() is called. Throws what it throws.
  virtual void run(asio::awaitable<void> what) = 0;
  /// Any thread.
  virtual void stop() = 0;
  /// What became of the datagrams that were sent.
  [[nodiscard]] virtual std::string report() const = 0;
};

/// Ends waits at deadlines. It is set anew for earlier deadlines only: what ends a wait too early
/// now and then is cheaper than a timer that is set with each datagram.
template <class Timer>
class alarm {
 public:
  template <class Context>
  explicit alarm(Context& context) : timer_(context) {}
  template <class End>
  void set(clock::time_point deadline, End end) {
    if (deadline >= set_for_) return;
    set_for_ = deadline;
    timer_.expires_at(deadline);
    timer_.async_wait([this, end](std::error_code ec) {
      if (ec) return;  // A new deadline has a wait of its own.
      set_for_ = clock::time_point::max();
      end();
    });
  }

 private:
  Timer timer_;
  clock::time_point set_for_ = clock::time_point::max();
};

/// How many datagrams are received at a time.
inline constexpr std::size_t arrivals_max = 64;
/// Room for what arrives while the server does something else, in bytes of the kernel's.
inline constexpr int socket_buffer = 8 << 20;

class port_transport final : public transport {
 public:
  /// 0 = any port.
  explicit port_transport(std::uint16_t number);
  [[nodiscard]] std::uint16_t number() const override { return port_.number(); }
  asio::awaitable<std::span<const arrival>> receive(clock::time_point deadline) override;
  asio::awaitable<void> send(std::span<const cowire::message> messages) override;
  void run(asio::awaitable<void> what) override;
  void stop() override { ring_.stop(); }
  [[nodiscard]] std::string report() const override;

 private:
  cowire::ring_context ring_;
  cowire::transmitter tx_;
  cowire::port port_;
  alarm<cowire::ring_timer> alarm_{ring_};
  std::array<cowire::received_datagram, arrivals_max> received_;
  std::array<arrival, arrivals_max> arrivals_;
};

class socket_transport final : public transport {
 public:
  /// 0 = any port.
  explicit socket_transport(std::uint16_t number);
  [[nodiscard]] std::uint16_t number() const override { return socket_.local_endpoint().port(); }
  asio::awaitable<std::span<const arrival>> receive(clock::time_point deadline) override;
  asio::awaitable<void> send(std::span<const cowire::message> messages) override;
  void run(asio::awaitable<void> what) override;
  void stop() override { io_.stop(); }
  [[nodiscard]] std::string report() const override { return "through the kernel"; }

 private:
  /// Without waiting; how many.
  std::size_t read();
  /// False: there is no room now.
  bool write(const cowire::message& what);

  asio::io_context io_{1};
  asio::ip::udp::socket socket_{io_};
  alarm<asio::steady_timer> alarm_{io_};
  std::array<std::array<std::byte, 2048>, arrivals_max> buffers_;
  std::array<arrival, arrivals_max> arrivals_;
};

}  // namespace quic

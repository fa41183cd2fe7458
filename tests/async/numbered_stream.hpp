// SPDX-License-Identifier: Apache-2.0
/// A stream of numbered datagrams out of a transmitter and a sink that says which of them arrived:
/// what tests need that must not lose a single one.
#pragma once

#include <cowire/async/transmitter.hpp>

#include <tests/support/netns.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace cowire::test {

/// Sends the numbers 0, 1, 2 ... in turn to `destinations`, one every `period`, on a thread of its
/// own, which is started in the caller's namespace.
class numbered_stream {
 public:
  numbered_stream(transmitter& tx, std::vector<endpoint> destinations,
                  std::chrono::microseconds period, const sender_options& options = {})
      : thread_([this, &tx, to = std::move(destinations), period, options] {
          auto out = tx.make_sender(options);
          auto next = std::chrono::steady_clock::now();
          for (std::uint64_t number = 0; !stopping_;) {
            // What a sleep took too long is made up for, so that the rate holds on a busy machine.
            for (; next <= std::chrono::steady_clock::now(); next += period) {
              const auto bytes = std::as_bytes(std::span(&number, 1));
              if (!out.try_send(bytes, to[number % to.size()])) break;
              sent_ = ++number;
            }
            std::this_thread::sleep_for(period);
          }
        }) {}
  ~numbered_stream() { stop(); }
  numbered_stream(const numbered_stream&) = delete;
  numbered_stream& operator=(const numbered_stream&) = delete;

  /// How many were submitted: the numbers below this.
  [[nodiscard]] std::uint64_t sent() const { return sent_; }
  void stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::atomic<bool> stopping_{false};
  std::atomic<std::uint64_t> sent_{0};
  std::thread thread_;
};

/// Receives them, on a thread of its own so that no buffer overflows.
class numbered_sink {
 public:
  numbered_sink(const netns& in, const endpoint& bind_to, const std::string& device = "")
      : socket_(in, bind_to, device), thread_([this] {
          while (!stopping_)
            while (const auto one = socket_.next(std::chrono::milliseconds(50))) take(one->bytes);
        }) {}
  ~numbered_sink() { stop(); }
  numbered_sink(const numbered_sink&) = delete;
  numbered_sink& operator=(const numbered_sink&) = delete;

  [[nodiscard]] std::uint64_t arrived() const { return arrived_; }
  /// Returns when nothing comes any more. The rest is for afterwards.
  void stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] std::uint64_t duplicates() const { return duplicates_; }
  /// How often number `number` came.
  [[nodiscard]] unsigned times(std::uint64_t number) const {
    return number < seen_.size() ? seen_[number] : 0;
  }
  /// The numbers below `sent` that did not arrive, as ranges; "" = none.
  [[nodiscard]] std::string missing(std::uint64_t sent) const {
    std::string out;
    for (std::uint64_t i = 0; i < sent; ++i) {
      if (times(i) != 0) continue;
      const std::uint64_t first = i;
      while (i + 1 < sent && times(i + 1) == 0) ++i;
      out += (out.empty() ? "" : " ") + std::to_string(first);
      if (i != first) out += "-" + std::to_string(i);
    }
    return out;
  }

 private:
  void take(const std::string& bytes) {
    std::uint64_t number;
    if (bytes.size() != sizeof number) return;
    std::memcpy(&number, bytes.data(), sizeof number);
    if (seen_.size() <= number) seen_.resize(number * 2 + 64);
    if (seen_[number]++ == 0)
      ++arrived_;
    else
      ++duplicates_;
  }

  udp_sink socket_;
  std::vector<std::uint8_t> seen_;
  std::uint64_t duplicates_ = 0;
  std::atomic<std::uint64_t> arrived_{0};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace cowire::test

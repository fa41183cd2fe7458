// SPDX-License-Identifier: Apache-2.0
/// Reads a whole ruleset at one generation, without I/O: requests out, datagrams in.
///
///     nft::reader reader;                        reader.start();
///     while (auto request = reader.next_request()) { send; while (reader.waits()) on_datagram(); }
///
/// The generation is asked for first and last, and every message of every dump names it: where one
/// differs, or a dump says that it was interrupted, all is read again, at most attempts_max times.
/// But dumps go on by counting what is linked, in force or not, and so may leave out or repeat what
/// they tell while a transaction is going on that does not move the generation:
/// - one has its number before the kernel has unlinked what it replaces: its end is waited for
///   (settle_request());
/// - one that is undone (`nft -c`, a batch with a mistake) never has a number. Each rule names the
///   one before it, where that is another all is read again. The ends of chains and all else have
///   no such link: so everything is read twice, until two readings in a row are the same.
///
/// What cannot be decoded ends the reading with its error: half a ruleset is worth nothing.
///
/// One thread at a time. To hear of changes after it, listen to notification_group *before*
/// start().
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/netlink/nft_codec.hpp>
#include <cowire/netlink/request_socket.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <system_error>
#include <vector>

namespace cowire::netlink::nft {

class reader {
 public:
  static constexpr int attempts_max = 32;

  /// Begins anew, whatever was going on.
  void start();

  /// The next thing to send; waits() tells whether it is answered. Empty while an answer is
  /// awaited, and at the end.
  [[nodiscard]] std::optional<std::vector<std::byte>> next_request();
  [[nodiscard]] bool waits() const noexcept { return waits_; }
  /// An answer from the kernel; others than to the last request are passed by.
  void on_datagram(std::span<const std::byte> datagram);
  /// An answer was lost: reads again.
  void on_loss();

  /// Ended, with a ruleset or with an error.
  [[nodiscard]] bool done() const noexcept { return stage_ == stage::done; }
  /// error::interrupted_dump where the ruleset would not keep still; the kernel's errno (EPERM
  /// without CAP_NET_ADMIN), error::truncated or error::malformed otherwise.
  [[nodiscard]] std::error_code error() const noexcept { return error_; }
  /// Once done without error. A kernel without nf_tables has an empty one.
  [[nodiscard]] const ruleset& result() const noexcept { return result_; }
  [[nodiscard]] ruleset take() { return std::move(result_); }

 private:
  enum class stage : std::uint8_t {
    generation,
    settling,
    tables,
    chains,
    rules,
    objects,
    sets,
    elements,
    generation_again,
    done
  };
  void finish(std::error_code ec);
  void restart();
  void advance();
  void on_end(int error_number);
  void keep(decoded&& one);
  void keep(generation&& one);
  void conclude();

  stage stage_ = stage::done;
  bool waits_ = false;
  bool moved_ = false;  ///< Something told of another generation.
  int attempts_ = 0;
  std::uint32_t sequence_ = 0;
  std::vector<object_key> sets_to_read_;
  std::vector<element> elements_;  ///< Of the set that is read.
  std::error_code error_;
  ruleset result_;
  std::optional<ruleset> before_;  ///< The reading before, if it came to its end.
};

/// A NETLINK_NETFILTER socket of the calling thread's network namespace, in notification_group
/// where `listen`.
[[nodiscard]] unique_fd open_socket(const socket_options& options, bool listen,
                                    std::error_code& ec);

/// Drives a reader until it is done: for tools and tests. Waits at most `timeout` for each answer.
[[nodiscard]] ruleset read_ruleset(std::error_code& ec,
                                   std::chrono::milliseconds timeout = std::chrono::seconds(5));

}  // namespace cowire::netlink::nft

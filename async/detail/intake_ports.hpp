// SPDX-License-Identifier: Apache-2.0
/// The source ports that an intake's clients use: senders by (user, port), opened on first use and
/// closed when nobody has used them for a while.
///
/// A port belongs to the client that opened it, and counts as that client's. A client that uses as
/// many as it may gets another one for the one that it has used least lately, if that was not just
/// now. When all there are are taken, the user with the most of them gives one up. So a client that
/// hoards ports denies them to nobody else.
///
/// A port that is closed with datagrams on the way stays bound until they have left. The intake's
/// thread only.
#pragma once

#include <cowire/async/intake.hpp>

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

namespace cowire::detail {

/// Who sent a message, as the kernel vouches for (SCM_CREDENTIALS, unix(7)).
struct intake_peer {
  std::uint32_t uid = 0;
  std::int32_t pid = 0;  ///< 0 = in no namespace that this process sees.
  friend auto operator<=>(const intake_peer&, const intake_peer&) = default;
};

/// Frames that the kernel receives into belong to one producer, copies for a fan-out to another:
/// with a single pool a server that waits for messages would hold every frame a copy needs.
struct intake_senders {
  sender received, copies;
};

class intake_ports {
 public:
  using clock = std::chrono::steady_clock;

  /// As transmitter::make_sender().
  using sender_maker = std::function<sender(const sender_options&, std::error_code&)>;

  /// `options` is what all senders have in common; their producers are these two.
  intake_ports(sender_maker make, const intake_options& options, cowire::producer received,
               cowire::producer copies, log_callback log);

  /// The senders of a user's port; 0 = one that the kernel picks for that user. They stay usable as
  /// long as the pointer is held. nullptr where there are none: the reason is in the log, at most
  /// once a minute for each user.
  [[nodiscard]] std::shared_ptr<intake_senders> use(const intake_peer& by, std::uint16_t port);
  /// Closes the ports that nobody has used for intake_options::port_idle.
  void close_idle();

  [[nodiscard]] std::size_t size() const noexcept { return ports_.size(); }

 private:
  using key = std::pair<std::uint32_t, std::uint16_t>;  ///< User and port.
  struct entry {
    std::shared_ptr<intake_senders> senders;
    intake_peer opened_by;
    clock::time_point used;
  };
  using iterator = std::map<key, entry>::iterator;

  [[nodiscard]] bool make_room(const intake_peer& by, clock::time_point now);
  /// Closes the one used least lately among those that `counts`; false if it was used after
  /// `before`, or there is none.
  template <class Counts>
  [[nodiscard]] bool close_oldest(Counts counts, clock::time_point before);
  [[nodiscard]] iterator close(iterator which);
  [[nodiscard]] std::uint32_t greatest_user() const;
  void complain(const intake_peer& by, std::uint16_t port, std::error_code why);
  void complain(const intake_peer& by, const std::string& text);

  const sender_maker make_;
  const intake_options options_;
  const cowire::producer received_, copies_;
  const log_callback log_;
  std::map<key, entry> ports_;
  std::map<intake_peer, std::size_t> by_client_;
  std::map<std::uint32_t, std::size_t> by_user_;
  std::map<std::uint32_t, clock::time_point> complained_;  ///< By user.
};

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// The kernel's own UDP sockets behind one source port: they reserve it, carry what the fast path
/// does not, and receive the ICMP errors of everything that was sent from it, AF_XDP included.
///
/// One socket per address family. What senders of the same port may differ in (mark, TOS, TTL)
/// travels with each datagram as control messages, so that they can share the port.
///
/// Made on any thread; sends and error queues belong to the kernel path's thread.
#pragma once

#include <cowire/async/datagram_options.hpp>
#include <cowire/base/address.hpp>
#include <cowire/base/forked.hpp>

#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>

namespace cowire::detail {

/// Whose the sockets are that this thread makes: its file system uid.
[[nodiscard]] std::uint32_t own_uid() noexcept;
/// Whether the kernel lets this thread give datagrams a mark.
[[nodiscard]] bool may_set_marks() noexcept;

/// The options of a socket that concern groups and broadcast. No control message carries them.
struct group_options {
  std::uint8_t ttl = 1;
  bool loop = true;
  bool broadcast = false;
  /// IPv4: of an adopted socket that is bound to no device nobody can read it.
  bool interface_hidden = false;
  std::uint32_t interface_index = 0;  ///< 0 = as the routes say.
  friend auto operator<=>(const group_options&, const group_options&) = default;
};

/// What distinguishes backing sockets; senders that agree in it share one.
struct source_key {
  std::uint16_t port = 0;  ///< Host order; 0 = the kernel picks.
  std::optional<ip_address> v4, v6;
  std::string device;
  std::uint32_t owner = own_uid();  ///< The user whose sockets they are.
  group_options groups;
  friend auto operator<=>(const source_key&, const source_key&) = default;
};

/// Puts a control message at the start of `to`, which has room; how much it took.
[[nodiscard]] std::size_t put_control(std::span<std::byte> to, int level, int type,
                                      const void* value, std::size_t length) noexcept;

template <std::size_t Capacity>
struct control_messages {
  alignas(cmsghdr) std::array<std::byte, Capacity> bytes{};
  std::size_t size = 0;

  void add(int level, int type, const void* value, std::size_t length) noexcept {
    size += put_control(std::span(bytes).subspan(size), level, type, value, length);
  }
};

/// What travels with each datagram: built once per sender and family.
struct send_control : control_messages<96> {
  /// Only what differs from the socket's own defaults: 0 = leave out.
  [[nodiscard]] static send_control from(ip_family family, std::uint32_t mark, std::uint8_t tos,
                                         std::uint8_t ttl) noexcept;
};

/// What travels with one datagram: that of its sender and, coming last and so counting, what it has
/// chosen. `tos`: the sender's, be it the socket's own.
struct datagram_control : control_messages<208> {
  [[nodiscard]] static datagram_control from(const send_control& of_sender, ip_family family,
                                             std::uint8_t tos,
                                             const datagram_options& chosen) noexcept;
};

/// One entry of an error queue.
struct queued_error {
  int number = 0;  ///< errno.
  bool from_network = false;
  std::uint32_t mtu = 0;  ///< With EMSGSIZE.
  endpoint destination;   ///< Of the datagram that it is about.
};

/// Tells when the object whose first member it is has gone: the last owner of a shared one may be
/// about to destroy it on another thread, when no weak_ptr leads there any more.
class end_mark {
 public:
  end_mark() = default;
  end_mark(const end_mark&) = delete;
  end_mark& operator=(const end_mark&) = delete;
  ~end_mark() {
    gone_->test_and_set(std::memory_order_release);
    gone_->notify_all();
  }
  /// Set, and whoever waits for that woken, at the end.
  [[nodiscard]] std::shared_ptr<const std::atomic_flag> gone() const noexcept { return gone_; }

 private:
  const std::shared_ptr<std::atomic_flag> gone_ = std::make_shared<std::atomic_flag>();
};

class backing_socket {
 public:
  /// Opens and binds both families (IPv6 only where the host has it). Errors: port_in_use, EPERM
  /// (it is to be another user's, and CAP_SETUID is missing), and what socket(), bind() or
  /// setsockopt() answered.
  [[nodiscard]] static std::shared_ptr<backing_socket> open(const source_key& key,
                                                            std::error_code& ec);
  /// Duplicates a bound UDP socket and switches its error queue on. An AF_INET6 socket serves IPv4,
  /// too, unless it is IPV6_V6ONLY, and nothing else where it is bound to an IPv4-mapped address.
  /// Errors: invalid_argument (not UDP, or not bound), unsupported (refusal_of() tells).
  /// `multicast_interface` (ifindex), if not 0, is set on it.
  [[nodiscard]] static std::shared_ptr<backing_socket> adopt(int fd, std::error_code& ec,
                                                             std::uint32_t multicast_interface = 0);
  /// Which of its options only the kernel can do, and what to do about it; "" = none, or no socket.
  [[nodiscard]] static std::string refusal_of(int fd);

  /// -1 where there is none for this family.
  [[nodiscard]] int fd(ip_family family) const noexcept {
    return fds_[static_cast<std::size_t>(family)].get();
  }
  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
  [[nodiscard]] const std::optional<ip_address>& source(ip_family family) const noexcept {
    return sources_[static_cast<std::size_t>(family)];
  }
  /// Owner of the sockets, as policy rules see it.
  [[nodiscard]] std::uint32_t uid() const noexcept { return uid_; }
  /// Bound device, 0 = none.
  [[nodiscard]] std::uint32_t interface_index() const noexcept { return interface_index_; }
  /// Set on an adopted socket; our own have at most what a control-group program gave them when
  /// they were made (`ip vrf exec` is one).
  [[nodiscard]] std::uint32_t mark() const noexcept { return mark_; }
  /// Set on an adopted socket, for each family apart; our own have none.
  [[nodiscard]] std::uint8_t tos(ip_family family) const noexcept {
    return tos_[static_cast<std::size_t>(family)];
  }
  [[nodiscard]] std::uint8_t ttl(ip_family family) const noexcept {
    return ttl_[static_cast<std::size_t>(family)];
  }

  [[nodiscard]] const group_options& groups(ip_family family) const noexcept {
    return groups_[static_cast<std::size_t>(family)];
  }

  /// Doubles the send buffer, so that what waits in the kernel for one destination, a dead
  /// neighbour say, leaves room for others. False: it is the application's socket, as large as it
  /// may be, or the kernel refused (CAP_NET_ADMIN).
  [[nodiscard]] bool enlarge(ip_family family) noexcept;

  /// As IP_MTU_DISCOVER, which no control message carries: from now on as for probes. Returns what
  /// it was, for end_probe(). Not of adopted sockets.
  [[nodiscard]] int begin_probe(ip_family family) noexcept;
  void end_probe(ip_family family, int before) noexcept;

  /// Has each datagram that is received tell its destination, interface, traffic class, time and
  /// how many were dropped before it, and with `gro` has the kernel hand over several at once.
  /// `buffer_bytes` is as SO_RCVBUF, past the system's limit where that is allowed; 0 = as it is.
  /// One receiver at a time: error::port_in_use. Errors: those of setsockopt().
  [[nodiscard]] std::error_code begin_receiving(bool gro, std::size_t buffer_bytes);
  void end_receiving() noexcept { receiving_.store(false, std::memory_order_release); }
  /// What has to live as long as it does; once.
  void keep(std::array<std::shared_ptr<const void>, 2> others) noexcept {
    kept_ = std::move(others);
  }
  /// The application's socket: with both families, both descriptors are that one.
  [[nodiscard]] bool adopted() const noexcept { return adopted_; }

  /// Takes one entry off an error queue; false when it is empty. Never blocks.
  [[nodiscard]] bool next_error(ip_family family, queued_error& error) noexcept;

  /// Set as soon as its port is free again.
  [[nodiscard]] std::shared_ptr<const std::atomic_flag> closed() const noexcept {
    return end_.gone();
  }

 private:
  backing_socket() = default;
  [[nodiscard]] std::error_code bind_family(ip_family family, const source_key& key,
                                            std::uint16_t port);
  /// Takes another duplicate of `from` for a family, with that family's options.
  [[nodiscard]] std::error_code adopt_for(ip_family family, int from);
  [[nodiscard]] std::error_code read_options(ip_family family);
  void read_group_options(ip_family family);
  [[nodiscard]] std::error_code receive_with(int fd, bool gro, std::size_t buffer_bytes) const;
  [[nodiscard]] std::error_code finish();

  end_mark end_;  ///< First.
  std::array<parents_fd, 2> fds_;
  std::array<std::optional<ip_address>, 2> sources_;
  std::uint16_t port_ = 0;
  std::uint32_t uid_ = 0, interface_index_ = 0, mark_ = 0;
  std::array<std::uint8_t, 2> tos_{}, ttl_{};
  std::array<group_options, 2> groups_{};
  bool adopted_ = false;
  std::array<std::shared_ptr<const void>, 2> kept_;
  std::atomic<bool> receiving_{false};
};

/// An address as the socket calls want it.
struct socket_address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  /// `scope` is the interface of an address that needs one where `to` names none; 0 = none.
  [[nodiscard]] static socket_address from(const endpoint& to, std::uint32_t scope) noexcept;
};

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// One AF_XDP socket for sending on one queue of one interface, and the ladder of modes that leads
/// to it.
///
/// The ladder is that of send_mode (xdp/send_mode.hpp), best rung first.
///
/// Every socket registers the umem's memory for itself (XDP_UMEM_REG) instead of sharing the first
/// socket's registration (XDP_SHARED_UMEM). A shared registration hangs off the first socket: that
/// one cannot be unbound while the others live, its interface cannot go away without taking the
/// right to add sockets with it, and a rung that failed to bind leaves half-made rings behind. The
/// frames are the same memory either way.
///
/// Set-up and tear-down: control thread. The queue() view belongs to the TX core while a port is
/// made of it. A bound socket does not prove that frames leave the host: tx_core's `completed`
/// counter does.
#pragma once

#include <cowire/xdp/device.hpp>
#include <cowire/xdp/send_mode.hpp>
#include <cowire/xdp/tx_queue.hpp>
#include <cowire/xdp/umem.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace cowire {

class xdp_socket;

struct socket_options {
  std::optional<send_mode> mode = std::nullopt;  ///< Only this rung; unset = the ladder.
  std::uint32_t queue = 0;
  /// A socket on another queue of the same interface: the program that it has attached serves this
  /// one, too. Null = none.
  const xdp_socket* sibling = nullptr;
  /// Descriptors: 64 to 65536, rounded up to a power of two; what is beyond is taken as the limit.
  std::uint32_t tx_ring_size = 2048;
  /// Receive buffers given to a zero-copy queue, without which the kernel could not receive on it;
  /// 0 = as many as the NIC's receive ring holds, twice.
  std::uint32_t fill_frames = 0;
  /// Where not 0: the queue's driver works when it is kicked, on the TX core's CPU, and not in
  /// interrupts, for so long a time at most (SO_PREFER_BUSY_POLL, SO_BUSY_POLL; zero-copy only).
  /// Needs napi_defer_hard_irqs and gro_flush_timeout of the interface to be set.
  std::chrono::microseconds busy_poll{0};
  std::uint32_t busy_poll_budget =
      busy_poll_budget_default;  ///< Frames that one such poll handles at most.
  /// How long a queue may stay busy after its last owner closed it (tens of milliseconds are
  /// usual).
  std::chrono::milliseconds busy_deadline{1000};
  /// How long to wait for the carrier to come back after a program was attached (igb resets itself:
  /// 3 s).
  std::chrono::milliseconds carrier_deadline{5000};
};

/// An open, bound socket. Closing it (the destructor) returns the fill frames to the umem.
class xdp_socket {
 public:
  ~xdp_socket();
  xdp_socket(const xdp_socket&) = delete;
  xdp_socket& operator=(const xdp_socket&) = delete;

  [[nodiscard]] send_mode mode() const noexcept;
  [[nodiscard]] std::uint32_t interface_index() const noexcept;
  /// For tx_core::add_port. Valid while the socket lives.
  [[nodiscard]] tx_queue queue() const noexcept;
  [[nodiscard]] int fd() const noexcept;
  [[nodiscard]] bool busy_polling() const noexcept;
  /// Options that the kernel refused, "SO_BUSY_POLL: EPERM": it sends, but slower. Valid while the
  /// socket lives.
  [[nodiscard]] std::span<const std::string> refused_options() const noexcept;

 private:
  friend class socket_ladder;
  struct impl;
  explicit xdp_socket(std::unique_ptr<impl> opened);
  std::unique_ptr<impl> impl_;
};

/// What kind of thing stands in the way of a rung.
enum class obstacle : std::uint8_t {
  device,   ///< The device has no such rung, or one with known trouble: that stays.
  host,     ///< A privilege, a limit: until somebody mends it.
  passing,  ///< Another socket or program, a number of queues: it may go by itself.
};

/// A rung that was not taken, and why: "zero-copy", "driver veth does not offer AF_XDP zero-copy".
struct rejected_mode {
  send_mode mode;
  std::string reason;
  obstacle kind = obstacle::device;
};

struct opened_egress {
  send_mode mode = send_mode::kernel;
  std::unique_ptr<xdp_socket> socket;   ///< Null where mode is kernel.
  std::vector<rejected_mode> rejected;  ///< In the order they were tried.

  /// One line for people: the rung, and why none above it.
  [[nodiscard]] std::string explain() const;
};

/// Climbs down until a rung holds. Does not throw for anything the system refuses: the kernel rung
/// always holds, and `rejected` tells the rest. With options.mode set only that rung is tried; if
/// it fails, the mode is kernel. May block for the deadlines in `options`.
[[nodiscard]] opened_egress open_egress(umem& memory, const device_facts& device,
                                        const socket_options& options = {});

}  // namespace cowire

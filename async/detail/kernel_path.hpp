// SPDX-License-Identifier: Apache-2.0
/// Sends what the TX core diverts, through the kernel's own sockets, and hears what comes back.
///
/// Each diverted datagram goes out of its sender's backing socket, straight from its frame: the
/// kernel routes, resolves neighbours, fragments, or refuses with the errno that is then counted
/// and reported to the sender. Order is kept per socket. A socket that is full (a neighbour being
/// resolved, usually) holds back its own datagrams only, and only so many of them: what is more is
/// refused with EAGAIN, as a socket that does not block would, lest a dead neighbour takes all
/// frames.
///
/// One epoll set, itself watched by the ring, tells of error queues and of room in full sockets. It
/// asks for nothing else: data that arrives on an adopted socket is the application's business and
/// must not wake us.
///
/// Control thread; counters may be read by anyone.
#pragma once

#include <cowire/async/detail/backing_socket.hpp>
#include <cowire/async/detail/producer.hpp>
#include <cowire/base/unique_fd.hpp>
#include <cowire/ring/readable_fd.hpp>
#include <cowire/ring/ring_context.hpp>
#include <cowire/xdp/tx_core.hpp>

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <unordered_map>

namespace cowire::detail {

class kernel_path {
 public:
  /// errno numbers above are counted as the last one (Linux ends at 133).
  static constexpr std::size_t errno_limit = 256;
  using path_mtu_callback = std::function<void(const ip_address& destination, std::uint32_t mtu)>;

  /// `waiting_max`: how many datagrams may wait for one socket.
  kernel_path(ring_context& ring, const frame_memory& memory, std::size_t waiting_max,
              path_mtu_callback learnt);
  ~kernel_path();
  kernel_path(const kernel_path&) = delete;
  kernel_path& operator=(const kernel_path&) = delete;

  /// Begins to watch the sockets.
  void start();
  /// Gives up what still waits for room: counted as refused with ECANCELED.
  void stop();

  void add_sender(std::shared_ptr<sender_state> sender);
  void remove_sender(std::uint32_t id);
  [[nodiscard]] bool has_senders() const noexcept { return !senders_.empty(); }
  /// Drops all senders and closes their error queues; their handles keep what they need.
  void remove_all_senders();

  /// Takes a diverted datagram over, frame included.
  void send(const diverted_request& diverted);

  [[nodiscard]] std::uint64_t sent() const noexcept { return sent_.get(); }
  [[nodiscard]] std::uint64_t refused(int number) const noexcept {
    return refused_[static_cast<std::size_t>(number)].get();
  }
  [[nodiscard]] std::uint64_t errors_from_network() const noexcept { return from_network_.get(); }

 private:
  struct job {
    std::shared_ptr<sender_state> sender;
    tx_request request;
  };
  /// One socket of one family.
  struct lane {
    std::shared_ptr<backing_socket> socket;
    ip_family family = ip_family::v4;
    std::size_t senders = 0;
    bool full = false;  ///< Waits for room.
    std::deque<job> jobs;
  };
  using lane_key = std::pair<const backing_socket*, ip_family>;

  void watch();
  void on_ready();
  void watch_room(lane& on, bool wanted);
  void run(lane& on);
  /// 0, or an errno.
  [[nodiscard]] int send_now(const lane& on, const job& what) const noexcept;
  void finish(const job& done, int number);
  void read_errors(lane& on);

  const frame_memory memory_;
  const std::size_t waiting_max_;
  const path_mtu_callback learnt_;
  unique_fd epoll_;
  readable_fd ready_;
  std::unordered_map<std::uint32_t, std::shared_ptr<sender_state>> senders_;
  std::map<lane_key, std::unique_ptr<lane>> lanes_;
  bool stopped_ = false;
  single_writer_counter sent_, from_network_;
  std::array<single_writer_counter, errno_limit> refused_;
};

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// Sends what the TX core diverts, through the kernel's own sockets, and hears what comes back.
///
/// Each diverted datagram goes out of its sender's backing socket, straight from its frame: the
/// kernel routes, resolves neighbours, fragments, or refuses with the errno that is then counted
/// and reported to the sender. Order is kept per socket and destination. What sendmsg() answers:
/// | errno         | means                              | what happens                            |
/// |---------------|------------------------------------|-----------------------------------------|
/// | EAGAIN, full  | the socket's send buffer is full   | a larger one, else the socket's         |
/// |               |                                    | datagrams wait for room                 |
/// | EAGAIN else,  | something on the way to this       | its datagrams wait, are tried again two |
/// | ENOBUFS       | destination dropped it: a full     | times within milliseconds, then refused |
/// |               | queue or an egress filter,         |                                         |
/// |               | nobody can tell which              |                                         |
/// | one that is   | perhaps the answer to an earlier   | tried again                             |
/// | also in the   | datagram, which takes the place of |                                         |
/// | error queue   | this one's (sock_error() in        |                                         |
/// |               | sock_alloc_send_pskb())            |                                         |
/// | others        | refused                            | refused: whoever counts it, a firewall  |
/// |               |                                    | say, sees it once                       |
///
/// Nothing of one socket or one destination holds others back, and what waits is bounded: of the
/// frames of one producer, a socket may have as many waiting as are left then. So one takes half of
/// them at most, two a third each, and some are always left to others; what is more is refused, as
/// a socket that does not block would.
///
/// One epoll set, itself watched by the ring, tells of error queues and of room in full sockets. It
/// asks for nothing else: data that arrives on an adopted socket is the application's business and
/// must not wake us.
///
/// One thread, the kernel path's (engine.hpp says why it is not the control thread); counters may
/// be read by anyone.
#pragma once

#include <cowire/async/detail/backing_socket.hpp>
#include <cowire/async/detail/flow_tracker.hpp>
#include <cowire/async/detail/producer.hpp>
#include <cowire/base/unique_fd.hpp>
#include <cowire/ring/readable_fd.hpp>
#include <cowire/ring/ring_context.hpp>
#include <cowire/ring/ring_timer.hpp>
#include <cowire/xdp/tx_core.hpp>

#include <array>
#include <bitset>
#include <chrono>
#include <compare>
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
  /// Has a path MTU obeyed, on whichever thread, and calls `then` afterwards: what tells senders.
  using path_mtu_callback = std::function<void(const ip_address& destination, std::uint32_t mtu,
                                               std::function<void()> then)>;

  /// `frames`: how many each producer has. `tracker` is told of each datagram of a tracked hop.
  kernel_path(ring_context& ring, const frame_memory& memory, std::size_t frames,
              flow_tracker& tracker, path_mtu_callback learnt);
  ~kernel_path();
  kernel_path(const kernel_path&) = delete;
  kernel_path& operator=(const kernel_path&) = delete;

  /// Begins to watch the sockets.
  void start();
  /// Gives up what still waits: counted as refused with ECANCELED.
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
  using clock = std::chrono::steady_clock;
  struct job {
    std::shared_ptr<sender_state> sender;
    tx_request request;
    bool tracked = false;  ///< As in diverted_request.
    tracked_way way{};
    std::uint32_t rules = 0;  ///< flow_tracker::rules(), of a tracked one.
  };
  struct flow_key {
    endpoint destination;
    flow_class_id flow_class;
    friend auto operator<=>(const flow_key&, const flow_key&) = default;
  };
  /// A destination to which something drops datagrams.
  struct trouble {
    std::deque<job> jobs;  ///< Behind the one that was dropped, in order.
    unsigned tries = 0;    ///< Of the first of them.
    /// That a datagram was refused for it: those that follow are tried once, until one gets through
    /// or the trouble is forgotten.
    bool given_up = false;
    clock::time_point due;  ///< For the next try, or for being forgotten.
  };
  /// One socket of one family.
  struct lane {
    std::shared_ptr<backing_socket> socket;
    ip_family family = ip_family::v4;
    std::size_t senders = 0;
    std::size_t waiting = 0;  ///< Jobs here, in all.
    bool full = false;        ///< Waits for room.
    bool probing = false;     ///< What is being read was said about a path MTU probe, if of here.
    std::deque<job> jobs;     ///< For room.
    std::map<flow_key, trouble> troubles;
    std::bitset<errno_limit> unanswered;  ///< Network errors read since the last call of sendmsg().
  };
  /// What the kernel said about a datagram and no other.
  struct answer {
    int number;  ///< 0, or an errno.
    enum : std::uint8_t { final, socket_full, trouble } what_next;
  };
  using lane_key = std::pair<const backing_socket*, ip_family>;

  [[nodiscard]] static flow_key key_of(const tx_request& request) noexcept;
  void watch();
  void on_ready();
  void watch_room(lane& on, bool wanted);
  void run(lane& on);
  /// False: the socket is full, and `what` still the caller's. Otherwise it is finished, or waits.
  [[nodiscard]] bool attempt(lane& on, job& what);
  /// Whether it may wait for trouble on its way to pass.
  [[nodiscard]] bool wait_out(lane& on, job& what);
  void retry(lane& on, trouble& with);
  void serve_troubles();
  void wake_at(clock::time_point due);
  /// Has a job wait in a queue of the lane's, if there may be one more. Otherwise it is refused.
  void wait(lane& on, std::deque<job>& queue, job what);
  [[nodiscard]] bool may_wait(const lane& on, const job& what) const;
  [[nodiscard]] job take_first(lane& on, std::deque<job>& queue);
  [[nodiscard]] answer send_now(lane& on, const job& what);
  /// Null: nothing but, perhaps, ECN.
  [[nodiscard]] static const datagram_options* chosen_by(const job& what) noexcept;
  [[nodiscard]] static datagram_control control_of(const job& what, bool to_group) noexcept;
  [[nodiscard]] int call_sendmsg(const lane& on, const job& what) const noexcept;
  [[nodiscard]] bool was_pending(lane& on, int number);
  void finish(const job& done, int number);
  void read_errors(lane& on);
  [[nodiscard]] std::function<void()> report_of(const lane& on, const queued_error& error) const;

  const frame_memory memory_;
  const std::size_t frames_;
  flow_tracker& tracker_;
  const path_mtu_callback learnt_;
  unique_fd epoll_;
  readable_fd ready_;
  ring_timer timer_;
  clock::time_point wakes_at_ = clock::time_point::max();
  std::unordered_map<std::uint32_t, std::shared_ptr<sender_state>> senders_;
  std::map<lane_key, std::unique_ptr<lane>> lanes_;
  std::unordered_map<const producer*, std::size_t> waiting_;  ///< Jobs, of all lanes.
  std::size_t troubles_ = 0;                                  ///< Of all lanes.
  bool stopped_ = false;
  single_writer_counter sent_, from_network_;
  std::array<single_writer_counter, errno_limit> refused_;
};

}  // namespace cowire::detail

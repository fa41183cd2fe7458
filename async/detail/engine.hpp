// SPDX-License-Identifier: Apache-2.0
/// What is behind a transmitter, held together as long as any handle made by it lives.
///
///     application threads: producers --requests--> TX core threads --> AF_XDP sockets
///     kernel path's thread: ring { the cores' doorbell, kernel_path, who waits for frames }
///     control thread: ring { route_service, egress_set, flow_tracker }
///
/// What cores divert, and frames that come back, have a thread of their own: the control thread may
/// compile routes for a second, which nobody's datagrams are to wait for. That thread waits for
/// nobody, runs no handler of the application's and logs nothing; what it finds out for others it
/// posts to the control thread, which may wait for it.
///
/// The transmitter owns the running; handles own the memory: after stop() all threads are gone and
/// every socket is closed, but frames and producers stay until the last payload is dropped.
///
/// In a child of fork() none of it runs: an inherited engine refuses, and is left behind with its
/// last handle, never destroyed.
#pragma once

#include <cowire/async/detail/core_set.hpp>
#include <cowire/async/detail/declared_tunnels.hpp>
#include <cowire/async/detail/egress_set.hpp>
#include <cowire/async/detail/flow_tracker.hpp>
#include <cowire/async/detail/kernel_path.hpp>
#include <cowire/async/detail/path_watches.hpp>
#include <cowire/async/detail/producer.hpp>
#include <cowire/async/transmitter.hpp>
#include <cowire/base/doorbell.hpp>
#include <cowire/base/forked.hpp>
#include <cowire/follow/route_service.hpp>
#include <cowire/ring/readable_fd.hpp>
#include <cowire/ring/ring_context.hpp>
#include <cowire/route/epoch.hpp>
#include <cowire/route/outer_flows.hpp>
#include <cowire/route/publisher.hpp>
#include <cowire/xdp/tx_core.hpp>
#include <cowire/xdp/umem.hpp>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

namespace cowire::detail {

class port_state;
class shared_producers;

class engine : public std::enable_shared_from_this<engine> {
 public:
  /// Maps, opens and binds; throws std::system_error. Nothing runs yet.
  explicit engine(transmitter_config config);
  ~engine();
  engine(const engine&) = delete;
  engine& operator=(const engine&) = delete;

  /// Starts the threads; returns when routes are published and sockets bound, or throws.
  void start();
  /// Any thread. On the control thread it only begins: another thread ends what the caller is part
  /// of.
  void stop() noexcept;

  // Any thread. -----------------------------------------------------------------------------------

  [[nodiscard]] std::shared_ptr<producer> producer_of_this_thread();
  [[nodiscard]] std::shared_ptr<producer> new_producer();
  /// `apart`: a source port that the kernel picks is its own, shared with no other sender.
  [[nodiscard]] std::shared_ptr<sender_state> make_sender(const sender_options& options,
                                                          producer& via, std::error_code& ec,
                                                          bool apart = false);
  /// The producers of all shared senders, made on first use.
  [[nodiscard]] std::shared_ptr<shared_producers> shared();
  /// A sender on each of them, with one socket and one error queue. Empty on failure.
  [[nodiscard]] std::vector<std::shared_ptr<sender_state>> make_shared_sender(
      const sender_options& options, const shared_producers& via, std::error_code& ec);
  /// What serves these datagrams, from now on.
  [[nodiscard]] path_events watch_path(path_question what);
  /// Completes when the fast path serves them, or will not.
  void resolve_path(path_question what, direct_completion<std::error_code, path_state> done);
  /// Has stop() close it. False where that is over.
  [[nodiscard]] bool add_port(const std::shared_ptr<port_state>& made);
  /// Where ports read that have no ring of the application's.
  [[nodiscard]] ring_context& control_ring() noexcept { return ring_; }
  /// Nobody uses a shared producer any more.
  void recycle_shared(producer* idle) noexcept;
  /// Has the control thread compile a class that a datagram has chosen, and publish it there.
  void compile_chosen(const std::shared_ptr<chosen_classes>& of, std::size_t number);
  /// The sender's handle is gone: forget it once its last frame has come back. Producer's thread.
  void retire(const sender_state& sender);
  [[nodiscard]] transmitter_stats stats() const;
  [[nodiscard]] std::shared_ptr<event_queue<route_change>> subscribe(std::size_t limit) {
    refuse_if_inherited();
    return routes_.subscribe(limit);
  }
  /// Whether the caller runs on the control thread, which must not wait for others that need it.
  [[nodiscard]] bool in_control_thread() const noexcept { return ring_.running_in_this_thread(); }
  [[nodiscard]] bool stopping() const noexcept { return stopping_.load(std::memory_order_acquire); }
  /// Nothing is sent any more: what is on the way now never ends.
  [[nodiscard]] bool closed() const noexcept { return closed_.load(std::memory_order_acquire); }
  [[nodiscard]] bool inherited() const noexcept { return born_.inherited(); }
  [[nodiscard]] bool ended() const noexcept { return ended_.load(std::memory_order_acquire); }
  [[nodiscard]] ring_context::executor_type control_executor() noexcept {
    return ring_.get_executor();
  }
  [[nodiscard]] const transmitter_config& config() const noexcept { return config_; }
  [[nodiscard]] const frame_memory& memory() const noexcept { return umem_.memory(); }

 private:
  /// Runs `work` on the thread of a ring and waits for it; what it throws comes out here.
  template <class Work>
  void on_thread_of(ring_context& ring, Work&& work);
  template <class Work>
  void on_control_thread(Work&& work);
  /// Throws error::forked.
  void refuse_if_inherited() const;
  void stop_now() noexcept;
  void stop_elsewhere() noexcept;
  [[nodiscard]] route_service_hooks hooks();
  void run(ring_context& ring) noexcept;
  void start_threads();
  void end_control_thread() noexcept;
  // The kernel path's thread.
  [[nodiscard]] awaitable<void> serve_cores();
  [[nodiscard]] bool cores_have_news() noexcept;
  void take_diverted();
  void take_diverted_of(tx_core& core);
  void tell_egress();
  void learn_path_mtu(const ip_address& destination, std::uint32_t mtu, std::function<void()> then);
  void close_kernel_path();
  // The control thread.
  [[nodiscard]] bool next_sample(flow& in_use);
  void wake_producers();
  void wait_until_drained() noexcept;
  void close_everything();
  void close_ports();
  void check_interfaces();
  [[nodiscard]] producer* add_producer(std::uint32_t frames);
  [[nodiscard]] std::vector<producer*> take_shared();
  void recycle(producer* idle) noexcept;
  [[nodiscard]] std::shared_ptr<sender_state> describe(const sender_options& options,
                                                       std::error_code& ec, bool apart = false);
  /// Makes them known to those who serve them: in one go.
  void enroll(std::span<const std::shared_ptr<sender_state>> states, const sender_options& options);
  /// All that were chosen meanwhile, with one publication.
  void compile_chosen_now();
  void settle_idle_producers();
  void add_watch(path_question what, std::shared_ptr<path_watches::queue> whom, bool until_settled);
  [[nodiscard]] std::shared_ptr<backing_socket> counted(std::shared_ptr<backing_socket> socket);
  [[nodiscard]] std::shared_ptr<backing_socket> socket_for(const sender_options& options,
                                                           std::error_code& ec, bool apart);

  const fork_mark born_;
  const transmitter_config config_;
  std::optional<declared_tunnels> tunnels_;
  ring_context ring_;         ///< The control thread's.
  ring_context kernel_ring_;  ///< The kernel path's thread's.
  umem umem_;
  epoch_domain epochs_;
  publisher tables_;
  doorbell bell_;  ///< The cores', for the kernel path's thread.
  outer_flows outer_flows_;
  route_service routes_;
  flow_tracker tracker_;
  path_watches paths_;
  core_set cores_;
  egress_set egress_;
  kernel_path kernel_;
  readable_fd bell_ready_;

  std::thread control_, kernel_thread_;
  std::atomic<bool> stopping_{false}, closed_{false}, ended_{false};
  bool closing_ = false;                  ///< Control thread.
  bool kernel_closed_ = false;            ///< Kernel path's thread: serve_cores() is to end.
  std::vector<producer*> heard_;          ///< Kernel path's thread: whose frames come back.
  std::atomic<bool> egress_told_{false};  ///< That it should look is on its way.
  std::once_flag stop_once_;

  /// Guards the three below, of which producers_ only the control thread changes.
  mutable std::mutex producers_mutex_;
  std::vector<std::unique_ptr<producer>> producers_;
  std::vector<producer*> idle_producers_;
  std::vector<producer*> idle_shared_;       ///< Guarded by it, too.
  std::condition_variable shared_returned_;  ///< Of idle_shared_.
  std::uint32_t shared_made_ = 0;            ///< Control thread.
  std::weak_ptr<shared_producers> shared_;   ///< Control thread.
  std::mutex sockets_mutex_;
  struct known_socket {
    std::weak_ptr<backing_socket> socket;
    std::shared_ptr<const std::atomic_flag> closed;  ///< backing_socket::closed()
  };
  std::map<source_key, known_socket> sockets_;  ///< Guarded by it.
  std::mutex ports_mutex_;
  std::vector<std::weak_ptr<port_state>> ports_;  ///< Guarded by it, as the next.
  bool ports_closed_ = false;
  std::uint32_t last_sender_id_ = 0;  ///< Control thread.
  std::size_t chosen_classes_ = 0;    ///< Control thread: of all senders.
  /// Control thread: chosen, and not compiled yet.
  std::vector<std::pair<std::shared_ptr<chosen_classes>, std::size_t>> being_chosen_;
  std::size_t next_sampled_core_ = 0;  ///< Control thread.
};

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// Keeps a snapshot of the output path fresh, on a thread of its own.
///
/// What the kernel announces (rulesets, IPsec policies, traffic control) is read again as soon as
/// it says so; single rules, elements and policies are taken from what it says
/// (netlink/nft_follower.hpp, xfrm_follower.hpp). While a ruleset is read that has replaced another
/// one, a snapshot says that it cannot be seen: nothing leaves by rules that are gone, nor by those
/// that were replaced before all else was read.
/// Everything is looked at once a second besides, because hooks, legacy tables, programs and the
/// defaults of traffic control announce nothing. Reading may wait for locks of the kernel's: that
/// is why the control thread does not do it.
///
/// Made, used and destroyed on the ring thread, or while the ring does not run. The thread is in
/// the network namespace, and its sockets count for the control group, of the one that makes it.
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/follow/detail/output_reader.hpp>
#include <cowire/follow/detail/socket_groups.hpp>
#include <cowire/follow/detail/stop_event.hpp>
#include <cowire/netlink/nft_follower.hpp>
#include <cowire/netlink/xfrm_follower.hpp>
#include <cowire/ring/event_queue.hpp>
#include <cowire/route/output_path.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <future>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace cowire::detail {

class output_service {
 public:
  using clock = std::chrono::steady_clock;
  using snapshot = std::shared_ptr<const output_snapshot>;
  struct change {
    snapshot state;
    clock::time_point heard_at;  ///< When the kernel announced it, or it was looked for.
  };
  using next_signature = void(std::error_code, change);

  /// Has the first snapshot read meanwhile. Throws std::system_error when no thread or event can be
  /// had; what cannot be read is said in the snapshot.
  explicit output_service(ring_context& ring, const output_layers& obeyed = {});
  /// Waits until the thread has ended.
  ~output_service();
  output_service(const output_service&) = delete;
  output_service& operator=(const output_service&) = delete;

  /// Waits until it has been read.
  [[nodiscard]] snapshot first() const { return first_.get(); }
  /// The next snapshot that differs from the one before; one call at a time. Errors: error::closed
  /// after stop().
  template <class Token>
  auto async_next(Token&& token) {
    return asio::async_initiate<Token, next_signature>(
        [this](auto handler) { event_queue<change>::start_next(changes_, std::move(handler)); },
        token);
  }
  void stop() noexcept;
  /// Has the programs of a socket's control group looked at as long as the result is held, whatever
  /// group the process is in; from soon after on, if it is another one than those known. Null: the
  /// group is not known (control_group_of()), or programs are ignored. Any thread.
  [[nodiscard]] socket_groups::membership look_at_group_of(int fd);

 private:
  /// What is to be looked at, beside rules that were announced.
  struct news {
    bool policies = false, traffic = false;
    bool all = false;
    clock::time_point heard_at;
  };
  void run();
  /// May publish one in between, which then is `last`.
  [[nodiscard]] snapshot next_after(snapshot& last, output_reader& reader, const news& what);
  void divert_while_read(snapshot& last, clock::time_point heard_at);
  /// Replaces rules by what was announced of them.
  [[nodiscard]] netlink::nft::follower::outcome follow_rules(shared_ruleset& rules);
  /// Follows what was announced while everything was read; true: then it has to be read again.
  [[nodiscard]] bool was_replaced_meanwhile(output_snapshot& read, output_reader& reader,
                                            const std::function<void()>& divert);
  void follow_policies(output_reader& reader);
  template <class Follower>
  void hear(const unique_fd& fd, Follower& to);

  const output_layers obeyed_;
  stop_event stop_event_;
  const unique_fd new_group_;  ///< An eventfd.
  socket_groups groups_;
  /// In the groups that announce; unset where the kernel has no such thing or it is ignored.
  const unique_fd rules_fd_, policies_fd_, traffic_fd_;
  std::atomic<bool> stopping_{false};
  const std::shared_ptr<event_queue<change>> changes_;
  // Of the service's thread:
  netlink::nft::follower rules_follower_;
  netlink::xfrm_follower policies_follower_;
  std::vector<std::byte> buffer_;
  std::promise<snapshot> first_read_;
  const std::shared_future<snapshot> first_ = first_read_.get_future().share();
  ipsec_state ipsec_;  ///< By all that was heard, whether somebody has taken it or not.
  std::thread thread_;
};

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
/// Drives monitor -> mirror -> compiler -> publisher on a ring: the kernel's routing state goes in,
/// published forwarding tables come out, and whoever watches hears of it.
///
/// Two netlink sockets of its own: one receives events all the time, one asks for dumps. What a
/// batch of notifications changed is published once, as soon as the batch is applied. A re-sync or
/// a re-dump check builds a shadow mirror meanwhile (shadow_mirror.hpp), in slices so short that
/// changes are published in between, and takes it over in a single publication. A check's shadow,
/// being newer than what the notifications have told so far, first goes along with the live mirror
/// until those that it was ahead of are read; what differs then is a bug.
///
/// What else belongs to following, each with sockets of its own, it owns and hears:
/// - truth_auditor asks the kernel about flows in use; its findings are acted upon here;
/// - path_exceptions has destinations asked about of which the kernel has learned something by
///   itself, which redirect_listener tells of, too;
/// - bond_reader has the order of bonds' slaves, device_order_reader that of devices;
/// - rule_question finds out whether rules count, where no message tells;
/// - neighbour_upkeep keeps the neighbours fresh that the fast path sends to;
/// - change_feed tells those who watch.
///
/// All calls on the ring thread, but where said otherwise. Created and destroyed while the ring
/// does not run, or on the ring thread. Network namespace: the creating thread's.
#pragma once

#include <cowire/base/unique_fd.hpp>
#include <cowire/follow/detail/bond_reader.hpp>
#include <cowire/follow/detail/change_feed.hpp>
#include <cowire/follow/detail/device_order.hpp>
#include <cowire/follow/detail/dump_reader.hpp>
#include <cowire/follow/detail/neighbour_upkeep.hpp>
#include <cowire/follow/detail/output_service.hpp>
#include <cowire/follow/detail/path_exceptions.hpp>
#include <cowire/follow/detail/question_socket.hpp>
#include <cowire/follow/detail/redirect_listener.hpp>
#include <cowire/follow/detail/rule_question.hpp>
#include <cowire/follow/detail/shadow_mirror.hpp>
#include <cowire/follow/detail/truth_auditor.hpp>
#include <cowire/follow/route_events.hpp>
#include <cowire/follow/route_service.hpp>
#include <cowire/netlink/monitor.hpp>
#include <cowire/ring/datagram_source.hpp>
#include <cowire/ring/event_queue.hpp>
#include <cowire/ring/ring_context.hpp>
#include <cowire/ring/ring_timer.hpp>
#include <cowire/route/compiler.hpp>
#include <cowire/route/epoch.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/publisher.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace cowire::detail {

class route_follower final : private truth_auditor::follower {
 public:
  using clock = std::chrono::steady_clock;

  route_follower(ring_context& ring, epoch_domain& epochs, publisher& tables,
                 route_service_options options);
  ~route_follower();
  route_follower(const route_follower&) = delete;
  route_follower& operator=(const route_follower&) = delete;

  // As route_service says.
  void start(route_service_hooks hooks, std::function<void()> ready);
  void stop();
  [[nodiscard]] cowire::compiler& compiler() noexcept { return compiler_; }
  [[nodiscard]] const mirror& state() const noexcept { return mirror_; }
  void publish();
  void resolve(const neighbour_key& wanted) { neighbours_.resolve(wanted); }
  void learn_path_mtu(const ip_address& destination, std::uint32_t mtu);
  [[nodiscard]] socket_groups::membership look_at_group_of(int fd) {
    return output_.look_at_group_of(fd);
  }
  [[nodiscard]] std::shared_ptr<event_queue<route_change>> subscribe(std::size_t limit) {
    return feed_.subscribe(limit);
  }
  [[nodiscard]] route_stats stats() const;

 private:
  [[nodiscard]] awaitable<void> follow_events();
  [[nodiscard]] awaitable<void> follow_replies();
  [[nodiscard]] awaitable<void> follow_output();
  void take_first_output();
  void take_output(output_service::snapshot snapshot);
  [[nodiscard]] awaitable<void> keep_time();
  [[nodiscard]] awaitable<void> follow_exceptions();
  [[nodiscard]] awaitable<void> follow_redirects(redirect_listener& heard);
  [[nodiscard]] awaitable<void> keep_working();

  void advance();
  void handle(netlink::monitor_event& event);
  void on(netlink::events::sync_started&);
  void on(netlink::events::object& e);
  void on(netlink::events::dump_restarted& e);
  void on(netlink::events::sync_complete&);
  void on(netlink::events::sync_abandoned& e);
  void on(netlink::events::change& e);
  void on(netlink::events::refresh_started& e);
  void on(netlink::events::refresh_complete& e);
  [[nodiscard]] bool may_ask();
  void work_on_shadow();
  void conclude_check();
  void take_over();
  void apply(const netlink::message& message, mirror_changes& changes, message_origin origin);
  void read_buckets_if_advised(const mirror_changes& changes);
  void note(mirror_changes&& changes);
  void settle_what_is_hidden();
  bool settle_bonds();
  void publish_known();
  void ask_about_rules(clock::time_point now);
  void count_settling_questions(std::uint64_t asked);
  void read_settings();
  void upkeep(clock::time_point now);
  void poke_neighbours();
  void send_requests();
  void begin_check();
  void send_exception_questions();
  void listen_to_redirects();
  void update_stats(std::uint64_t version, clock::time_point now);

  // truth_auditor::follower
  bool next_flow(flow& in_use) override;
  [[nodiscard]] bool is_followed() const noexcept override { return whole_ && monitor_.in_sync(); }
  [[nodiscard]] bool is_settled() const noexcept override;
  void act_on(const truth_audit::finding& finding) override;
  void read_anew() override { begin_check(); }
  [[nodiscard]] awaitable<void> let_others_run() override;
  void on_audited(const truth_audit_stats& stats) override;

  void log(log_severity severity, const std::string& text) const;

  ring_context& ring_;
  epoch_domain& epochs_;
  const route_service_options options_;
  const unique_fd event_fd_, request_fd_;
  datagram_source events_;
  dump_reader replies_;
  output_service output_;
  output_service::snapshot obeyed_output_;  ///< What the compiler was given last; null: nothing.
  ring_timer timer_;
  netlink::monitor monitor_;
  mirror mirror_;
  cowire::compiler compiler_;

  change_feed feed_;
  neighbour_upkeep neighbours_;
  bond_reader bonds_;
  device_order_reader device_order_;
  rule_question rule_question_;
  std::array<std::optional<redirect_listener>, 2> redirects_;  ///< By family; unset = not allowed.
  question_socket exception_questions_;
  path_exceptions exceptions_;
  std::optional<truth_auditor> auditor_;  ///< Unset = the rate is 0.

  shadow_mirror shadow_{mirror_};
  bool working_ = false;             ///< keep_working() runs.
  bool whole_ = false;               ///< The live mirror has lost nothing since it was complete.
  bool checking_ = false;            ///< The shadow was asked for by a check, not by a loss.
  bool live_has_caught_up_ = false;  ///< With the check's shadow; a tick later they are compared.
  bool in_refresh_ = false;
  /// Objects of the refresh that say something new, and what was announced meanwhile: for its end.
  std::vector<netlink::events::object> refreshed_;
  bool links_changed_ = false;
  bool stopped_ = false;
  route_service_hooks hooks_;
  std::function<void()> ready_;
  clock::time_point next_tick_, next_check_, next_poke_, next_settings_, next_rule_question_;
  std::set<std::uint32_t> known_devices_;
  mutable std::mutex mutex_;  ///< Guards stats_.
  route_stats stats_;
};

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/describe_change.hpp>
#include <cowire/follow/detail/describe_output.hpp>
#include <cowire/follow/detail/question_socket.hpp>
#include <cowire/follow/detail/route_follower.hpp>
#include <cowire/follow/detail/sysctls.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/request_socket.hpp>

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace cowire::detail {
namespace {

using namespace std::chrono_literals;

constexpr auto tick_period = 250ms;
constexpr auto poke_period = 1s;
/// Sysctls announce nothing: this is how long a change of one may go unnoticed.
constexpr auto settings_period = 1s;
/// How long changes wait at most for a slice of the shadow's work.
constexpr auto shadow_slice = 100us;
constexpr int event_buffer_bytes = 64 << 20;
constexpr std::size_t differences_logged_max = 8;
constexpr std::size_t exception_questions_per_turn = 64;

unique_fd open_events() {
  std::error_code ec;
  auto fd = netlink::open_event_socket(
      {.non_blocking = true, .receive_buffer_bytes = event_buffer_bytes}, ec);
  if (ec) throw_error(ec, "netlink event socket");
  return fd;
}

/// Takes as many messages off the front of `datagram` as are worked off in one slice.
std::span<const std::byte> next_slice(std::span<const std::byte>& datagram) noexcept {
  constexpr std::size_t enough = 8192;
  std::span<const std::byte> rest = datagram;
  std::error_code ec;
  while (datagram.size() - rest.size() < enough && netlink::next_envelope(rest, ec)) continue;
  if (ec) rest = {};  // The monitor finds it out.
  const auto slice = datagram.first(datagram.size() - rest.size());
  datagram = rest;
  return slice;
}

}  // namespace

route_follower::route_follower(ring_context& ring, epoch_domain& epochs, publisher& tables,
                               route_service_options options)
    : ring_(ring),
      epochs_(epochs),
      options_(std::move(options)),
      event_fd_(open_events()),
      request_fd_(open_questions()),
      events_(ring, event_fd_.get(), netlink_buffers(64)),
      replies_(ring, request_fd_.get()),
      output_(ring, options_.output),
      timer_(ring),
      compiler_(mirror_, epochs, tables,
                {.performance_mode = options_.performance_mode,
                 .restrictions = options_.restrictions,
                 .numbers = options_.numbers}),
      feed_(ring.get_executor()),
      neighbours_(mirror_),
      exception_questions_(ring),
      exceptions_(mirror_, [this] { return compiler_.distinct_classes(); }) {
  listen_to_redirects();
  if (options_.audit_rate != 0) {
    follower& self = *this;
    auditor_.emplace(ring, mirror_, self, options_.audit_rate);
  }
}

route_follower::~route_follower() = default;

void route_follower::start(route_service_hooks hooks, std::function<void()> ready) {
  hooks_ = std::move(hooks);
  ready_ = std::move(ready);
  read_settings();
  const auto now = clock::now();
  next_tick_ = now + tick_period;
  next_poke_ = now + poke_period;
  next_settings_ = now + settings_period;
  next_check_ =
      options_.update_interval > 0ms ? now + options_.update_interval : clock::time_point::max();
  co_spawn(ring_.get_executor(), follow_events(), rethrow);
  co_spawn(ring_.get_executor(), follow_replies(), rethrow);
  co_spawn(ring_.get_executor(), follow_output(), rethrow);
  monitor_.start();
  send_requests();
  co_spawn(ring_.get_executor(), keep_time(), rethrow);
  co_spawn(ring_.get_executor(), follow_exceptions(), rethrow);
  for (auto& heard : redirects_)
    if (heard) co_spawn(ring_.get_executor(), follow_redirects(*heard), rethrow);
  if (auditor_) auditor_->start();
}

void route_follower::stop() {
  if (std::exchange(stopped_, true)) return;
  events_.cancel();
  replies_.stop();
  output_.stop();
  timer_.cancel();
  exception_questions_.cancel();
  for (auto& heard : redirects_)
    if (heard) heard->cancel();
  if (auditor_) auditor_->stop();
  feed_.close();
}

awaitable<void> route_follower::follow_events() {
  while (!stopped_) {
    auto [ec, batch] = co_await events_.async_receive_some(as_tuple(use_awaitable));
    if (stopped_) co_return;
    const auto now = clock::now();
    if (ec) monitor_.on_overrun(now);
    for (const datagram& d : batch) {
      if (d.truncated())
        monitor_.on_overrun(now);
      else if (from_kernel(d))
        monitor_.on_event_datagram(d.payload(), now);
    }
    advance();
  }
}

awaitable<void> route_follower::follow_replies() {
  while (!stopped_) {
    const auto [ec, part] = co_await replies_.async_next(as_tuple(use_awaitable));
    if (stopped_ || ec) co_return;
    replies_.release();
    if (part.empty()) monitor_.on_reply_loss();
    for (std::span<const std::byte> rest = part; !rest.empty() && !stopped_;) {
      monitor_.on_reply_datagram(next_slice(rest), clock::now());
      advance();
      co_await let_others_run();
    }
    advance();
  }
}

awaitable<void> route_follower::follow_output() {
  while (!stopped_) {
    auto [ec, next] = co_await output_.async_next(as_tuple(use_awaitable));
    if (stopped_ || ec) co_return;
    take_first_output();
    if (hooks_.on_other_rules && obeyed_output_->netfilter != next.state->netfilter)
      hooks_.on_other_rules();
    std::vector<route_change> told(1);
    if (feed_.watched()) told = describe_output(*obeyed_output_, *next.state, mirror_);
    for (route_change& change : told) feed_.report(std::move(change), next.heard_at);
    take_output(std::move(next.state));
    publish();
  }
}

/// It has been read while routes were.
void route_follower::take_first_output() {
  if (!obeyed_output_) take_output(output_.first());
}

void route_follower::take_output(output_service::snapshot snapshot) {
  obeyed_output_ = std::move(snapshot);
  mirror_changes changes;
  mirror_.set_queues(devices_with_queue(*obeyed_output_), changes);
  compiler_.note(std::move(changes));
  compiler_.set_output(obeyed_output_);
}

/// The handlers of what had arrived by now run before the rest of the caller. Where nothing is in a
/// hurry (a re-dump check) the thread sleeps between two slices: one that never does is no longer
/// run at once when a change arrives, where other threads want the CPU.
awaitable<void> route_follower::let_others_run() {
  if (whole_ && !monitor_.refreshing()) {
    ring_timer pause(ring_);
    pause.expires_after(shadow_slice);
    co_await pause.async_wait(as_tuple(use_awaitable));
  }
  co_await asio::post(ring_.get_executor(), use_awaitable);
}

awaitable<void> route_follower::keep_time() {
  while (!stopped_) {
    const auto deadline = std::min({next_tick_, monitor_.deadline().value_or(next_tick_),
                                    std::max(exceptions_.deadline(), clock::now())});
    timer_.expires_at(deadline);
    co_await timer_.async_wait(as_tuple(use_awaitable));
    if (stopped_) co_return;
    const auto now = clock::now();
    monitor_.on_timer(now);
    mirror_changes changes;
    exceptions_.on_timer(now, changes);
    compiler_.note(std::move(changes));
    if (now >= next_tick_) upkeep(now);
    advance();
  }
}

void route_follower::advance() {
  while (auto event = monitor_.next_event()) handle(*event);
  publish();
  if (std::exchange(links_changed_, false) && hooks_.on_links) hooks_.on_links();
  send_requests();
  if (const auto deadline = monitor_.deadline(); deadline && *deadline < timer_.expiry())
    timer_.cancel();  // keep_time() looks again.
  send_exception_questions();
  if (shadow_.busy() && !std::exchange(working_, true))
    co_spawn(ring_.get_executor(), keep_working(), rethrow);
}

/// A refresh marks what it finds in the live mirror: no other may take its place meanwhile.
bool route_follower::may_ask() {
  if (shadow_.at() <= shadow_mirror::stage::filling || !monitor_.refreshing()) return true;
  if (!std::exchange(checking_, false)) return false;
  shadow_.abandon();  // Another check follows in time.
  return true;
}

void route_follower::send_requests() {
  if (!may_ask()) return;
  while (const auto request = monitor_.next_request(clock::now())) {
    // A failure shows as silence, which the monitor's deadline deals with.
    if (::send(request_fd_.get(), request->data(), request->size(), MSG_DONTWAIT) < 0)
      log(log_severity::warning, "netlink dump request: " + errno_name(errno));
  }
}

// Events
// --------------------------------------------------------------------------------------------

void route_follower::handle(netlink::monitor_event& event) {
  std::visit([this](auto& e) { on(e); }, event);
}

void route_follower::on(netlink::events::sync_started&) {
  in_refresh_ = false;
  shadow_.begin();
}

void route_follower::on(netlink::events::object& e) {
  if (!in_refresh_) return shadow_.on_object(std::move(e.value), e.from_event);
  if (e.from_event || !mirror_.confirm(e.value)) refreshed_.push_back(std::move(e));
}

void route_follower::on(netlink::events::dump_restarted& e) { shadow_.on_restart(e.scope); }

void route_follower::on(netlink::events::sync_complete&) {
  shadow_.complete();
  live_has_caught_up_ = false;
}

void route_follower::on(netlink::events::sync_abandoned& e) {
  // The storm goes on, but a whole shadow is nearer to the truth than what there is.
  if (!checking_ && shadow_.at() > shadow_mirror::stage::filling) {
    shadow_.catch_up();
    while (shadow_.at() != shadow_mirror::stage::none) work_on_shadow();
  }
  in_refresh_ = false;
  whole_ = false;
  checking_ = false;
  shadow_.abandon();
  if (auditor_) auditor_->forget_suspicions();
  log(log_severity::warning, "re-synchronising with the kernel: " + e.reason.message());
}

void route_follower::on(netlink::events::change& e) {
  mirror_changes changes;
  route_change told;
  if (feed_.watched())
    told = describe(e.value, mirror_);  // Before: a removed device has a name still.
  apply(e.value, changes, message_origin::notification);
  shadow_.follow(e.value, message_origin::notification);
  if (const auto* link = std::get_if<netlink::link>(&e.value)) {
    links_changed_ = true;
    // A change of a tunnel is announced with its former flags and MTU (net/ipv4/ip_tunnel.c emits
    // before ip_gre.c copies them).
    if (std::holds_alternative<netlink::tunnel_info>(link->info))
      monitor_.request_refresh({netlink::object_kind::link, {}});
  }
  for (const netlink::dump_scope& scope : changes.advised()) monitor_.request_refresh(scope);
  if (changes.empty()) return;
  note(std::move(changes));
  feed_.report(std::move(told), e.received_at);
}

void route_follower::apply(const netlink::message& message, mirror_changes& changes,
                           message_origin origin) {
  if (const auto* const link = std::get_if<netlink::link>(&message))
    static_cast<void>(compiler_.divert_before(*link));
  mirror_.apply(message, changes, origin);
}

void route_follower::on(netlink::events::refresh_started& e) {
  in_refresh_ = true;
  refreshed_.clear();
  mirror_.begin_refresh(e.scope.kind);
}

void route_follower::on(netlink::events::refresh_complete& e) {
  in_refresh_ = false;
  mirror_changes changes;
  for (const auto& [value, from_event] : std::exchange(refreshed_, {}))
    apply(value, changes, from_event ? message_origin::notification : message_origin::dump);
  mirror_.end_refresh(e.scope.kind, changes);
  read_buckets_if_advised(changes);
  note(std::move(changes));
}

void route_follower::read_buckets_if_advised(const mirror_changes& changes) {
  if (changes.buckets_advised) monitor_.request_refresh({netlink::object_kind::nexthop_bucket, {}});
}

// The shadow
// ----------------------------------------------------------------------------------------

awaitable<void> route_follower::keep_working() {
  while (!stopped_ && shadow_.busy()) {
    work_on_shadow();
    advance();
    co_await let_others_run();
  }
  working_ = false;
}

void route_follower::work_on_shadow() {
  using enum shadow_mirror::stage;
  shadow_.work(clock::now() + shadow_slice);
  if (shadow_.at() == whole && !checking_) {
    if (ready_) return take_over();  // The compiler knows nothing yet that could differ.
    shadow_.compare();
  }
  if (shadow_.at() != compared) return;
  if (std::exchange(checking_, false)) return conclude_check();
  take_over();
}

void route_follower::conclude_check() {
  const auto differences = shadow_.differences();
  {
    const std::lock_guard lock(mutex_);
    ++stats_.redump_checks;
    stats_.redump_differences += differences.size();
  }
  for (std::size_t i = 0; i < std::min(differences.size(), differences_logged_max); ++i)
    log(log_severity::warning, "re-dump check: no notification told of: " + differences[i]);
  if (!differences.empty()) return take_over();
  shadow_.abandon();
  rule_question_.forget();
  if (auditor_) auditor_->on_resynced();
}

void route_follower::take_over() {
  mirror_changes changes;
  shadow_.take_over(changes);
  bonds_.settle(mirror_, changes);  // All anew, and nothing is in a hurry.
  read_buckets_if_advised(changes);
  if (!std::exchange(whole_, true)) {
    const std::lock_guard lock(mutex_);
    ++stats_.resyncs;
  }
  read_settings();
  links_changed_ = true;
  device_order_.on_changes();
  note(std::move(changes));
  if (auditor_) auditor_->on_resynced();
  route_change change;
  change.what = route_change::kind::resynced;
  feed_.report(std::move(change), clock::now());
}

void route_follower::note(mirror_changes&& changes) {
  // Devices of whose settings nothing is known yet: created since they were read.
  const auto is_new = [this](std::uint32_t index) {
    return mirror_.find_device(index) != nullptr && !known_devices_.contains(index);
  };
  const bool new_devices = std::ranges::any_of(changes.links, is_new);
  if (changes.decisions_v4 || changes.decisions_v6 || !changes.links.empty())
    device_order_.on_changes();
  shadow_.note(changes);
  mirror_changes of_exceptions;
  exceptions_.on_changes(changes, clock::now(), of_exceptions);
  compiler_.note(std::move(changes));
  compiler_.note(std::move(of_exceptions));
  if (new_devices) read_settings();
}

void route_follower::read_settings() {
  known_devices_.clear();
  for (const auto& [index, device] : mirror_.devices()) known_devices_.insert(index);
  mirror_changes changes;
  mirror_.set_settings(read_mirror_settings(mirror_), changes);
  compiler_.note(std::move(changes));
}

void route_follower::learn_path_mtu(const ip_address& destination, std::uint32_t mtu) {
  mirror_changes changes;
  mirror_.set_path_mtu(destination, mtu, clock::time_point::max(), changes);
  compiler_.note(std::move(changes));
  exceptions_.ask(destination, clock::now());
  publish();
  send_exception_questions();
}

/// What messages do not tell, and dumps hide, is read once, before it is published for the first
/// time.
void route_follower::settle_what_is_hidden() {
  if (!whole_) return;
  mirror_changes changes;
  count_settling_questions(device_order_.settle(mirror_, clock::now(), changes));
  if (!changes.empty()) note(std::move(changes));
}

/// Whether anything has come of it. The kernel answers when nobody holds its lock on links, which
/// can take as long as whoever changes one likes.
bool route_follower::settle_bonds() {
  if (!whole_) return false;
  mirror_changes changes;
  bonds_.settle(mirror_, changes);
  if (changes.empty()) return false;
  note(std::move(changes));
  return true;
}

void route_follower::ask_about_rules(clock::time_point now) {
  if (!is_settled()) return rule_question_.forget();
  mirror_changes changes;
  const std::uint64_t asked = rule_question_.settle(mirror_, changes);
  next_rule_question_ = now + (asked != 0 ? tick_period : settings_period);
  count_settling_questions(asked);
  note(std::move(changes));
}

void route_follower::count_settling_questions(std::uint64_t asked) {
  if (asked == 0) return;
  const std::lock_guard lock(mutex_);
  stats_.settling_questions += asked;
}

// Publication
// ---------------------------------------------------------------------------------------

/// A bond that must be asked about is left to the kernel first, unless nothing was published yet.
void route_follower::publish() {
  settle_what_is_hidden();
  if (ready_) settle_bonds();
  publish_known();
  if (settle_bonds()) publish_known();
}

void route_follower::publish_known() {
  if (!compiler_.pending() && !feed_.oldest()) return;
  if (ready_ && !whole_) return;  // Nothing before the first whole state.
  take_first_output();
  static_cast<void>(compiler_.divert_until_compiled());
  const bool something_new = compiler_.pending();
  const publication done = compiler_.publish();
  const std::uint64_t version = done.version;
  const auto now = clock::now();
  update_stats(version, now);
  feed_.tell(version, now);
  if (something_new && hooks_.on_published) hooks_.on_published(done);
  if (ready_) std::exchange(ready_, nullptr)();
}

void route_follower::update_stats(std::uint64_t version, clock::time_point now) {
  const auto& counters = monitor_.counters();
  const auto compiled = compiler_.statistics();
  const std::lock_guard lock(mutex_);
  ++stats_.publications;
  stats_.version = version;
  if (const auto oldest = feed_.oldest()) {
    stats_.last_delay_ns = (now - *oldest).count();
    stats_.worst_delay_ns = std::max(stats_.worst_delay_ns, stats_.last_delay_ns);
  }
  stats_.messages = counters.events + counters.dumped_objects;
  stats_.malformed = counters.malformed;
  stats_.overruns = counters.overruns;
  stats_.interrupted_dumps = counters.interrupted_dumps;
  stats_.routes = mirror_.route_count();
  stats_.rules = mirror_.rules(ip_family::v4).size() + mirror_.rules(ip_family::v6).size();
  stats_.links = mirror_.devices().size();
  stats_.neighbours = mirror_.neighbour_count();
  stats_.hops = compiled.hops;
  stats_.path_lists = compiled.path_lists;
  stats_.class_tables = compiled.class_tables;
  stats_.table_bytes = compiled.bytes_live;
  stats_.waiting_bytes = compiled.bytes_waiting;
}

route_stats route_follower::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

// Upkeep
// --------------------------------------------------------------------------------------------

void route_follower::upkeep(clock::time_point now) {
  next_tick_ = now + tick_period;
  // Once the event socket was seen empty all that the dump is ahead of has been read; a tick later
  // it is applied.
  if (checking_ && shadow_.at() == shadow_mirror::stage::whole &&
      std::exchange(live_has_caught_up_, live_has_caught_up_ || is_settled()))
    shadow_.compare();
  mirror_changes changes;
  mirror_.expire(now, changes);
  note(std::move(changes));
  shadow_.likewise([now](mirror& shadow, mirror_changes& gone) { shadow.expire(now, gone); });
  epochs_.reclaim();
  if (now >= next_poke_) {
    next_poke_ = now + poke_period;
    poke_neighbours();
  }
  if (now >= next_settings_) {
    next_settings_ = now + settings_period;
    read_settings();
  }
  if (now >= next_rule_question_) ask_about_rules(now);
  if (now >= next_check_) {
    next_check_ = now + options_.update_interval;
    begin_check();
  }
  if (hooks_.on_tick) hooks_.on_tick();
}

/// Has everything read anew and compared, unless that is under way or due anyhow.
void route_follower::begin_check() {
  if (shadow_.at() != shadow_mirror::stage::none || !is_followed() || monitor_.refreshing()) return;
  checking_ = true;
  monitor_.request_sync();
}

void route_follower::poke_neighbours() {
  if (!hooks_.interface_in_use) return;
  const std::uint64_t pokes = neighbours_.poke(hooks_.interface_in_use);
  const std::lock_guard lock(mutex_);
  stats_.neighbour_pokes += pokes;
}

// Path exceptions
// -----------------------------------------------------------------------------------

void route_follower::listen_to_redirects() {
  for (const ip_family family : ip_families) {
    if (auto fd = open_redirects(family))
      redirects_[static_cast<std::size_t>(family)].emplace(ring_, family, std::move(fd));
    else
      log(log_severity::info,
          "ICMP redirects are left to the truth audit to find: raw socket: " + errno_name(errno));
  }
}

awaitable<void> route_follower::follow_redirects(redirect_listener& heard) {
  while (!stopped_) {
    const bool heard_any = co_await heard.receive([this](const ip_address& destination) {
      if (!stopped_) exceptions_.ask(destination, clock::now());
    });
    if (stopped_ || !heard_any) co_return;
    advance();
  }
}

awaitable<void> route_follower::follow_exceptions() {
  while (!stopped_) {
    // What an overrun lost is asked again in time.
    mirror_changes changes;
    co_await exception_questions_.receive([&](std::span<const std::byte> answer) {
      if (!stopped_) exceptions_.on_answer_datagram(answer, clock::now(), changes);
    });
    if (stopped_) co_return;
    compiler_.note(std::move(changes));
    advance();
  }
}

void route_follower::send_exception_questions() {
  for (std::size_t i = 0; i < exception_questions_per_turn; ++i) {
    const auto question = exceptions_.next_request();
    if (!question) break;
    exception_questions_.send(*question);  // One that cannot be sent is asked again in time.
  }
  if (exceptions_.deadline() < timer_.expiry()) timer_.cancel();  // keep_time() looks again.
}

// Truth audit
// ---------------------------------------------------------------------------------------

bool route_follower::next_flow(flow& in_use) {
  return hooks_.flow_in_use && hooks_.flow_in_use(in_use);
}

bool route_follower::is_settled() const noexcept {
  pollfd waiting{.fd = event_fd_.get(), .events = POLLIN, .revents = 0};
  return is_followed() && !monitor_.refreshing() && ::poll(&waiting, 1, 0) == 0;
}

void route_follower::act_on(const truth_audit::finding& finding) {
  using enum truth_audit::finding::kind;
  const std::string where = finding.where.to_string();
  switch (finding.what) {
    case divert:
      compiler_.quarantine(finding.where);
      log(log_severity::warning, "truth audit: " + finding.text + "; " + where +
                                     " is left to the kernel until they agree");
      break;
    case lift:
      compiler_.lift_quarantine(finding.where);
      log(log_severity::info, "truth audit: the kernel agrees about " + where + " again");
      break;
    case exception:
      log(log_severity::info, "truth audit: path exception: " + finding.text);
      if (finding.path_mtu != 0)
        learn_path_mtu(finding.where.address(), finding.path_mtu);
      else
        exceptions_.ask(finding.where.address(), clock::now());
      break;
  }
  publish();
}

void route_follower::on_audited(const truth_audit_stats& stats) {
  {
    const std::lock_guard lock(mutex_);
    stats_.truth = stats;
  }
  advance();
}

void route_follower::log(log_severity severity, const std::string& text) const {
  if (options_.log) options_.log(severity, text);
}

}  // namespace cowire::detail

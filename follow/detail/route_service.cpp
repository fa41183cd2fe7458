// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/follow/detail/route_service.hpp>
#include <cowire/follow/detail/sysctls.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/request_socket.hpp>
#include <cowire/route/detail/header_template.hpp>
#include <cowire/route/detail/resolve_by_search.hpp>

#include <linux/icmp.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

namespace cowire::detail {
namespace {

using namespace std::chrono_literals;

constexpr auto tick_period = 250ms;
constexpr auto poke_period = 1s;
/// Sysctls announce nothing: this is how long a change of one may go unnoticed.
constexpr auto settings_period = 1s;
/// Pokes a period at most: an idle subnet full of STALE entries must not become an ARP storm.
constexpr std::size_t pokes_max = 128;
/// How long changes wait at most for a slice of the shadow's work.
constexpr auto shadow_slice = 100us;
constexpr int event_buffer_bytes = 64 << 20;
constexpr int reply_buffer_bytes = 4 << 20;
constexpr std::size_t differences_logged_max = 8;
/// Questions of the truth audit asked in a row. The kernel answers while it is asked, taking its
/// routing lock each time: more would keep changes waiting that have to be published.
constexpr std::size_t questions_per_turn = 16;
constexpr std::size_t exception_questions_per_turn = 64;
/// Between two re-dumps because the kernel goes on to disagree: doubles from the first.
constexpr auto repair_delay_min = 1s, repair_delay_max = 60s;

unique_fd checked(unique_fd fd, std::error_code ec, const char* what) {
  if (ec) throw_error(ec, what);
  return fd;
}

unique_fd open_events() {
  std::error_code ec;
  auto fd = netlink::open_event_socket(
      {.non_blocking = true, .receive_buffer_bytes = event_buffer_bytes}, ec);
  return checked(std::move(fd), ec, "netlink event socket");
}

unique_fd open_requests() {
  std::error_code ec;
  auto fd = netlink::open_request_socket(
      {.non_blocking = true, .receive_buffer_bytes = reply_buffer_bytes}, ec);
  return checked(std::move(fd), ec, "netlink request socket");
}

/// A raw socket that hears of ICMP redirects and nothing else.
unique_fd open_redirects(ip_family family) {
  const bool v4 = family == ip_family::v4;
  unique_fd fd(::socket(v4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC,
                        v4 ? static_cast<int>(IPPROTO_ICMP) : static_cast<int>(IPPROTO_ICMPV6)));
  if (!fd) return fd;
  icmp_filter only_v4{~(1u << ICMP_REDIRECT)};
  icmp6_filter only_v6;
  ICMP6_FILTER_SETBLOCKALL(&only_v6);
  ICMP6_FILTER_SETPASS(ND_REDIRECT, &only_v6);
  const int done =
      v4 ? ::setsockopt(fd.get(), SOL_RAW, ICMP_FILTER, &only_v4, sizeof only_v4)
         : ::setsockopt(fd.get(), IPPROTO_ICMPV6, ICMP6_FILTER, &only_v6, sizeof only_v6);
  if (done != 0) fd.reset();
  return fd;
}

constexpr datagram_source::options buffers(std::size_t count) {
  datagram_source::options out;
  out.buffer_count = count;
  out.payload_capacity = netlink::datagram_size_max;
  out.name_capacity = 16;  // sockaddr_nl has 12 bytes.
  return out;
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

bool from_kernel(const datagram& d) noexcept {
  sockaddr_nl from{};
  if (d.source().size() < sizeof from) return false;
  std::memcpy(&from, d.source().data(), sizeof from);
  return from.nl_pid == 0;
}

void rethrow(std::exception_ptr error) {
  if (error) std::rethrow_exception(error);
}

/// The device whose socket sends what goes to a neighbour on `index`: itself or one below, of a
/// tunnel the one towards its other end. 0 = none.
std::uint32_t egress_below(const mirror& state, std::uint32_t index) {
  for (std::size_t level = 0; level <= outer_headers_max; ++level) {
    const egress_choice found = egress_of(state, index);
    if (!found.divert) return found.interface_index;
    const mirror::device* device = state.find_device(index);
    const auto* tunnel =
        device != nullptr ? std::get_if<netlink::tunnel_info>(&device->link.info) : nullptr;
    if (tunnel == nullptr) return 0;
    flow outer;
    outer.destination = tunnel->remote;
    index = resolve_by_search(state, outer, route_question::send).interface_index;
  }
  return 0;
}

std::int64_t unix_time_ns(route_service::clock::time_point t) noexcept {
  const auto ago = route_service::clock::now() - t;
  const auto then = std::chrono::system_clock::now() - ago;
  return std::chrono::duration_cast<std::chrono::nanoseconds>(then.time_since_epoch()).count();
}

}  // namespace

route_service::route_service(ring_context& ring, epoch_domain& epochs, publisher& tables,
                             route_service_options options)
    : ring_(ring),
      epochs_(epochs),
      options_(std::move(options)),
      event_fd_(open_events()),
      request_fd_(open_requests()),
      poke_fd_(open_requests()),
      events_(ring, event_fd_.get(), buffers(64)),
      replies_(ring, request_fd_.get()),
      output_(ring, options_.output),
      timer_(ring),
      compiler_(
          mirror_, epochs, tables,
          {.performance_mode = options_.performance_mode, .restrictions = options_.restrictions}),
      exception_fd_(open_requests()),
      exception_answers_(ring, exception_fd_.get(), buffers(16)),
      exceptions_(mirror_, [this] { return compiler_.distinct_classes(); }) {
  listen_to_redirects();
  compiler_.set_output(output_.first());
  if (options_.audit_rate != 0) truth_.emplace(ring, mirror_);
}

route_service::~route_service() = default;

route_service::truth_auditing::truth_auditing(ring_context& ring, const mirror& state)
    : fd(open_requests()), answers(ring, fd.get(), buffers(16)), timer(ring), audit(state) {}

route_service::listening::listening(ring_context& ring, unique_fd raw)
    : fd(std::move(raw)), redirects(ring, fd.get(), {.buffer_count = 32}) {}

void route_service::start(std::function<void()> ready) {
  ready_ = std::move(ready);
  read_settings();
  const auto now = clock::now();
  next_tick_ = now + tick_period;
  next_poke_ = now + poke_period;
  next_settings_ = now + settings_period;
  next_audit_ =
      options_.update_interval > 0ms ? now + options_.update_interval : clock::time_point::max();
  co_spawn(ring_.get_executor(), follow_events(), rethrow);
  co_spawn(ring_.get_executor(), follow_replies(), rethrow);
  co_spawn(ring_.get_executor(), follow_output(), rethrow);
  monitor_.start();
  send_requests();
  co_spawn(ring_.get_executor(), keep_time(), rethrow);
  co_spawn(ring_.get_executor(), follow_exceptions(), rethrow);
  for (const ip_family family : {ip_family::v4, ip_family::v6})
    if (redirects_[static_cast<std::size_t>(family)])
      co_spawn(ring_.get_executor(), follow_redirects(family), rethrow);
  if (!truth_) return;
  co_spawn(ring_.get_executor(), follow_answers(), rethrow);
  co_spawn(ring_.get_executor(), keep_auditing(), rethrow);
}

void route_service::stop() {
  if (std::exchange(stopped_, true)) return;
  events_.cancel();
  replies_.stop();
  output_.stop();
  timer_.cancel();
  exception_answers_.cancel();
  for (auto& heard : redirects_)
    if (heard) heard->redirects.cancel();
  if (truth_) {
    truth_->answers.cancel();
    truth_->timer.cancel();
  }
  const std::lock_guard lock(mutex_);
  for (const auto& weak : subscribers_)
    if (const auto queue = weak.lock()) queue->close();
}

awaitable<void> route_service::follow_events() {
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

awaitable<void> route_service::follow_replies() {
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

awaitable<void> route_service::follow_output() {
  while (!stopped_) {
    const auto [ec, snapshot] = co_await output_.async_next(as_tuple(use_awaitable));
    if (stopped_ || ec) co_return;
    compiler_.set_output(snapshot);
    publish();
  }
}

/// The handlers of what had arrived by now run before the rest of the caller. Where nothing is in a
/// hurry (an audit) the thread sleeps between two slices: one that never does is no longer run at
/// once when a change arrives, where other threads want the CPU.
awaitable<void> route_service::let_others_run() {
  if (whole_ && !monitor_.refreshing()) {
    ring_timer pause(ring_);
    pause.expires_after(shadow_slice);
    co_await pause.async_wait(as_tuple(use_awaitable));
  }
  co_await asio::post(ring_.get_executor(), use_awaitable);
}

awaitable<void> route_service::keep_time() {
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

void route_service::advance() {
  while (auto event = monitor_.next_event()) handle(*event);
  publish();
  if (std::exchange(links_changed_, false) && on_links) on_links();
  send_requests();
  if (const auto deadline = monitor_.deadline(); deadline && *deadline < timer_.expiry())
    timer_.cancel();  // keep_time() looks again.
  send_exception_questions();
  if (shadow_.busy() && !std::exchange(working_, true))
    co_spawn(ring_.get_executor(), keep_working(), rethrow);
}

/// A refresh marks what it finds in the live mirror: no other may take its place meanwhile.
bool route_service::may_ask() {
  if (shadow_.at() <= shadow_mirror::stage::filling || !monitor_.refreshing()) return true;
  if (!std::exchange(auditing_, false)) return false;
  shadow_.abandon();  // Another audit follows in time.
  return true;
}

void route_service::send_requests() {
  if (!may_ask()) return;
  while (const auto request = monitor_.next_request(clock::now())) {
    // A failure shows as silence, which the monitor's deadline deals with.
    if (::send(request_fd_.get(), request->data(), request->size(), MSG_DONTWAIT) < 0)
      log(log_severity::warning, "netlink dump request: " + errno_name(errno));
  }
}

// Events
// --------------------------------------------------------------------------------------------

void route_service::handle(netlink::monitor_event& event) {
  std::visit([this](auto& e) { on(e); }, event);
}

void route_service::on(netlink::events::sync_started&) {
  in_refresh_ = false;
  shadow_.begin();
}

void route_service::on(netlink::events::object& e) {
  if (!in_refresh_) return shadow_.on_object(std::move(e.value), e.from_event);
  if (e.from_event || !mirror_.confirm(e.value)) refreshed_.push_back(std::move(e));
}

void route_service::on(netlink::events::dump_restarted& e) { shadow_.on_restart(e.scope); }

void route_service::on(netlink::events::sync_complete&) {
  shadow_.complete();
  live_has_caught_up_ = false;
}

void route_service::on(netlink::events::sync_abandoned& e) {
  // The storm goes on, but a whole shadow is nearer to the truth than what there is.
  if (!auditing_ && shadow_.at() > shadow_mirror::stage::filling) {
    shadow_.catch_up();
    while (shadow_.at() != shadow_mirror::stage::none) work_on_shadow();
  }
  in_refresh_ = false;
  whole_ = false;
  auditing_ = false;
  shadow_.abandon();
  if (truth_) truth_->audit.forget_suspicions();
  log(log_severity::warning, "re-synchronising with the kernel: " + e.reason.message());
}

void route_service::on(netlink::events::change& e) {
  mirror_changes changes;
  route_change told;
  if (watched_) told = describe(e.value, mirror_);  // Before: a removed device has a name still.
  mirror_.apply(e.value, changes, message_origin::notification);
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
  report(std::move(told), e.received_at);
}

void route_service::on(netlink::events::refresh_started& e) {
  in_refresh_ = true;
  refreshed_.clear();
  mirror_.begin_refresh(e.scope.kind);
}

void route_service::on(netlink::events::refresh_complete& e) {
  in_refresh_ = false;
  mirror_changes changes;
  for (const auto& [value, from_event] : std::exchange(refreshed_, {}))
    mirror_.apply(value, changes, from_event ? message_origin::notification : message_origin::dump);
  mirror_.end_refresh(e.scope.kind, changes);
  read_buckets_if_advised(changes);
  note(std::move(changes));
}

void route_service::read_buckets_if_advised(const mirror_changes& changes) {
  if (changes.buckets_advised) monitor_.request_refresh({netlink::object_kind::nexthop_bucket, {}});
}

// The shadow
// ----------------------------------------------------------------------------------------

awaitable<void> route_service::keep_working() {
  while (!stopped_ && shadow_.busy()) {
    work_on_shadow();
    advance();
    co_await let_others_run();
  }
  working_ = false;
}

void route_service::work_on_shadow() {
  using enum shadow_mirror::stage;
  shadow_.work(clock::now() + shadow_slice);
  if (shadow_.at() == whole && !auditing_) {
    if (ready_) return take_over();  // The compiler knows nothing yet that could differ.
    shadow_.compare();
  }
  if (shadow_.at() != compared) return;
  if (std::exchange(auditing_, false)) return conclude_audit();
  take_over();
}

void route_service::conclude_audit() {
  const auto differences = shadow_.differences();
  {
    const std::lock_guard lock(mutex_);
    ++stats_.audits;
    stats_.audit_differences += differences.size();
  }
  for (std::size_t i = 0; i < std::min(differences.size(), differences_logged_max); ++i)
    log(log_severity::warning, "audit: no notification told of: " + differences[i]);
  if (!differences.empty()) return take_over();
  shadow_.abandon();
  if (truth_) truth_->audit.on_resynced();
}

void route_service::take_over() {
  mirror_changes changes;
  shadow_.take_over(changes);
  read_buckets_if_advised(changes);
  if (!std::exchange(whole_, true)) {
    const std::lock_guard lock(mutex_);
    ++stats_.resyncs;
  }
  read_settings();
  links_changed_ = true;
  note(std::move(changes));
  if (truth_) truth_->audit.on_resynced();
  route_change change;
  change.what = route_change::kind::resynced;
  report(std::move(change), clock::now());
}

void route_service::note(mirror_changes&& changes) {
  // Devices of whose settings nothing is known yet: created since they were read.
  const auto is_new = [this](std::uint32_t index) {
    return mirror_.find_device(index) != nullptr && !known_devices_.contains(index);
  };
  const bool new_devices = std::ranges::any_of(changes.links, is_new);
  shadow_.note(changes);
  mirror_changes of_exceptions;
  exceptions_.on_changes(changes, clock::now(), of_exceptions);
  compiler_.note(std::move(changes));
  compiler_.note(std::move(of_exceptions));
  if (new_devices) read_settings();
}

void route_service::read_settings() {
  known_devices_.clear();
  for (const auto& [index, device] : mirror_.devices()) known_devices_.insert(index);
  mirror_changes changes;
  mirror_.set_settings(read_mirror_settings(mirror_), changes);
  compiler_.note(std::move(changes));
}

void route_service::learn_path_mtu(const ip_address& destination, std::uint32_t mtu) {
  mirror_changes changes;
  mirror_.set_path_mtu(destination, mtu, clock::time_point::max(), changes);
  compiler_.note(std::move(changes));
  exceptions_.ask(destination, clock::now());
  publish();
  send_exception_questions();
}

// Publication
// ---------------------------------------------------------------------------------------

void route_service::report(route_change change, clock::time_point received_at) {
  if (!oldest_unpublished_) oldest_unpublished_ = received_at;
  if (watched_) unpublished_.emplace_back(std::move(change), received_at);
}

void route_service::publish() {
  if (!compiler_.pending() && !oldest_unpublished_) return;
  if (ready_ && !whole_) return;  // Nothing before the first whole state.
  const auto published = compiler_.publish();
  const auto now = clock::now();
  {
    const std::lock_guard lock(mutex_);
    ++stats_.publications;
    stats_.version = published.version;
    if (const auto oldest = std::exchange(oldest_unpublished_, std::nullopt)) {
      stats_.last_delay_ns = (now - *oldest).count();
      stats_.worst_delay_ns = std::max(stats_.worst_delay_ns, stats_.last_delay_ns);
    }
    std::erase_if(subscribers_, [](const auto& weak) { return weak.expired(); });
    watched_ = !subscribers_.empty();
    const std::int64_t publish_time_ns = unix_time_ns(now);
    for (auto& [change, received_at] : unpublished_) {
      change.version = published.version;
      change.event_time_ns = publish_time_ns - (now - received_at).count();
      change.publish_time_ns = publish_time_ns;
      for (const auto& weak : subscribers_) {
        const auto queue = weak.lock();
        if (!queue || queue->push(change) || queue->closed()) continue;
        route_change marker = change;
        marker = {};
        marker.what = route_change::kind::resynced;
        marker.version = change.version;
        marker.event_time_ns = change.event_time_ns;
        marker.publish_time_ns = change.publish_time_ns;
        queue->replace_all(std::move(marker));
      }
    }
  }
  unpublished_.clear();
  update_stats();
  if (ready_) std::exchange(ready_, nullptr)();
}

void route_service::update_stats() {
  const auto& counters = monitor_.counters();
  const auto compiled = compiler_.statistics();
  const std::lock_guard lock(mutex_);
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

std::shared_ptr<event_queue<route_change>> route_service::subscribe(std::size_t limit) {
  auto queue = std::make_shared<event_queue<route_change>>(ring_.get_executor(), limit);
  const std::lock_guard lock(mutex_);
  subscribers_.push_back(queue);
  watched_ = true;
  return queue;
}

route_stats route_service::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

// Upkeep
// --------------------------------------------------------------------------------------------

void route_service::upkeep(clock::time_point now) {
  next_tick_ = now + tick_period;
  // Once the event socket was seen empty all that the dump is ahead of has been read; a tick later
  // it is applied.
  if (auditing_ && shadow_.at() == shadow_mirror::stage::whole &&
      std::exchange(live_has_caught_up_, live_has_caught_up_ || is_settled()))
    shadow_.compare();
  mirror_changes changes;
  mirror_.expire(now, changes);
  note(std::move(changes));
  shadow_.likewise([now](mirror& shadow, mirror_changes& gone) { shadow.expire(now, gone); });
  epochs_.reclaim();
  if (now >= next_poke_) poke_neighbours(now);
  if (now >= next_settings_) {
    next_settings_ = now + settings_period;
    read_settings();
  }
  if (now >= next_audit_) {
    next_audit_ = now + options_.update_interval;
    begin_audit();
  }
  if (on_tick) on_tick();
}

/// Has everything read anew and compared, unless that is under way or due anyhow.
void route_service::begin_audit() {
  if (shadow_.at() != shadow_mirror::stage::none || !is_followed() || monitor_.refreshing()) return;
  auditing_ = true;
  monitor_.request_sync();
}

void route_service::poke_neighbours(clock::time_point now) {
  next_poke_ = now + poke_period;
  if (!interface_in_use) return;
  const auto stale = stale_neighbours_in_use();
  std::uint64_t pokes = 0;
  // That one was poked is not told, so the next ones have their turn.
  for (std::size_t i = 0; i < std::min(stale.size(), pokes_max); ++i) {
    const auto request = netlink::neighbour_poke(*stale[poke_turn_++ % stale.size()], 0);
    if (::send(poke_fd_.get(), request.data(), request.size(), MSG_DONTWAIT) >= 0) ++pokes;
  }
  char answer[4096];  // Only refusals are answered: the entry is gone, or we lack the privilege.
  while (::recv(poke_fd_.get(), answer, sizeof answer, MSG_DONTWAIT) > 0) continue;
  const std::lock_guard lock(mutex_);
  stats_.neighbour_pokes += pokes;
}

std::vector<const netlink::neighbour*> route_service::stale_neighbours_in_use() const {
  std::vector<const netlink::neighbour*> found;
  std::map<std::uint32_t, bool> used;
  mirror_.for_each_neighbour([&](const netlink::neighbour& n) {
    // STALE alone: the poke would strip a PERMANENT, NOARP or managed entry of that state.
    if (n.state != NUD_STALE || n.extended_flags != 0) return;
    const auto [device, fresh] = used.try_emplace(n.index);
    if (fresh) device->second = interface_in_use(egress_below(mirror_, n.index));
    if (device->second) found.push_back(&n);
  });
  return found;
}

// Path exceptions
// -----------------------------------------------------------------------------------

void route_service::listen_to_redirects() {
  for (const ip_family family : {ip_family::v4, ip_family::v6}) {
    auto fd = open_redirects(family);
    if (fd)
      redirects_[static_cast<std::size_t>(family)].emplace(ring_, std::move(fd));
    else
      log(log_severity::info,
          "ICMP redirects are left to the truth audit to find: raw socket: " + errno_name(errno));
  }
}

awaitable<void> route_service::follow_redirects(ip_family family) {
  datagram_source& heard = redirects_[static_cast<std::size_t>(family)]->redirects;
  while (!stopped_) {
    auto [ec, batch] = co_await heard.async_receive_some(as_tuple(use_awaitable));
    if (stopped_ || ec) co_return;
    for (const datagram& d : batch)
      if (const auto destination = redirected_destination(family, d.payload()))
        exceptions_.ask(*destination, clock::now());
    advance();
  }
}

awaitable<void> route_service::follow_exceptions() {
  while (!stopped_) {
    auto [ec, batch] = co_await exception_answers_.async_receive_some(as_tuple(use_awaitable));
    if (stopped_) co_return;
    // What an overrun lost is asked again in time.
    mirror_changes changes;
    for (const datagram& d : batch)
      if (!d.truncated() && from_kernel(d))
        exceptions_.on_answer_datagram(d.payload(), clock::now(), changes);
    compiler_.note(std::move(changes));
    advance();
  }
}

void route_service::send_exception_questions() {
  for (std::size_t i = 0; i < exception_questions_per_turn; ++i) {
    const auto question = exceptions_.next_request();
    if (!question) break;
    // One that cannot be sent is asked again in time.
    static_cast<void>(
        ::send(exception_fd_.get(), question->data(), question->size(), MSG_DONTWAIT));
  }
  if (exceptions_.deadline() < timer_.expiry()) timer_.cancel();  // keep_time() looks again.
}

// Truth audit
// ---------------------------------------------------------------------------------------

awaitable<void> route_service::follow_answers() {
  while (!stopped_) {
    auto [ec, batch] = co_await truth_->answers.async_receive_some(as_tuple(use_awaitable));
    if (stopped_) co_return;
    // What an overrun lost is given up in time.
    for (const datagram& d : batch)
      if (!d.truncated() && from_kernel(d))
        truth_->audit.on_answer_datagram(d.payload(), clock::now());
  }
}

awaitable<void> route_service::keep_auditing() {
  const auto turns_apart = std::chrono::nanoseconds(1s) * questions_per_turn / options_.audit_rate;
  const auto period = std::clamp<clock::duration>(turns_apart, std::chrono::milliseconds(1),
                                                  truth_audit::settle_time);
  while (!stopped_) {
    truth_->timer.expires_after(period);
    co_await truth_->timer.async_wait(as_tuple(use_awaitable));
    co_await let_others_run();
    if (stopped_) co_return;
    audit_turn(clock::now());
    advance();
  }
}

void route_service::audit_turn(clock::time_point now) {
  truth_audit& audit = truth_->audit;
  flow in_use;
  for (std::size_t i = 0; i < questions_per_turn && flow_in_use && flow_in_use(in_use); ++i)
    if (is_followed()) audit.ask(in_use);
  audit.on_timer(now, is_settled());
  while (const auto verdict = audit.next_verdict()) act_on(*verdict, now);
  if (audit.any_diverted() && now >= truth_->next_repair) {
    truth_->next_repair = now + truth_->repair_delay;
    truth_->repair_delay = std::min<clock::duration>(truth_->repair_delay * 2, repair_delay_max);
    begin_audit();
  }
  send_questions(now);
  const std::lock_guard lock(mutex_);
  stats_.truth = audit.stats();
}

/// Whether the mirror is believed to show all that the kernel has announced.
bool route_service::is_settled() const noexcept {
  pollfd waiting{.fd = event_fd_.get(), .events = POLLIN, .revents = 0};
  return is_followed() && !monitor_.refreshing() && ::poll(&waiting, 1, 0) == 0;
}

void route_service::act_on(const truth_audit::verdict& verdict, clock::time_point now) {
  using enum truth_audit::verdict::kind;
  const std::string where = verdict.where.to_string();
  switch (verdict.what) {
    case divert:
      compiler_.quarantine(verdict.where);
      log(log_severity::warning, "truth audit: " + verdict.text + "; " + where +
                                     " is left to the kernel until they agree");
      truth_->next_repair = now;
      truth_->repair_delay = repair_delay_min;
      break;
    case lift:
      compiler_.lift_quarantine(verdict.where);
      log(log_severity::info, "truth audit: the kernel agrees about " + where + " again");
      break;
    case exception:
      log(log_severity::info, "truth audit: path exception: " + verdict.text);
      if (verdict.path_mtu != 0)
        learn_path_mtu(verdict.where.address(), verdict.path_mtu);
      else
        exceptions_.ask(verdict.where.address(), now);
      break;
  }
  publish();
}

void route_service::send_questions(clock::time_point now) {
  for (std::size_t i = 0; i < questions_per_turn; ++i) {
    const auto question = truth_->audit.next_request(now);
    // One that cannot be sent is given up in time, as one that is not answered.
    if (!question || ::send(truth_->fd.get(), question->data(), question->size(), MSG_DONTWAIT) < 0)
      return;
  }
}

void route_service::log(log_severity severity, const std::string& text) const {
  if (options_.log) options_.log(severity, text);
}

}  // namespace cowire::detail

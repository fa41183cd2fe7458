// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/flow_tracker.hpp>
#include <cowire/async/transmitter_config.hpp>
#include <cowire/base/assert.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <utility>

namespace cowire::detail {
namespace {

static_assert(transmitter_limits::tracked_flows_max == tracked_flows::capacity_max);

using time_ms = flow_tracker::time_ms;
using netlink::conntrack_socket;

/// Entries looked at a second when there are many: each costs some 3 us. With few of them each is
/// looked at every tick.
constexpr time_ms checks_per_ms = 4;
/// Entries looked at before everything else on the ring has its turn.
constexpr std::size_t checks_per_turn = 256;
constexpr time_ms between_turns = 2;
/// Of what takes the kernel path and is not to be asked for, or has not come again.
constexpr time_ms forget_after = 10'000;
constexpr std::uint32_t pause_first_ms = 250, pause_max_ms = 30'000;
/// Of a flow that the kernel refuses: by a rule, as like as not.
constexpr std::uint32_t quarantine_first_ms = 1000;

time_ms now_ms() noexcept {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// A flow is not good any more when its entry has so much left: time for what left last to be
/// noticed, and for this thread to be late.
time_ms margin_of(time_ms life) noexcept { return std::clamp<time_ms>(life / 4, 250, 5000); }

time_ms tick_of(const udp_timeouts& timeouts) noexcept {
  const time_ms life = time_ms{std::min(timeouts.unreplied_s, timeouts.replied_s)} * 1000;
  return std::clamp<time_ms>(life / 16, 50, 1000);
}

/// That a timer has left where `life_s` have passed since `since` but for the rest, at least 1.
std::uint32_t rest_of(std::uint32_t life_s, time_ms since, time_ms now) noexcept {
  const time_ms left = time_ms{life_s} * 1000 - (now - since);
  return static_cast<std::uint32_t>(std::max<time_ms>((left + 999) / 1000, 1));
}

constexpr int unanswered = -1;

/// Datagrams that the kernel has had and the control thread has not heard of: of so many flows, if
/// each had one. While many routes are compiled more come together, of which most say the same.
constexpr std::size_t told_max = 4096;

}  // namespace

flow_tracker::flow_tracker(ring_context& ring, epoch_domain& epochs, const outer_flows& numbers,
                           std::uint32_t capacity, log_callback log)
    : ring_(ring),
      epochs_(epochs),
      log_(std::move(log)),
      kernel_(unavailable_),
      flows_(capacity),
      numbers_(numbers),
      answers_(conntrack_socket::batch_max),
      timer_(ring),
      told_(told_max) {}

tracking_stats flow_tracker::stats() const noexcept {
  tracking_stats out;
  out.flows = flows_.size();
  out.fast = static_cast<std::uint32_t>(fast_.get());
  out.capacity = flows_.capacity();
  out.asked = asked_.get();
  out.checked = checked_.get();
  out.refreshed = refreshed_.get();
  out.begun_anew = begun_anew_.get();
  out.refused = refused_.get();
  out.without_room = without_room_.get() + untold_.get();
  return out;
}

void flow_tracker::stop() {
  if (std::exchange(stopped_, true)) return;
  timer_.cancel();
  const time_ms now = now_ms();
  std::array<index, conntrack_socket::batch_max> owing;
  std::size_t count = 0;
  for (index at = 0; at < states_.size(); ++at) {
    if (!states_[at].live || !owes(at)) continue;
    owing[count++] = at;
    if (count == owing.size()) check(owing, now), count = 0;
  }
  check(std::span(owing).first(count), now);
}

// What the kernel path tells
// ------------------------------------------------------------------------------

void flow_tracker::tell(const tx_request& request, const tracked_way& way, int number,
                        std::uint32_t rules) {
  if (!told_.try_push({request, way, number, rules})) return untold_.add(1);
  if (taking_.exchange(true, std::memory_order_acq_rel)) return;  // It will find this one, too.
  asio::post(ring_.get_executor(), [this] { take_told(); });
}

void flow_tracker::take_told() {
  // Before it looks: what is told from now on has it called again.
  taking_.exchange(false, std::memory_order_acq_rel);
  told_datagram one;
  for (std::size_t i = 0; i < told_max && told_.try_pop(one); ++i)
    if (one.rules == rules_.load(std::memory_order_relaxed))
      on_kernel_datagram(one.request, one.way, one.number);
  settle();
}

void flow_tracker::on_kernel_datagram(const tx_request& request, const tracked_way& way,
                                      int number) {
  if (unavailable_) say_why(unavailable_.value());
  if (stopped_ || unavailable_) return;
  const time_ms now = now_ms();
  const tracked_key key = tracked_key::of(request, way);
  index at = flows_.find(key);
  if (at == tracked_flows::none) {
    at = flows_.insert(key);
    if (at == tracked_flows::none) return without_room_.add(1);
    if (at >= states_.size()) states_.resize(at + 1);
    states_[at] = {};
    states_[at].live = true;
    states_[at].look_at = now + forget_after;
    if (wakes_at_ == 0) arm(now + tick_of(timeouts_));
  }
  state& flow = states_[at];
  flow.datagram = now;
  if (number != 0)
    return refuse(at, number == EPERM ? divert_reason::netfilter : divert_reason::conntrack_new,
                  quarantine_first_ms, now);
  // A core had not heard of it yet, or looked while others made room.
  if (flow.at == phase::tracked && now < flows_[at].good_until.load(std::memory_order_relaxed))
    return;
  if (flow.queued || (flow.at == phase::refused && now < flow.retry_at)) return;
  flow.queued = true;
  queue_.push_back(at);
}

void flow_tracker::settle() {
  if (queue_.empty() || stopped_) return;
  const time_ms now = now_ms();
  read_timeouts(now);
  std::span<const index> rest = queue_;
  while (!rest.empty()) {
    const auto some = rest.first(std::min(rest.size(), conntrack_socket::batch_max));
    rest = rest.subspan(some.size());
    ask(some);
    asked_.add(some.size());
    for (std::size_t i = 0; i < some.size(); ++i) judge(some[i], answers_[i], now);
  }
  queue_.clear();
}

void flow_tracker::judge(index at, const netlink::conntrack_answer& answer, time_ms now) {
  state& flow = states_[at];
  flow.queued = false;
  if (!answer.entry) {
    if (answer.error_number > 0 && answer.error_number != ENOENT) say_why(answer.error_number);
    flow.seen_since = 0;
    return refuse(at, divert_reason::conntrack_new, pause_first_ms, now);
  }
  meet(at, *answer.entry, flow.datagram);
  if (const auto reason = obstacle_in(*answer.entry, tuple_of(at)))
    return refuse(at, *reason, pause_first_ms, now);
  if (!flow.clock.learn(*answer.entry->timeout_s, timeouts_))
    return refuse(at, divert_reason::conntrack_new, pause_first_ms, now);
  if (outer_state* const outer = outer_of(at)) {
    look_at_outer(*outer, true, now);
    if (outer->good_until == 0) return refuse(at, outer->reason, pause_first_ms, now);
  }
  flow.pause_ms = 0;
  become(at, phase::tracked);
  flow.life_s = flow.clock.life_s(answer.entry->status, now - flow.seen_since, timeouts_);
  keep(at, *answer.entry->timeout_s, now);
}

/// The flow has this entry; if another one than before, since then at least. A flow keeps its entry
/// when it begins anew, and the kernel takes it for a stream by the entry's age.
void flow_tracker::meet(index at, const netlink::conntrack_entry& entry, time_ms since) {
  state& flow = states_[at];
  if (flow.seen_since != 0 && flow.entry_id == entry.id) return;
  flow.entry_id = entry.id;
  flow.seen_since = since;
}

/// It stays on the kernel path for this reason, and is asked for again after a while, which is
/// longer each time.
void flow_tracker::refuse(index at, divert_reason reason, std::uint32_t first_pause_ms,
                          time_ms now) {
  state& flow = states_[at];
  flow.pause_ms = std::clamp(2 * flow.pause_ms, first_pause_ms, pause_max_ms);
  flow.retry_at = now + flow.pause_ms;
  flow.checked = 0;
  flow.look_at = flow.retry_at + forget_after;
  become(at, phase::refused);
  flows_[at].reason.store(reason, std::memory_order_relaxed);
  flows_[at].good_until.store(0, std::memory_order_relaxed);
  refused_.add(1);
}

/// Its next datagram takes the kernel path.
void flow_tracker::begin_anew(index at, time_ms now) {
  state& flow = states_[at];
  if (flow.at == phase::tracked) begun_anew_.add(1);
  flow.pause_ms = 0;
  flow.datagram = now;
  flow.look_at = now;  // It may owe its entry something.
  become(at, phase::asking);
  flows_[at].reason.store(divert_reason::conntrack_new, std::memory_order_relaxed);
  flows_[at].good_until.store(0, std::memory_order_relaxed);
}

/// Its entry has gone.
void flow_tracker::lose(index at, time_ms now) {
  begin_anew(at, now);
  states_[at].checked = states_[at].seen_since = 0;
}

void flow_tracker::begin_anew() {
  rules_.fetch_add(1, std::memory_order_release);  // Pairs with rules().
  const time_ms now = now_ms();
  for (index at = 0; at < states_.size(); ++at)
    if (states_[at].live) begin_anew(at, now);
}

/// Whether something left since the entry was looked at. What left in the very millisecond of that
/// look may have left after it.
bool flow_tracker::owes(index at) {
  const time_ms checked = states_[at].checked;
  return checked != 0 && flows_[at].last_sent.load(std::memory_order_relaxed) >= checked;
}

void flow_tracker::become(index at, phase next) {
  state& flow = states_[at];
  if (flow.at == phase::tracked) fast_.set(fast_.get() - 1);
  if (next == phase::tracked) fast_.add(1);
  flow.at = next;
}

// What time tells
// -----------------------------------------------------------------------------------------

flow_tracker::time_ms flow_tracker::serve(time_ms now) {
  read_timeouts(now);
  std::array<index, conntrack_socket::batch_max> due;
  std::size_t count = 0, left = checks_per_turn;
  for (; cursor_ < states_.size() && left != 0; ++cursor_) {
    if (!states_[cursor_].live || now < states_[cursor_].look_at) continue;
    if (!is_due(cursor_, now)) continue;
    due[count++] = cursor_;
    --left;
    if (count < due.size()) continue;
    check(due, now);
    count = 0;
  }
  check(std::span(due).first(count), now);
  flows_.retire_removed(epochs_);
  if (cursor_ < states_.size()) return now + between_turns;
  cursor_ = 0;
  return now + tick_of(timeouts_);
}

bool flow_tracker::is_due(index at, time_ms now) {
  state& flow = states_[at];
  if (flow.queued) return false;
  if (flow.at != phase::tracked) {
    if (owes(at)) return true;
    if (now >= std::max(flow.datagram, flow.retry_at) + forget_after) drop(at);
    flow.look_at = now + forget_after;
    return false;
  }
  const time_ms tick = tick_of(timeouts_);
  const time_ms last_call = flows_[at].good_until.load(std::memory_order_relaxed) - 2 * tick;
  if (owes(at)) {
    const time_ms next = std::min(flow.checked + check_interval(), last_call);
    flow.look_at = std::max(next, now + 1);
    return now >= next;
  }
  if (now >= flow.expires) drop(at);
  flow.look_at = std::max(now + tick, std::min(now + check_interval(), last_call));
  return false;
}

flow_tracker::time_ms flow_tracker::check_interval() const noexcept {
  return std::max(tick_of(timeouts_), static_cast<time_ms>(fast_.get()) / checks_per_ms);
}

void flow_tracker::check(std::span<const index> some, time_ms now) {
  if (some.empty()) return;
  for (const index at : some)
    if (outer_state* const outer = outer_of(at))
      outer->last_sent =
          std::max(outer->last_sent, flows_[at].last_sent.load(std::memory_order_relaxed));
  for (const index at : some)
    if (outer_state* const outer = outer_of(at)) look_at_outer(*outer, false, now);
  ask(some);
  checked_.add(some.size());
  std::array<index, conntrack_socket::batch_max> refreshed;
  std::array<std::uint32_t, conntrack_socket::batch_max> left_s;
  std::size_t count = 0;
  batch_.clear();
  first_sequence_ += conntrack_socket::batch_max;
  for (std::size_t i = 0; i < some.size(); ++i) {
    const auto& entry = answers_[i].entry;
    const outer_state* const outer = outer_of(some[i]);
    if (!entry || (outer != nullptr && outer->good_until == 0)) {
      lose(some[i], now);
      continue;
    }
    meet(some[i], *entry, now);
    if (const auto reason = obstacle_in(*entry, tuple_of(some[i]))) {
      if (states_[some[i]].at == phase::tracked) begun_anew_.add(1);
      refuse(some[i], *reason, pause_first_ms, now);
      continue;
    }
    const std::uint32_t wanted_s = wanted_left(some[i], *entry, now);
    if (wanted_s <= *entry->timeout_s) {
      keep(some[i], *entry->timeout_s, now);
      continue;
    }
    batch_.refresh(tuple_of(some[i]), wanted_s,
                   first_sequence_ + static_cast<std::uint32_t>(count));
    left_s[count] = wanted_s;
    refreshed[count++] = some[i];
  }
  std::array<bool, conntrack_socket::batch_max> failed{};
  std::error_code ec;
  kernel_.exchange(
      batch_,
      [&](const netlink::conntrack_answer& answer) {
        const std::uint32_t place = answer.sequence - first_sequence_;
        if (place < count && answer.error_number != 0) failed[place] = true;
      },
      ec);
  for (std::size_t i = 0; i < count; ++i) {
    if (ec || failed[i]) {
      lose(refreshed[i], now);
    } else {
      refreshed_.add(1);
      keep(refreshed[i], left_s[i], now);
    }
  }
}

/// Seconds that the entry would have left had the kernel seen the flow's last datagram.
std::uint32_t flow_tracker::wanted_left(index at, const netlink::conntrack_entry& entry,
                                        time_ms now) {
  state& flow = states_[at];
  flow.life_s = flow.clock.life_s(entry.status, now - flow.seen_since, timeouts_);
  return rest_of(flow.life_s, flows_[at].last_sent.load(std::memory_order_relaxed), now);
}

/// The entry lives for so long from now on.
void flow_tracker::keep(index at, std::uint32_t left_s, time_ms now) {
  state& flow = states_[at];
  flow.checked = now;
  if (flow.at != phase::tracked) {  // It began anew, and owes no more, unless a core was late.
    flow.look_at = now + tick_of(timeouts_);
    return;
  }
  flow.expires = now + time_ms{left_s} * 1000;
  time_ms good_until = flow.expires - margin_of(time_ms{flow.life_s} * 1000);
  if (const outer_state* const outer = outer_of(at))
    good_until = std::min(good_until, outer->good_until);
  flow.look_at = std::min(now + check_interval(), good_until - 2 * tick_of(timeouts_));
  flows_[at].good_until.store(good_until, std::memory_order_relaxed);
}

/// Null: no tunnel carries the flow, or its outer headers need no entry.
flow_tracker::outer_state* flow_tracker::outer_of(index at) {
  const std::uint8_t number = flows_[at].key.outer_flow();
  if (number == outer_flows::none) return nullptr;
  if (number >= outers_.size()) outers_.resize(number + std::size_t{1});
  outer_state& outer = outers_[number];
  if (outer.tuples.empty())
    for (const outer_flow& header : numbers_.of(number))
      outer.tuples.push_back({header.source, header.destination, 0, 0, header.protocol});
  return &outer;
}

/// Once for all flows that are looked at now. `kernel_sent`: it has just seen a datagram with these
/// headers.
void flow_tracker::look_at_outer(outer_state& outer, bool kernel_sent, time_ms now) {
  if (outer.looked_at == now) return;
  outer.looked_at = now;
  outer.good_until = 0;
  outer.reason = divert_reason::conntrack_new;
  std::array<netlink::conntrack_answer, outer_headers_max> answers;
  ask(outer.tuples, answers);
  time_ms good_until = std::numeric_limits<time_ms>::max();
  for (std::size_t i = 0; i < outer.tuples.size(); ++i) {
    const netlink::conntrack_tuple& tuple = outer.tuples[i];
    const auto& entry = answers[i].entry;
    if (!entry) return;
    if (const auto reason = obstacle_in(*entry, tuple)) {
      outer.reason = *reason;
      return;
    }
    const udp_timeouts& usual = outer_timeouts_.of(tuple.protocol);
    if (kernel_sent && !outer.clocks[i].learn(*entry->timeout_s, usual)) return;
    good_until = std::min(good_until, keep_outer(outer, i, *entry, now));
    if (good_until == 0) return;
  }
  outer.good_until = good_until;
}

/// Sets the entry's timer as the last datagram would have; until when the entry can be relied on, 0
/// = it has gone.
flow_tracker::time_ms flow_tracker::keep_outer(const outer_state& outer, std::size_t which,
                                               const netlink::conntrack_entry& entry, time_ms now) {
  const udp_timeouts& usual = outer_timeouts_.of(outer.tuples[which].protocol);
  const std::uint32_t life_s =
      outer.clocks[which].life_s(entry.status, entry_clock::any_age_ms, usual);
  const std::uint32_t wanted_s = outer.last_sent == 0 ? 0 : rest_of(life_s, outer.last_sent, now);
  std::uint32_t left_s = *entry.timeout_s;
  if (wanted_s > left_s) {
    bool failed = false;
    std::error_code ec;
    batch_.clear();
    batch_.refresh(outer.tuples[which], wanted_s, first_sequence_ += conntrack_socket::batch_max);
    kernel_.exchange(
        batch_,
        [&](const netlink::conntrack_answer& answer) { failed |= answer.error_number != 0; }, ec);
    if (ec || failed) return 0;
    left_s = wanted_s;
  }
  return now + time_ms{left_s} * 1000 - margin_of(time_ms{life_s} * 1000);
}

void flow_tracker::drop(index at) {
  become(at, phase::asking);
  states_[at].live = false;
  flows_.remove(at);
}

// The kernel
// ----------------------------------------------------------------------------------------------

/// Fills answers_, by place.
void flow_tracker::ask(std::span<const index> some) {
  std::array<netlink::conntrack_tuple, conntrack_socket::batch_max> tuples;
  COWIRE_ASSERT(some.size() <= tuples.size());
  std::ranges::transform(some, tuples.begin(), [this](index at) { return tuple_of(at); });
  ask(std::span(tuples).first(some.size()), answers_);
}

/// By place; one without entry where nothing was answered.
void flow_tracker::ask(std::span<const netlink::conntrack_tuple> tuples,
                       std::span<netlink::conntrack_answer> answers) {
  batch_.clear();
  first_sequence_ += conntrack_socket::batch_max;
  for (std::size_t i = 0; i < tuples.size(); ++i) {
    answers[i] = {0, unanswered, std::nullopt};
    batch_.get(tuples[i], first_sequence_ + static_cast<std::uint32_t>(i));
  }
  std::error_code ec;  // Whose answer is lost has none.
  kernel_.exchange(
      batch_,
      [&](const netlink::conntrack_answer& answer) {
        const std::uint32_t place = answer.sequence - first_sequence_;
        if (place < tuples.size()) answers[place] = answer;
      },
      ec);
}

netlink::conntrack_tuple flow_tracker::tuple_of(index at) {
  const tracked_key& key = flows_[at].key;
  return {key.source(), key.destination(), key.source_port().host(), key.destination_port().host(),
          17};
}

void flow_tracker::say_why(int number) {
  if (std::exchange(said_why_, true) || !log_) return;
  log_(log_severity::warning,
       "connection tracking does not answer (" + errno_code(number).message() +
           "): the flows that it tracks take the kernel path; load nf_conntrack_netlink, and see "
           "`cowire doctor` about privileges");
}

void flow_tracker::read_timeouts(time_ms now) {
  constexpr time_ms period = 1000;
  if (timeouts_read_ != 0 && now < timeouts_read_ + period) return;
  timeouts_read_ = now;
  timeouts_ = udp_timeouts::read();
  if (!outers_.empty()) outer_timeouts_ = outer_timeouts::read();
}

void flow_tracker::arm(time_ms due) {
  wakes_at_ = due;
  timer_.expires_at(std::chrono::steady_clock::time_point(std::chrono::milliseconds(due)));
  timer_.async_wait([this](std::error_code ec) {
    if (ec || stopped_) return;
    const time_ms next = serve(now_ms());
    if (flows_.size() == 0)
      wakes_at_ = 0;
    else
      arm(next);
  });
}

}  // namespace cowire::detail

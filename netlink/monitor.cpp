// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/base/error.hpp>
#include <cowire/netlink/codec.hpp>
#include <cowire/netlink/dump_plan.hpp>
#include <cowire/netlink/monitor.hpp>

#include <linux/netlink.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace cowire::netlink {
namespace {

// Whether applying `value` can undo or be undone by a dump of `scope`. The interface does not
// count: a route may be replaced by one over another interface.
bool concerns(const dump_scope& scope, const message& value) {
  return kind_of(value) == scope.kind && matches({scope.filter.family, 0, 0}, value);
}

}  // namespace

monitor::monitor(const monitor_options& options) : options_(options) {}

void monitor::start() {
  outstanding_.reset();
  in_sync_ = false;
  setbacks_ = 0;
  begin_sync();
}

void monitor::begin_sync() {
  phase_ = phase::syncing;
  step_ = 0;
  attempts_ = 0;
  held_events_.clear();
  refreshes_.clear();  // This sync reads it all.
  refresh_running_ = false;
  if (outstanding_) outstanding_->abandoned = true;
  ++counters_.syncs_started;
  events_.emplace_back(events::sync_started{});
}

void monitor::give_up(time_point now, std::error_code reason) {
  COWIRE_DEBUG_ASSERT(phase_ == phase::syncing || phase_ == phase::live);
  if (phase_ == phase::syncing) ++counters_.syncs_abandoned;
  if (phase_ == phase::live && now - live_since_ > options_.back_off_max) setbacks_ = 0;
  in_sync_ = false;
  held_events_.clear();
  refreshes_.clear();
  refresh_running_ = false;
  if (outstanding_) outstanding_->abandoned = true;
  events_.emplace_back(events::sync_abandoned{reason});

  std::chrono::milliseconds delay{0};
  if (setbacks_ > 0) {
    const auto doublings = std::min(setbacks_ - 1, 20u);  // Keeps the shift defined.
    delay = std::min(options_.back_off_min * (1u << doublings), options_.back_off_max);
  }
  ++setbacks_;
  phase_ = phase::backing_off;
  resume_at_ = now + delay;
  if (delay == delay.zero()) begin_sync();
}

const dump_scope* monitor::next_scope() {
  if (phase_ == phase::syncing) return &dump_plan[step_];
  if (phase_ != phase::live || refreshes_.empty()) return nullptr;
  refresh_running_ = true;
  return &refreshes_.front();
}

std::optional<std::vector<std::byte>> monitor::next_request(time_point now) {
  if (outstanding_) return std::nullopt;
  const dump_scope* scope = next_scope();
  if (scope == nullptr) return std::nullopt;
  outstanding_ =
      outstanding_dump{*scope, ++sequence_, now + options_.reply_timeout, false, false, {}};
  if (refresh_running_) events_.emplace_back(events::refresh_started{*scope});
  return dump_request(scope->kind, scope->filter, sequence_);
}

void monitor::on_reply_datagram(std::span<const std::byte> datagram, time_point now) {
  ++counters_.datagrams;
  std::error_code ec;
  while (const auto reply = next_envelope(datagram, ec)) {
    if (!outstanding_ || reply->sequence != outstanding_->sequence) {
      ++counters_.unrelated_replies;
      continue;
    }
    outstanding_->give_up_at = now + options_.reply_timeout;
    outstanding_->interrupted |= reply->dump_interrupted();
    std::error_code decode_error;
    if (const auto end = decode_completion(*reply, decode_error)) {
      finish_dump(now, end->error_number);
      continue;
    }
    std::optional<message> value;
    if (!decode_error) value = decode(reply->bytes, decode_error);
    if (decode_error) {
      ++counters_.malformed;
      outstanding_->failure = decode_error;
    }
    if (value) on_dumped_object(std::move(*value));
  }
  if (!ec) return;
  ++counters_.malformed;
  if (outstanding_) outstanding_->failure = ec;
}

void monitor::on_dumped_object(message&& value) {
  const auto& dump = *outstanding_;
  if (dump.abandoned || dump.interrupted || dump.failure) return;  // Void already.
  if (kind_of(value) != dump.scope.kind || !matches(dump.scope.filter, value) ||
      !is_forwarding_state(value))
    return;
  ++counters_.dumped_objects;
  events_.emplace_back(std::in_place_type<events::object>, std::move(value), false);
}

void monitor::finish_dump(time_point now, int error_number) {
  const outstanding_dump dump = *std::exchange(outstanding_, std::nullopt);
  if (dump.interrupted) ++counters_.interrupted_dumps;
  if (dump.abandoned) return;
  if (dump.failure) return give_up(now, dump.failure);
  if (error_number != 0 && !means_none(error_number)) return give_up(now, errno_code(error_number));
  if (dump.interrupted) return repeat_dump(now, dump.scope);
  attempts_ = 0;
  if (refresh_running_) return complete_refresh();
  if (++step_ == dump_plan.size()) complete_sync(now);
}

void monitor::repeat_dump(time_point now, const dump_scope& scope) {
  if (++attempts_ >= options_.dump_attempts_max) return give_up(now, error::interrupted_dump);
  if (!refresh_running_) events_.emplace_back(events::dump_restarted{scope});
}

void monitor::replay_held_events() {
  for (message& value : held_events_) events_.emplace_back(events::object{std::move(value), true});
  held_events_.clear();
}

void monitor::complete_sync(time_point now) {
  replay_held_events();
  events_.emplace_back(events::sync_complete{});
  ++counters_.syncs_completed;
  phase_ = phase::live;
  live_since_ = now;
  has_live_world_ = true;
  in_sync_ = true;
}

void monitor::complete_refresh() {
  replay_held_events();
  events_.emplace_back(events::refresh_complete{refreshes_.front()});
  ++counters_.refreshes_completed;
  refreshes_.pop_front();
  refresh_running_ = false;
}

void monitor::on_event_datagram(std::span<const std::byte> datagram, time_point now) {
  ++counters_.datagrams;
  std::error_code ec;
  while (const auto event = next_envelope(datagram, ec)) {
    if (auto value = decode(event->bytes, ec); value && is_forwarding_state(*value))
      on_event(std::move(*value), now);
    if (ec) break;
  }
  if (!ec) return;
  // What it said is lost, so the live world may be wrong.
  ++counters_.malformed;
  if (phase_ == phase::syncing || phase_ == phase::live) give_up(now, ec);
}

bool monitor::must_hold(const message& value) const {
  return phase_ == phase::syncing || (refresh_running_ && concerns(refreshes_.front(), value));
}

void monitor::on_event(message value, time_point now) {
  ++counters_.events;
  if (must_hold(value)) {
    if (held_events_.size() == options_.held_events_max)
      on_overrun(now);
    else
      held_events_.push_back(value);
  }
  if (has_live_world_) events_.emplace_back(events::change{std::move(value), now});
}

void monitor::on_overrun(time_point now) {
  ++counters_.overruns;
  if (phase_ == phase::syncing || phase_ == phase::live) give_up(now, error::overrun);
}

void monitor::on_reply_loss() {
  if (outstanding_) outstanding_->failure = error::truncated;
}

void monitor::on_timer(time_point now) {
  if (outstanding_ && now >= outstanding_->give_up_at) {
    const bool awaited = !outstanding_->abandoned;
    outstanding_.reset();
    if (awaited) give_up(now, errno_code(ETIMEDOUT));
  }
  if (phase_ == phase::backing_off && now >= resume_at_) begin_sync();
}

std::optional<monitor::time_point> monitor::deadline() const noexcept {
  std::optional<time_point> earliest;
  if (outstanding_) earliest = outstanding_->give_up_at;
  if (phase_ == phase::backing_off) earliest = std::min(earliest.value_or(resume_at_), resume_at_);
  return earliest;
}

void monitor::request_refresh(const dump_scope& scope) {
  if (phase_ != phase::syncing && phase_ != phase::live) return;
  // A running dump may have passed the place of the change already, so that one does not count.
  const auto waiting = refreshes_.begin() + (refresh_running_ ? 1 : 0);
  if (std::find(waiting, refreshes_.end(), scope) != refreshes_.end()) return;
  if (refreshes_.size() < options_.pending_refreshes_max) {
    refreshes_.push_back(scope);
    return;
  }
  const dump_scope wide{scope.kind, {scope.filter.family, 0, 0}};
  refreshes_.erase(std::remove_if(waiting, refreshes_.end(),
                                  [&](const dump_scope& other) {
                                    return other.kind == wide.kind &&
                                           other.filter.family == wide.filter.family;
                                  }),
                   refreshes_.end());
  refreshes_.push_back(wide);
}

void monitor::request_sync() {
  if (phase_ == phase::live) begin_sync();
}

std::optional<monitor_event> monitor::next_event() {
  if (events_.empty()) return std::nullopt;
  std::optional<monitor_event> event(std::move(events_.front()));
  events_.pop_front();
  return event;
}

}  // namespace cowire::netlink

// SPDX-License-Identifier: Apache-2.0
#include <cowire/base/assert.hpp>
#include <cowire/follow/detail/shadow_mirror.hpp>

#include <cstddef>

namespace cowire::detail {
namespace {

/// Between two looks at the clock: some 20 us.
constexpr std::size_t items_per_step = 64;

}  // namespace

void shadow_mirror::work(clock::time_point until) {
  while (step() && clock::now() < until) continue;
}

/// Does a little of what there is to do; false if there was nothing.
bool shadow_mirror::step() {
  if (stage_ == stage::catching_up) {
    for (std::size_t i = 0; i < items_per_step && !backlog_.empty(); ++i) {
      mirror_changes changes;  // Nothing was compared yet: what there is to redo counts alone.
      shadow_->apply(backlog_.front().first, changes, backlog_.front().second);
      buckets_advised_ |= changes.buckets_advised;
      backlog_.pop_front();
    }
    if (backlog_.empty()) stage_ = stage::whole;
    return true;
  }
  if (stage_ == stage::comparing) {
    if (!comparison_->advance(items_per_step)) stage_ = stage::compared;
    return true;
  }
  if (discarded_.empty()) return false;
  if (!discarded_.back()->dismantle(items_per_step)) discarded_.pop_back();
  return true;
}

void shadow_mirror::begin() {
  abandon();
  shadow_ = std::make_unique<mirror>();
  buckets_advised_ = false;
  stage_ = stage::filling;
}

void shadow_mirror::on_object(netlink::message&& value, bool from_event) {
  if (stage_ != stage::filling) return;
  if (from_event) {
    backlog_.emplace_back(std::move(value), message_origin::notification);
    return;
  }
  mirror_changes ignored;
  shadow_->apply(value, ignored, message_origin::dump);
}

void shadow_mirror::on_restart(const netlink::dump_scope& scope) {
  if (stage_ == stage::filling) shadow_->forget(scope.kind, scope.filter.family);
}

void shadow_mirror::complete() {
  COWIRE_ASSERT(stage_ == stage::filling);
  stage_ = stage::catching_up;
}

void shadow_mirror::abandon() {
  if (stage_ != stage::none) discard();
}

void shadow_mirror::follow(const netlink::message& change, message_origin origin) {
  if (stage_ == stage::catching_up)
    backlog_.emplace_back(change, origin);
  else
    likewise(
        [&](mirror& shadow, mirror_changes& changes) { shadow.apply(change, changes, origin); });
}

void shadow_mirror::note(const mirror_changes& changes) {
  if (!comparison_) return;
  comparison_->note(changes);
  stage_ = stage::comparing;
}

void shadow_mirror::catch_up() {
  while (stage_ == stage::catching_up) static_cast<void>(step());
}

void shadow_mirror::compare() {
  COWIRE_ASSERT(stage_ == stage::whole);
  comparison_.emplace(live_, *shadow_);
  stage_ = stage::comparing;
}

void shadow_mirror::take_over(mirror_changes& changes) {
  COWIRE_ASSERT(stage_ == stage::whole || stage_ == stage::compared);
  if (comparison_) comparison_->add_to(changes);
  changes.buckets_advised |= buckets_advised_;
  live_.exchange_with(*shadow_);
  discard();
}

void shadow_mirror::discard() noexcept {
  comparison_.reset();
  backlog_.clear();
  discarded_.push_back(std::move(shadow_));
  stage_ = stage::none;
}

}  // namespace cowire::detail

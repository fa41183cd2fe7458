// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/change_feed.hpp>

namespace cowire::detail {
namespace {

std::int64_t unix_time_ns(change_feed::clock::time_point t) noexcept {
  const auto ago = change_feed::clock::now() - t;
  const auto then = std::chrono::system_clock::now() - ago;
  return std::chrono::duration_cast<std::chrono::nanoseconds>(then.time_since_epoch()).count();
}

}  // namespace

std::shared_ptr<change_feed::queue> change_feed::subscribe(std::size_t limit) {
  auto made = std::make_shared<queue>(executor_, limit);
  const std::lock_guard lock(mutex_);
  subscribers_.push_back(made);
  watched_ = true;
  return made;
}

void change_feed::report(route_change change, clock::time_point received_at) {
  if (!oldest_) oldest_ = received_at;
  if (watched_) reported_.emplace_back(std::move(change), received_at);
}

void change_feed::tell(std::uint64_t version, clock::time_point now) {
  oldest_.reset();
  auto reported = std::exchange(reported_, {});
  const std::lock_guard lock(mutex_);
  std::erase_if(subscribers_, [](const auto& weak) { return weak.expired(); });
  watched_ = !subscribers_.empty();
  const std::int64_t publish_time_ns = unix_time_ns(now);
  for (auto& [change, received_at] : reported) {
    change.version = version;
    change.event_time_ns = publish_time_ns - (now - received_at).count();
    change.publish_time_ns = publish_time_ns;
    for (const auto& weak : subscribers_)
      if (const auto whom = weak.lock()) tell(*whom, change);
  }
}

void change_feed::tell(queue& whom, const route_change& change) {
  if (whom.push(change) || whom.closed()) return;
  route_change marker;
  marker.what = route_change::kind::resynced;
  marker.version = change.version;
  marker.event_time_ns = change.event_time_ns;
  marker.publish_time_ns = change.publish_time_ns;
  whom.replace_all(std::move(marker));
}

void change_feed::close() {
  const std::lock_guard lock(mutex_);
  for (const auto& weak : subscribers_)
    if (const auto whom = weak.lock()) whom->close();
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/follow/detail/route_follower.hpp>
#include <cowire/follow/route_service.hpp>

#include <utility>

namespace cowire::detail {

route_service::route_service(ring_context& ring, epoch_domain& epochs, publisher& tables,
                             route_service_options options)
    : impl_(std::make_unique<route_follower>(ring, epochs, tables, std::move(options))) {}

route_service::~route_service() = default;

void route_service::start(route_service_hooks hooks, std::function<void()> ready) {
  impl_->start(std::move(hooks), std::move(ready));
}

void route_service::stop() { impl_->stop(); }

cowire::compiler& route_service::compiler() noexcept { return impl_->compiler(); }

const mirror& route_service::state() const noexcept { return impl_->state(); }

void route_service::publish() { impl_->publish(); }

void route_service::resolve(const neighbour_key& wanted) { impl_->resolve(wanted); }

void route_service::learn_path_mtu(const ip_address& destination, std::uint32_t mtu) {
  impl_->learn_path_mtu(destination, mtu);
}

std::shared_ptr<const std::uint64_t> route_service::look_at_group_of(int fd) {
  return impl_->look_at_group_of(fd);
}

std::shared_ptr<event_queue<route_change>> route_service::subscribe(std::size_t limit) {
  return impl_->subscribe(limit);
}

route_stats route_service::stats() const { return impl_->stats(); }

}  // namespace cowire::detail

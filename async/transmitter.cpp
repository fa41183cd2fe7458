// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/engine.hpp>
#include <cowire/async/detail/port_state.hpp>
#include <cowire/async/detail/shared_producer.hpp>
#include <cowire/async/transmitter.hpp>
#include <cowire/base/checked_range.hpp>

#include <net/if.h>

#include <utility>

namespace cowire {
namespace {

constexpr std::size_t socket_buffer_max = 1u << 30;

std::string what_failed(const sender_options& options) {
  const std::string& groups = options.multicast_interface;
  if (!groups.empty() && ::if_nametoindex(groups.c_str()) == 0)
    return "multicast_interface '" + groups + "' (name a device that exists)";
  if (options.adopt_socket >= 0) {
    const std::string refusal = detail::backing_socket::refusal_of(options.adopt_socket);
    return "adopting socket " + std::to_string(options.adopt_socket) + " (" +
           (refusal.empty() ? "it must be a bound UDP socket whose IP_MTU_DISCOVER is WANT or DO"
                            : refusal) +
           ")";
  }
  std::string what = "UDP port " + std::to_string(options.source_port);
  if (!options.bound_device.empty()) what += " on " + options.bound_device;
  if (!options.bound_device.empty() && !groups.empty() && groups != options.bound_device)
    what += " with multicast_interface " + groups +
            " (a bound socket sends to groups over its device alone: leave it out)";
  return what;
}

}  // namespace

transmitter::transmitter(transmitter_config config)
    : engine_(std::make_shared<detail::engine>(std::move(config))) {
  try {
    engine_->start();
  } catch (...) {
    engine_->stop();
    throw;
  }
}

transmitter::~transmitter() {
  stop();
  if (engine_->inherited()) detail::leave_behind(std::move(engine_));
}

sender transmitter::make_sender(const sender_options& options) {
  std::error_code ec;
  auto made = make_sender(options, ec);
  if (ec) throw_error(ec, what_failed(options));
  return made;
}

sender transmitter::make_sender(const sender_options& options, std::error_code& ec) {
  return make_sender(options, ec, false);
}

/// `apart`: see engine.
sender transmitter::make_sender(const sender_options& options, std::error_code& ec, bool apart) {
  ec.clear();
  try {
    auto via = options.via.state_ ? options.via.state_ : engine_->producer_of_this_thread();
    auto state = engine_->make_sender(options, *via, ec, apart);
    return ec ? sender() : sender(std::move(via), std::move(state));
  } catch (const std::system_error& failed) {
    ec = failed.code();
    return {};
  }
}

shared_sender transmitter::make_shared_sender(const sender_options& options) {
  std::error_code ec;
  auto made = make_shared_sender(options, ec);
  if (ec)
    throw_error(ec, options.via.state_ ? "a shared sender has producers of its own; leave via alone"
                                       : what_failed(options));
  return made;
}

shared_sender transmitter::make_shared_sender(const sender_options& options, std::error_code& ec) {
  ec.clear();
  if (options.via.state_) {
    ec = error::invalid_argument;
    return {};
  }
  try {
    auto via = engine_->shared();
    auto states = engine_->make_shared_sender(options, *via, ec);
    if (ec) return {};
    return shared_sender(
        std::make_shared<detail::shared_sender_state>(std::move(via), std::move(states)));
  } catch (const std::system_error& failed) {
    ec = failed.code();
    return {};
  }
}

port transmitter::make_port(const port_options& options) {
  check_range("socket_buffer", options.socket_buffer, 0, socket_buffer_max);
  std::error_code ec;
  auto sends = make_sender(options.send, ec, true);
  if (ec) throw_error(ec, what_failed(options.send));
  auto state = std::make_shared<detail::port_state>(
      options.ring ? *options.ring : engine_->control_ring(), sends.state_->socket, options);
  if (!engine_->add_port(state)) throw_error(error::closed, "transmitter");
  return {std::move(state), std::move(sends)};
}

port transmitter::make_port(const port_options& options, std::error_code& ec) {
  ec.clear();
  try {
    return make_port(options);
  } catch (const std::system_error& failed) {
    ec = failed.code();
    return {};
  }
}

producer transmitter::make_producer() { return producer(engine_->new_producer()); }

route_events transmitter::watch_routes(std::size_t queue_limit) {
  return {engine_->subscribe(queue_limit), engine_};
}

transmitter_stats transmitter::stats() const { return engine_->stats(); }

void transmitter::stop() noexcept { engine_->stop(); }

}  // namespace cowire

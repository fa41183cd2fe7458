// SPDX-License-Identifier: Apache-2.0
#include "transport.hpp"

namespace quic {

port_transport::port_transport(std::uint16_t number)
    : port_(tx_.make_port({.send = {.source_port = number},
                           .buffer_count = 1024,
                           .socket_buffer = socket_buffer,
                           .ring = &ring_})) {}

asio::awaitable<std::span<const arrival>> port_transport::receive(clock::time_point deadline) {
  alarm_.set(deadline, [this] { port_.cancel(); });
  const auto [ec, count] =
      co_await port_.async_receive(received_, cowire::as_tuple(asio::use_awaitable));
  if (ec && ec != cowire::operation_aborted()) throw std::system_error(ec, "receiving");
  for (std::size_t i = 0; i < count; ++i) {
    const cowire::received_datagram& got = received_[i];
    arrivals_[i] = {got.bytes(), got.source(), got.destination(), got.ecn()};
  }
  co_return std::span(arrivals_).first(count);
}

asio::awaitable<void> port_transport::send(std::span<const cowire::message> messages) {
  while (!messages.empty()) {
    const auto [ec, sent] =
        co_await port_.sender().async_send_batch(messages, cowire::as_tuple(asio::use_awaitable));
    if (ec == cowire::error::closed) throw std::system_error(ec, "sending");
    messages = messages.subspan(ec ? sent + 1 : sent);
  }
}

void port_transport::run(asio::awaitable<void> what) {
  asio::co_spawn(ring_, std::move(what), [this](std::exception_ptr failed) {
    ring_.stop();
    if (failed) std::rethrow_exception(failed);  // Out of run().
  });
  ring_.run();
}

std::string port_transport::report() const {
  const auto stats = tx_.stats();
  return std::to_string(stats.transmitted_total()) + " datagrams past the kernel, " +
         std::to_string(stats.kernel_path) + " through it";
}

}  // namespace quic

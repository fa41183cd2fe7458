// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/engine.hpp>
#include <cowire/async/sender.hpp>
#include <cowire/base/assert.hpp>

#include <utility>

namespace cowire {

std::size_t producer::frame_count() const noexcept { return state_ ? state_->slice().count : 0; }

sender& sender::operator=(sender&& other) noexcept {
  if (this != &other) {
    retire();
    via_ = std::move(other.via_);
    state_ = std::move(other.state_);
  }
  return *this;
}

sender::~sender() { retire(); }

void sender::retire() noexcept {
  if (const auto state = std::exchange(state_, nullptr)) via_->retire(*state);
  via_.reset();
}

std::uint16_t sender::source_port() const noexcept { return shared_state()->source_port.host(); }

endpoint sender::local_endpoint(ip_family family) const noexcept {
  return {shared_state()->socket->source(family).value_or(ip_address::any(family)), source_port()};
}

std::size_t sender::payload_capacity() const noexcept {
  return shared_producer()->payload_capacity();
}

sender::executor_type sender::get_executor() const noexcept {
  return shared_state()->errors->get_executor();
}

payload sender::try_acquire() noexcept { return shared_producer()->try_acquire(*shared_state()); }

bool sender::try_send(datagram_bytes bytes, const endpoint& destination) noexcept {
  return !shared_producer()->try_send(*shared_state(), bytes.span(), destination);
}

void sender::try_send(datagram_bytes bytes, const endpoint& destination,
                      std::error_code& ec) noexcept {
  ec = shared_producer()->try_send(*shared_state(), bytes.span(), destination);
}

void sender::send(payload what, const endpoint& destination, std::error_code& ec) noexcept {
  ec = shared_producer()->send(*shared_state(), std::move(what), destination);
}

bool sender::try_send(datagram_bytes bytes, const endpoint& destination,
                      const datagram_options& options) noexcept {
  return !shared_producer()->try_send(*shared_state(), bytes.span(), destination, options);
}

void sender::try_send(datagram_bytes bytes, const endpoint& destination,
                      const datagram_options& options, std::error_code& ec) noexcept {
  ec = shared_producer()->try_send(*shared_state(), bytes.span(), destination, options);
}

void sender::send(payload what, const endpoint& destination, const datagram_options& options,
                  std::error_code& ec) noexcept {
  ec = shared_producer()->send(*shared_state(), std::move(what), destination, options);
}

void sender::begin_acquire(direct_completion<std::error_code, payload> done) {
  shared_producer()->begin_acquire(*shared_state(), std::move(done));
}

void sender::begin_send(payload what, std::span<const endpoint> to,
                        direct_completion<std::error_code, std::size_t> done,
                        const datagram_options& options) {
  shared_producer()->begin_send({.from = shared_state(),
                                 .own = std::move(what),
                                 .many = to,
                                 .options = options,
                                 .done = std::move(done)});
}

void sender::begin_send(payload what, const endpoint& to,
                        direct_completion<std::error_code, std::size_t> done,
                        const datagram_options& options) {
  shared_producer()->begin_send({.from = shared_state(),
                                 .own = std::move(what),
                                 .one = to,
                                 .options = options,
                                 .done = std::move(done)});
}

void sender::begin_send(std::span<const std::byte> bytes, std::span<const endpoint> to,
                        direct_completion<std::error_code, std::size_t> done,
                        const datagram_options& options) {
  shared_producer()->begin_send({.from = shared_state(),
                                 .bytes = bytes,
                                 .many = to,
                                 .options = options,
                                 .done = std::move(done)});
}

void sender::begin_send(std::span<const std::byte> bytes, const endpoint& to,
                        direct_completion<std::error_code, std::size_t> done,
                        const datagram_options& options) {
  shared_producer()->begin_send({.from = shared_state(),
                                 .bytes = bytes,
                                 .one = to,
                                 .options = options,
                                 .done = std::move(done)});
}

std::size_t sender::try_send_batch(std::span<const message> messages,
                                   std::error_code& ec) noexcept {
  detail::producer::send_operation op{.from = shared_state(), .batch = messages};
  ec = messages.empty() ? std::error_code() : shared_producer()->try_send(op);
  return op.sent;
}

std::size_t sender::try_send_segments(datagram_bytes bytes, std::size_t segment_size,
                                      const endpoint& destination, std::error_code& ec) noexcept {
  return try_send_segments(bytes, segment_size, destination, {}, ec);
}

std::size_t sender::try_send_segments(datagram_bytes bytes, std::size_t segment_size,
                                      const endpoint& destination, const datagram_options& options,
                                      std::error_code& ec) noexcept {
  detail::producer::send_operation op{.from = shared_state(),
                                      .bytes = bytes.span(),
                                      .one = destination,
                                      .segment_size = segment_size,
                                      .options = options};
  ec = shared_producer()->try_send(op);
  return op.sent;
}

void sender::begin_send_batch(std::span<const message> messages,
                              direct_completion<std::error_code, std::size_t> done) {
  if (messages.empty()) return done.complete({}, std::size_t{0});
  shared_producer()->begin_send(
      {.from = shared_state(), .batch = messages, .done = std::move(done)});
}

void sender::begin_send_segments(std::span<const std::byte> bytes, std::size_t segment_size,
                                 const endpoint& to,
                                 direct_completion<std::error_code, std::size_t> done,
                                 const datagram_options& options) {
  shared_producer()->begin_send({.from = shared_state(),
                                 .bytes = bytes,
                                 .one = to,
                                 .segment_size = segment_size,
                                 .options = options,
                                 .done = std::move(done)});
}

void sender::begin_flush(direct_completion<std::error_code> done) {
  shared_producer()->begin_flush(std::move(done));
}

void sender::begin_next_error(direct_completion<std::error_code, send_error> done) {
  shared_state()->errors->start(std::move(done));
}

path_events sender::watch_path(const endpoint& destination, const datagram_options& options) {
  std::error_code ec;
  auto out = watch_path(destination, options, ec);
  if (ec) throw_error(ec, "watching the path to " + destination.to_string());
  return out;
}

path_events sender::watch_path(const endpoint& destination, const datagram_options& options,
                               std::error_code& ec) {
  detail::path_question asked;
  ec = shared_producer()->ask_about(*shared_state(), destination, options, asked);
  return ec ? path_events() : via_->watch_path(std::move(asked));
}

void sender::begin_resolve(const endpoint& to, const datagram_options& options,
                           direct_completion<std::error_code, path_state> done) {
  detail::path_question asked;
  const auto ec = shared_producer()->ask_about(*shared_state(), to, options, asked);
  if (ec == error::forked) return done.refuse_in_child(ec, path_state{});
  if (ec) return done.complete(ec, path_state{});
  via_->resolve_path(std::move(asked), std::move(done));
}

const std::shared_ptr<detail::producer>& sender::shared_producer() const noexcept {
  COWIRE_ASSERT(state_ != nullptr);
  return via_;
}

const std::shared_ptr<detail::sender_state>& sender::shared_state() const noexcept {
  COWIRE_ASSERT(state_ != nullptr);
  return state_;
}

std::uint64_t sender::errors_dropped() const noexcept { return shared_state()->errors->dropped(); }

}  // namespace cowire

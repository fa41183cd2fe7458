// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/shared_producer.hpp>
#include <cowire/async/shared_sender.hpp>
#include <cowire/base/assert.hpp>

#include <utility>

namespace cowire {
namespace {

using detail::sender_state;
using detail::shared_producer;
using detail::shared_sender_state;
using send_operation = detail::producer::send_operation;

/// One of the producers, and the sender on it.
struct whereabouts {
  shared_producer& through;
  const std::shared_ptr<sender_state>& from;
};

whereabouts at(const shared_sender_state& state, std::size_t index) noexcept {
  return {(*state.producers)[index], state.states[index]};
}

whereabouts mine(const shared_sender_state& state) noexcept {
  return at(state, state.producers->mine());
}

/// The number of the one where the frame of a payload is at home.
std::size_t place_of(const shared_sender_state& state, const payload& what) noexcept {
  if (!what) return state.producers->mine();
  const shared_producer* const home = detail::producer::sharer_of(what);
  std::size_t index = 0;
  while (index < state.producers->size() && &(*state.producers)[index] != home) ++index;
  COWIRE_ASSERT(index < state.producers->size());  // A payload of another transmitter.
  return index;
}

whereabouts home_of(const shared_sender_state& state, const payload& what) noexcept {
  return at(state, place_of(state, what));
}

/// For an operation that ends within the call: an owner that owns nothing, and counts nothing.
std::shared_ptr<sender_state> lent(const std::shared_ptr<sender_state>& state) noexcept {
  return {std::shared_ptr<void>(), state.get()};
}

}  // namespace

std::uint16_t shared_sender::source_port() const noexcept {
  return state()->states.front()->source_port.host();
}

endpoint shared_sender::local_endpoint(ip_family family) const noexcept {
  const auto source = state()->states.front()->socket->source(family);
  return {source.value_or(ip_address::any(family)), source_port()};
}

std::size_t shared_sender::payload_capacity() const noexcept {
  return (*state()->producers)[0].via().payload_capacity();
}

std::size_t shared_sender::place() const noexcept { return state()->producers->mine(); }

std::size_t shared_sender::place(const payload& what) const noexcept {
  return place_of(*state(), what);
}

shared_sender::executor_type shared_sender::get_executor() const noexcept {
  return state()->states.front()->errors->get_executor();
}

payload shared_sender::try_acquire() const noexcept {
  const whereabouts here = mine(*state());
  return here.through.try_acquire(*here.from);
}

payload shared_sender::try_acquire(std::error_code& ec) const noexcept {
  const whereabouts here = mine(*state());
  return here.through.try_acquire(*here.from, ec);
}

bool shared_sender::try_send(datagram_bytes bytes, const endpoint& destination) const noexcept {
  const whereabouts here = mine(*state());
  return !here.through.try_send(*here.from, bytes.span(), destination);
}

void shared_sender::try_send(datagram_bytes bytes, const endpoint& destination,
                             std::error_code& ec) const noexcept {
  const whereabouts here = mine(*state());
  ec = here.through.try_send(*here.from, bytes.span(), destination);
}

bool shared_sender::try_send(datagram_bytes bytes, const endpoint& destination,
                             const datagram_options& options) const noexcept {
  const whereabouts here = mine(*state());
  return !here.through.try_send(*here.from, bytes.span(), destination, options);
}

void shared_sender::try_send(datagram_bytes bytes, const endpoint& destination,
                             const datagram_options& options, std::error_code& ec) const noexcept {
  const whereabouts here = mine(*state());
  ec = here.through.try_send(*here.from, bytes.span(), destination, options);
}

std::size_t shared_sender::try_send(datagram_bytes bytes, std::span<const endpoint> destinations,
                                    std::error_code& ec) const noexcept {
  return try_send(bytes, destinations, {}, ec);
}

std::size_t shared_sender::try_send(datagram_bytes bytes, std::span<const endpoint> destinations,
                                    const datagram_options& options,
                                    std::error_code& ec) const noexcept {
  const whereabouts here = mine(*state());
  send_operation op{
      .from = lent(here.from), .bytes = bytes.span(), .many = destinations, .options = options};
  ec = here.through.try_send(op);
  return op.sent;
}

std::size_t shared_sender::try_send(payload& what, std::span<const endpoint> destinations,
                                    std::error_code& ec) const noexcept {
  return try_send(what, destinations, {}, ec);
}

std::size_t shared_sender::try_send(payload& what, std::span<const endpoint> destinations,
                                    const datagram_options& options,
                                    std::error_code& ec) const noexcept {
  const whereabouts here = home_of(*state(), what);
  send_operation op{
      .from = lent(here.from), .own = std::move(what), .many = destinations, .options = options};
  ec = here.through.try_send(op);
  what = std::move(op.own);
  return op.sent;
}

void shared_sender::send(payload what, const endpoint& destination,
                         std::error_code& ec) const noexcept {
  const whereabouts here = home_of(*state(), what);
  ec = here.through.send(*here.from, std::move(what), destination);
}

void shared_sender::send(payload what, const endpoint& destination, const datagram_options& options,
                         std::error_code& ec) const noexcept {
  const whereabouts here = home_of(*state(), what);
  ec = here.through.send(*here.from, std::move(what), destination, options);
}

void shared_sender::begin_acquire(std::size_t place,
                                  direct_completion<std::error_code, payload> done) const {
  COWIRE_ASSERT(place < state()->producers->size());
  const whereabouts here = at(*state(), place);
  here.through.begin_acquire(*here.from, state_, std::move(done));
}

void shared_sender::begin_send(payload what, std::span<const endpoint> to, sent done,
                               const datagram_options& options) const {
  const whereabouts here = home_of(*state(), what);
  here.through.begin_send({.from = here.from,
                           .own = std::move(what),
                           .many = to,
                           .options = options,
                           .done = std::move(done)},
                          state_);
}

void shared_sender::begin_send(payload what, const endpoint& to, sent done,
                               const datagram_options& options) const {
  const whereabouts here = home_of(*state(), what);
  here.through.begin_send({.from = here.from,
                           .own = std::move(what),
                           .one = to,
                           .options = options,
                           .done = std::move(done)},
                          state_);
}

void shared_sender::begin_send(std::span<const std::byte> bytes, std::span<const endpoint> to,
                               sent done, const datagram_options& options) const {
  const whereabouts here = mine(*state());
  here.through.begin_send(
      {.from = here.from, .bytes = bytes, .many = to, .options = options, .done = std::move(done)},
      state_);
}

void shared_sender::begin_send(std::span<const std::byte> bytes, const endpoint& to, sent done,
                               const datagram_options& options) const {
  const whereabouts here = mine(*state());
  here.through.begin_send(
      {.from = here.from, .bytes = bytes, .one = to, .options = options, .done = std::move(done)},
      state_);
}

std::size_t shared_sender::try_send_batch(std::span<const message> messages,
                                          std::error_code& ec) const noexcept {
  const whereabouts here = mine(*state());
  send_operation op{.from = lent(here.from), .batch = messages};
  ec = messages.empty() ? std::error_code() : here.through.try_send(op);
  return op.sent;
}

std::size_t shared_sender::try_send_segments(datagram_bytes bytes, std::size_t segment_size,
                                             const endpoint& destination,
                                             std::error_code& ec) const noexcept {
  return try_send_segments(bytes, segment_size, destination, {}, ec);
}

std::size_t shared_sender::try_send_segments(datagram_bytes bytes, std::size_t segment_size,
                                             const endpoint& destination,
                                             const datagram_options& options,
                                             std::error_code& ec) const noexcept {
  const whereabouts here = mine(*state());
  send_operation op{.from = lent(here.from),
                    .bytes = bytes.span(),
                    .one = destination,
                    .segment_size = segment_size,
                    .options = options};
  ec = here.through.try_send(op);
  return op.sent;
}

void shared_sender::begin_send_batch(std::span<const message> messages, sent done) const {
  if (messages.empty()) return done.complete({}, std::size_t{0});
  const whereabouts here = mine(*state());
  here.through.begin_send({.from = here.from, .batch = messages, .done = std::move(done)}, state_);
}

void shared_sender::begin_send_segments(std::span<const std::byte> bytes, std::size_t segment_size,
                                        const endpoint& to, sent done,
                                        const datagram_options& options) const {
  const whereabouts here = mine(*state());
  here.through.begin_send({.from = here.from,
                           .bytes = bytes,
                           .one = to,
                           .segment_size = segment_size,
                           .options = options,
                           .done = std::move(done)},
                          state_);
}

void shared_sender::begin_next_error(direct_completion<std::error_code, send_error> done) const {
  state()->states.front()->errors->start(std::move(done));
}

path_events shared_sender::watch_path(const endpoint& destination,
                                      const datagram_options& options) const {
  std::error_code ec;
  auto out = watch_path(destination, options, ec);
  if (ec) throw_error(ec, "watching the path to " + destination.to_string());
  return out;
}

path_events shared_sender::watch_path(const endpoint& destination, const datagram_options& options,
                                      std::error_code& ec) const {
  const whereabouts here = mine(*state());
  detail::path_question asked;
  ec = here.through.ask_about(*here.from, destination, options, asked);
  return ec ? path_events() : here.through.via().watch_path(std::move(asked));
}

void shared_sender::begin_resolve(const endpoint& to, const datagram_options& options,
                                  direct_completion<std::error_code, path_state> done) const {
  const whereabouts here = mine(*state());
  detail::path_question asked;
  const auto ec = here.through.ask_about(*here.from, to, options, asked);
  if (ec == error::forked) return done.refuse_in_child(ec, path_state{});
  if (ec) return done.complete(ec, path_state{});
  here.through.via().resolve_path(std::move(asked), std::move(done));
}

const std::shared_ptr<shared_sender_state>& shared_sender::state() const noexcept {
  COWIRE_ASSERT(state_ != nullptr);
  return state_;
}

std::uint64_t shared_sender::errors_dropped() const noexcept {
  return state()->states.front()->errors->dropped();
}

}  // namespace cowire

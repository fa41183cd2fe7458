// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/port_state.hpp>
#include <cowire/async/port.hpp>
#include <cowire/base/assert.hpp>

#include <utility>

namespace cowire {

port& port::operator=(port&& other) noexcept {
  if (this != &other) {
    close();
    state_ = std::move(other.state_);
    sender_ = std::move(other.sender_);
  }
  return *this;
}

port::~port() { close(); }

void port::close() noexcept {
  if (const auto state = std::exchange(state_, nullptr)) state->close();
}

port::executor_type port::get_executor() const noexcept { return shared_state()->get_executor(); }

port::executor_type port::executor_of(const detail::port_state& state) noexcept {
  return state.get_executor();
}

void port::begin(const std::shared_ptr<detail::port_state>& state, one done) {
  state->begin(std::move(done));
}

void port::begin(const std::shared_ptr<detail::port_state>& state,
                 std::span<received_datagram> into, many done) {
  state->begin(into, std::move(done));
}

void port::cancel() { shared_state()->cancel_all(); }

port_stats port::stats() const { return shared_state()->stats(); }

const std::shared_ptr<detail::port_state>& port::shared_state() const noexcept {
  COWIRE_ASSERT(state_ != nullptr);
  return state_;
}

}  // namespace cowire

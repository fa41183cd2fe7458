// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/path_events.hpp>
#include <cowire/ring/event_queue.hpp>

#include <tuple>

namespace cowire {
namespace {

/// All that counts for same_way().
auto way_of(const path_state& s) noexcept {
  return std::tie(s.service, s.reason, s.refusal, s.device, s.interface_index, s.tunnel, s.gateway,
                  s.source, s.mtu, s.egress, s.destination_mac, s.max_payload);
}

}  // namespace

std::string_view name(path_service service) noexcept {
  switch (service) {
    case path_service::fast:
      return "fast";
    case path_service::tracked:
      return "tracked";
    case path_service::kernel_path:
      return "kernel_path";
    case path_service::refused:
      return "refused";
  }
  return "";
}

bool path_state::same_way(const path_state& other) const noexcept {
  return way_of(*this) == way_of(other);
}

std::string to_string(const path_state& state) {
  std::string out(name(state.service));
  const auto add = [&out](std::string_view word, std::string_view value) {
    if (!value.empty()) out.append(" ").append(word).append(" ").append(value);
  };
  if (state.refusal) add("error", errno_name(state.refusal.value()));
  if (state.reason) add("divert", name(*state.reason));
  if (state.gateway) add("via", state.gateway->to_string());
  add("dev", state.device);
  if (state.source) add("src", state.source->to_string());
  if (state.mtu != 0) add("mtu", std::to_string(state.mtu));
  add("egress", state.egress);
  if (state.destination_mac) add("mac", state.destination_mac->to_string());
  if (state.reason) out.append(" (").append(describe(*state.reason)).append(")");
  if (!state.obstacle.empty()) out.append(": ").append(state.obstacle);
  return out;
}

path_events& path_events::operator=(path_events&& other) noexcept {
  if (this != &other) {
    close();
    queue_ = std::move(other.queue_);
    source_ = std::move(other.source_);
  }
  return *this;
}

path_events::~path_events() { close(); }

path_events::executor_type path_events::get_executor() const noexcept {
  return queue_->get_executor();
}

void path_events::begin_next(direct_completion<std::error_code, path_state> done) {
  queue_->start(std::move(done));
}

void path_events::close() noexcept {
  if (const auto queue = std::exchange(queue_, nullptr)) queue->close();
}

}  // namespace cowire

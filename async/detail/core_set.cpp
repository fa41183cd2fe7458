// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/core_set.hpp>

#include <chrono>
#include <optional>
#include <thread>

namespace cowire::detail {
namespace {

tx_core_options core_options(const transmitter_config& config, const tracked_flows& tracked,
                             std::uint32_t number) {
  tx_core_options out;
  out.number = number;
  out.tracked = &tracked;
  if (!config.cpus.empty()) out.cpu = config.cpus[number];
  out.idle = config.idle;
  // Cores that never sleep must leave a CPU to everything else.
  if (!out.idle && config.cpus.size() + 1 >= std::thread::hardware_concurrency())
    out.idle = idle_policy::adaptive;
  if (config.audit_rate != 0)
    out.sample_interval =
        std::chrono::nanoseconds(std::chrono::seconds(1)) * core_count(config) / config.audit_rate;
  return out;
}

}  // namespace

core_set::core_set(const transmitter_config& config, const frame_memory& memory,
                   const publisher& tables, epoch_domain& epochs, doorbell& control,
                   const tracked_flows& tracked)
    : in_use_(core_count(config)) {
  for (std::uint32_t number = 0; number < core_count(config); ++number)
    cores_.push_back(std::make_unique<tx_core>(memory, tables, epochs, control,
                                               core_options(config, tracked, number)));
}

void core_set::start() {
  try {
    for (const auto& core : cores_) core->start();
  } catch (...) {
    stop();
    throw;
  }
}

void core_set::stop() {
  for (const auto& core : cores_) core->stop();
}

std::vector<tx_snapshot> core_set::snapshots() const {
  std::vector<tx_snapshot> out;
  for (const auto& core : cores_) out.push_back(core->snapshot());
  return out;
}

}  // namespace cowire::detail

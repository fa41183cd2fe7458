// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/checked_config.hpp>

#include <cowire/async/detail/core_set.hpp>
#include <cowire/base/checked_interval.hpp>
#include <cowire/base/checked_range.hpp>
#include <cowire/base/error.hpp>
#include <cowire/xdp/umem.hpp>

#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>

namespace cowire::detail {
namespace {

using limits = transmitter_limits;

[[noreturn]] void refuse(const std::string& what) {
  throw_error(make_error_code(error::invalid_argument), what);
}

void check_cores(const transmitter_config& config) {
  if (config.cpus.empty())
    check_range("tx_cores", config.tx_cores, 1, tx_cores_max);
  else if (config.cpus.size() > tx_cores_max)
    refuse("cpus must name at most " + std::to_string(tx_cores_max) + " CPUs, not " +
           std::to_string(config.cpus.size()));
  const auto cpus_here = static_cast<std::uint64_t>(::sysconf(_SC_NPROCESSORS_CONF));
  for (const unsigned cpu : config.cpus) check_range("cpus: each", cpu, 0, cpus_here - 1);
  auto cpus = config.cpus;
  std::ranges::sort(cpus);
  if (const auto twice = std::ranges::adjacent_find(cpus); twice != cpus.end())
    refuse("cpus: CPU " + std::to_string(*twice) + " twice, but each TX core needs its own");
}

void check_queues(const transmitter_config& config) {
  if (config.queues.size() > tx_cores_max)
    refuse("queues must name at most " + std::to_string(tx_cores_max) + " queues, not " +
           std::to_string(config.queues.size()));
  auto queues = config.queues;
  std::ranges::sort(queues);
  if (const auto twice = std::ranges::adjacent_find(queues); twice != queues.end())
    refuse("queues: queue " + std::to_string(*twice) + " twice, but each TX core needs its own");
  if (!queues.empty() && !config.cpus.empty() && queues.size() != config.cpus.size())
    refuse("queues has " + std::to_string(queues.size()) + " elements and cpus " +
           std::to_string(config.cpus.size()) + ", but each TX core has one of both");
}

void check_interfaces(const transmitter_config& config) {
  for (const auto& name : config.interfaces)
    if (name.empty() || name.size() >= IF_NAMESIZE)
      refuse("interfaces: '" + name + "' is no name of an interface, which has 1 to " +
             std::to_string(IF_NAMESIZE - 1) + " bytes");
}

}  // namespace

transmitter_config checked(transmitter_config config) {
  check_interfaces(config);
  check_cores(config);
  check_queues(config);
  check_range("max_producers", config.max_producers, 1, limits::max_producers_max);
  check_range("frames_per_producer", config.frames_per_producer, 1,
              limits::frames_per_producer_max);
  check_range("shared_producers", config.shared_producers, 0, limits::shared_producers_max);
  if (config.frame_size != 2048 && config.frame_size != 4096)
    refuse("frame_size must be 2048 or 4096, not " + std::to_string(config.frame_size));
  check_range("ring_capacity", config.ring_capacity, limits::ring_capacity_min,
              limits::ring_capacity_max);
  check_range("busy_poll", config.busy_poll.count(), 0,
              std::uint64_t{limits::busy_poll_max.count()}, " us");
  check_range("busy_poll_budget", config.busy_poll_budget, 1, limits::busy_poll_budget_max);
  check_range("tracked_flows", config.tracked_flows, 1, limits::tracked_flows_max);
  check_range("audit_rate", config.audit_rate, 0, limits::audit_rate_max);
  check_interval("update_interval", config.update_interval);
  check_interval("drain_timeout", config.drain_timeout);
  config.frames_per_producer =
      (config.frames_per_producer + slice_granularity - 1) / slice_granularity * slice_granularity;
  return config;
}

}  // namespace cowire::detail

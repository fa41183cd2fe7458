// SPDX-License-Identifier: Apache-2.0
/// The TX cores of one transmitter, and how many of them are in use.
///
/// Each core has its own AF_XDP socket, on a queue of its own, of every interface: they share
/// nothing. An
/// interface with fewer queues than there are cores limits the number in use while it is served:
/// which core a datagram takes is decided before anybody knows its interface.
///
/// Control thread, but for in_use() and snapshots(): any thread.
#pragma once

#include <cowire/async/transmitter_config.hpp>
#include <cowire/async/transmitter_stats.hpp>
#include <cowire/base/address.hpp>
#include <cowire/base/doorbell.hpp>
#include <cowire/route/epoch.hpp>
#include <cowire/route/publisher.hpp>
#include <cowire/xdp/tx_core.hpp>
#include <cowire/xdp/umem.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace cowire::detail {

/// How many a config asks for.
[[nodiscard]] inline std::uint32_t core_count(const transmitter_config& config) noexcept {
  const std::size_t listed = std::max(config.cpus.size(), config.queues.size());
  return listed == 0 ? config.tx_cores : static_cast<std::uint32_t>(listed);
}

/// Which queue a core sends on.
[[nodiscard]] inline std::uint32_t queue_of(const transmitter_config& config,
                                            std::size_t core) noexcept {
  return config.queues.empty() ? static_cast<std::uint32_t>(core) : config.queues[core];
}

/// Which of `cores` takes what goes to a destination: the same one for all of a flow, so that its
/// order holds.
[[nodiscard]] inline std::uint32_t core_of(const endpoint& to, std::uint32_t cores) noexcept {
  constexpr std::uint64_t odd = 0x9e3779b97f4a7c15;  // 2^64 / the golden ratio: spreads neighbours.
  std::uint64_t words[2];
  std::memcpy(words, to.address.bytes().data(), sizeof words);
  const std::uint64_t mixed = (((words[0] ^ to.port) * odd) ^ words[1]) * odd;
  return static_cast<std::uint32_t>((mixed >> 32) * cores >> 32);
}

class core_set {
 public:
  /// `control` as tx_core has it. All of them outlive the set.
  core_set(const transmitter_config& config, const frame_memory& memory, const publisher& tables,
           epoch_domain& epochs, doorbell& control, const tracked_flows& tracked);

  [[nodiscard]] std::uint32_t size() const noexcept {
    return static_cast<std::uint32_t>(cores_.size());
  }
  [[nodiscard]] tx_core& operator[](std::size_t number) noexcept { return *cores_[number]; }
  [[nodiscard]] auto begin() const noexcept { return cores_.begin(); }
  [[nodiscard]] auto end() const noexcept { return cores_.end(); }

  /// Starts all threads, or throws and has started none.
  void start();
  void stop();

  /// How many take new datagrams: the first so many.
  [[nodiscard]] std::uint32_t in_use() const noexcept {
    return in_use_.load(std::memory_order_relaxed);
  }
  /// What other cores hold they still send. Flows that change their core by it may overtake
  /// themselves once.
  void use(std::uint32_t count) noexcept { in_use_.store(count, std::memory_order_relaxed); }

  /// By core.
  [[nodiscard]] std::vector<tx_snapshot> snapshots() const;

 private:
  std::vector<std::unique_ptr<tx_core>> cores_;
  std::atomic<std::uint32_t> in_use_;
};

}  // namespace cowire::detail

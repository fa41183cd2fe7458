// SPDX-License-Identifier: Apache-2.0
/// The core thread's half of tx_core: the batch loop and all it touches.
#pragma once

#include <cowire/base/doorbell.hpp>
#include <cowire/base/spsc_ring.hpp>
#include <cowire/route/epoch.hpp>
#include <cowire/route/publisher.hpp>
#include <cowire/xdp/detail/flow_cache.hpp>
#include <cowire/xdp/detail/run_writer.hpp>
#include <cowire/xdp/detail/tx_port.hpp>
#include <cowire/xdp/producer_channel.hpp>
#include <cowire/xdp/tx_core.hpp>
#include <cowire/xdp/tx_counters.hpp>
#include <cowire/xdp/umem.hpp>
#include <cowire/xdp/work_bell.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace cowire::detail {

/// What the core remembers of one channel.
struct tx_channel {
  explicit tx_channel(producer_channel& channel_) : channel(channel_) {}

  producer_channel& channel;
  std::uint32_t held = 0;          ///< Requests taken and neither returned nor diverted.
  std::uint32_t in_batch = 0;      ///< Of those, at the head of `channel.requests` still.
  std::uint32_t staged_count = 0;  ///< Frames on their way to `channel.returned`.
  std::uint32_t unannounced =
      0;  ///< Frames returned since its waiting producer was last made known.
  tx_port::clock::time_point unannounced_since{};
  std::array<frame_index, tx_batch> staged;
  std::atomic<bool> drained{
      false};  ///< Release by the core when nothing is left; acquire by detached().
};

/// What the core serves. Immutable while the core uses it; a change is a new one.
struct tx_configuration {
  struct channel_entry {
    tx_channel* state;
    bool draining;
  };
  struct port_entry {
    tx_port* port;
    std::optional<std::chrono::milliseconds> closing_grace;  ///< Set: being removed.
  };

  explicit tx_configuration(std::uint32_t frame_count)
      : channel_of_block(frame_count / slice_granularity, nullptr) {}

  /// Derives the look-up tables from the two lists.
  void index();

  std::vector<channel_entry> channels;
  std::vector<port_entry> ports;
  std::vector<tx_channel*> channel_of_block;  ///< By frame / slice_granularity.
  /// By hop::egress, whatever that says; null: nothing is to be sent there (unknown, being removed,
  /// or the kernel path), or not at once (tracked_egress).
  std::array<tx_port*, std::size_t{std::numeric_limits<egress_slot>::max()} + 1> port_of_slot{};
  static_assert(tracked_egress >= max_egress_slots);
};

class tx_engine {
 public:
  tx_engine(const frame_memory& memory, const publisher& tables, epoch_domain& epochs,
            doorbell& control, idle_policy idle, const tx_core_options& options);

  // Control thread.
  void configure(const tx_configuration& next) noexcept;
  [[nodiscard]] bool uses(const tx_configuration& configuration) const noexcept {
    // Pairs with the release in apply_configuration(): the core has left the former one.
    return applied_.load(std::memory_order_acquire) == &configuration;
  }
  void request_stop() noexcept;
  [[nodiscard]] frame_places places() noexcept { return {memory_, slot_of_frame_.data()}; }

  // Any thread.
  [[nodiscard]] tx_counters& counters() noexcept { return counters_; }
  [[nodiscard]] cowire::work_bell& work_bell() noexcept { return work_bell_; }
  [[nodiscard]] spsc_ring<diverted_request>& diverted() noexcept { return diverted_; }
  [[nodiscard]] spsc_ring<flow_sample>& samples() noexcept { return samples_; }

  // Core thread.
  void run() noexcept;
  [[nodiscard]] bool run_once() noexcept;
  void apply_configuration() noexcept;

 private:
  using clock = tx_port::clock;

  /// Requests of one channel, in one piece, where the producer put them.
  struct request_span {
    std::span<const tx_request> requests;
    tx_channel* from;
  };
  /// What is taken at once.
  struct batch {
    std::uint32_t size = 0;
    std::uint32_t run_count = 0;
    std::array<request_span, tx_batch> runs;
    std::uint32_t diverted_count = 0;
    std::array<diverted_request, tx_batch> diverted;
  };
  /// Where each request of a run goes; filled stage by stage.
  struct decisions {
    std::array<std::uint32_t, tx_batch> path_lists;
    std::array<const hop*, tx_batch> hops;
    std::array<tx_descriptor, tx_batch> descriptors;
    unknown_requests unknown;
  };

  void gather() noexcept;
  void take_from(tx_channel& channel, std::size_t limit) noexcept;
  void drop_batch() noexcept;
  void take_sample() noexcept;
  void forward(const forwarding_table& table, std::span<const tx_request> requests) noexcept;
  [[gnu::noinline]] void forward_again(const forwarding_table& table, const request_run& run,
                                       bool placed) noexcept;
  [[nodiscard]] bool write_again(const forwarding_table& table,
                                 const request_run& run) const noexcept;
  void submit_apart(const request_run& run) noexcept;
  void remember(const forwarding_table& table, const request_run& run) noexcept;
  void look_up_unknown(const forwarding_table& table, const request_run& run) noexcept;
  void look_up(const forwarding_table& table, const request_run& run) noexcept;
  void find_paths(const forwarding_table& table, const request_run& run) noexcept;
  template <class Key>
  [[nodiscard]] bool find_paths_in(const lpm_view<Key>& trie, const request_run& run) noexcept;
  void find_paths_of(const forwarding_table& table, const request_run& run,
                     const unknown_requests& some) noexcept;
  /// `at(j)` is the place in the run of the group's request number j.
  template <class At>
  void find_paths_of_group(const forwarding_table& table, const request_run& run,
                           std::uint32_t count, At at) noexcept;
  void choose(std::uint32_t i, const hop* via) noexcept {
    decided_.hops[i] = via;
    for (std::size_t line = 0; line < sizeof *via; line += 64)
      __builtin_prefetch(reinterpret_cast<const std::byte*>(via) + line);
  }
  void select_hops(const forwarding_table& table, const request_run& run) noexcept;
  void select_members(const forwarding_table& table, const request_run& run) noexcept;
  void check_remembered(const forwarding_table& table, const request_run& run) const noexcept;
  void submit_or_divert(const tx_request& request, const hop& via,
                        const tx_descriptor& descriptor) noexcept;
  [[gnu::noinline]] void pass_port_or_divert(const tx_request& request, const hop& via,
                                             const tx_descriptor& descriptor) noexcept;
  void submit_tracked(const request_run& run) noexcept;
  void submit_if_known(const tx_request& request, const hop& via, egress_slot tracked,
                       const tx_descriptor& descriptor, tracked_flows::line* flow) noexcept;

  [[nodiscard]] std::uint32_t serve_ports() noexcept;
  void serve_closing_port(tx_port& port, std::chrono::milliseconds grace) noexcept;
  void kick(tx_port& port) noexcept;
  void collect(tx_port& port) noexcept;
  void divert_waiting(tx_port& port, divert_reason reason) noexcept;
  void divert(const tx_request& request, divert_reason reason) noexcept {
    divert(diverted_request{request, reason});
  }
  void divert(const diverted_request& what) noexcept;
  void publish_diverted() noexcept;
  void give_back(std::span<const frame_index> frames) noexcept;
  void give_back_one(frame_index frame) noexcept;
  void return_to(tx_channel& channel, std::span<const frame_index> frames) noexcept;
  void flush_returned(tx_channel& channel) noexcept;
  void finish_channels(bool busy) noexcept;
  void check_conservation() const noexcept;

  void go_offline() noexcept;
  /// What to do in the idle round of this number. Returns the number of the next.
  [[nodiscard]] unsigned idle(unsigned round) noexcept;
  /// Returns whether there is something to do.
  [[nodiscard]] bool sleep() noexcept;
  /// On the thread of a producer, while the core sleeps: whether that was enough.
  [[nodiscard]] bool stand_in() noexcept;
  /// Whether nobody minds when completions are collected at the next occasion.
  [[nodiscard]] bool can_wait() const noexcept;
  [[nodiscard]] bool has_work() noexcept;

  const frame_memory memory_;
  const publisher& tables_;
  doorbell& control_bell_;
  const idle_policy idle_policy_;
  const clock::duration stall_deadline_;
  const clock::duration sample_interval_;
  const tracked_flows* const tracked_;

  std::vector<std::uint8_t> slot_of_frame_;  ///< Of frame_places.
  spsc_ring<diverted_request> diverted_;
  spsc_ring<flow_sample> samples_;
  cowire::work_bell work_bell_;
  tx_counters counters_;

  // Core thread only.
  epoch_domain::reader reader_;
  const tx_configuration* active_ = nullptr;
  std::size_t next_channel_ = 0;
  std::uint64_t held_ = 0;
  clock::time_point now_{};
  clock::time_point next_sample_;
  std::uint32_t collected_ = 0;  ///< Frames completed in this batch.
  bool ring_control_ = false;
  bool online_ = false;
  batch batch_;
  decisions decided_;
  flow_cache flows_;

  // Between the control thread and the core.
  alignas(128) std::atomic<const tx_configuration*> wanted_{nullptr};
  std::atomic<bool> stop_{false};
  alignas(128) std::atomic<const tx_configuration*> applied_{nullptr};
};

}  // namespace cowire::detail

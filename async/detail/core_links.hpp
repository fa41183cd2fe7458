// SPDX-License-Identifier: Apache-2.0
/// The rings between one producer and the TX cores, and the one on which the kernel path gives
/// frames back.
///
/// Each holds the producer's whole slice, so a push cannot fail. The producer's thread, but where
/// said otherwise; pushes may also come from elsewhere, under one lock (held_back.hpp).
#pragma once

#include <cowire/base/assert.hpp>
#include <cowire/base/spsc_ring.hpp>
#include <cowire/xdp/producer_channel.hpp>
#include <cowire/xdp/tx_request.hpp>
#include <cowire/xdp/umem.hpp>
#include <cowire/xdp/work_bell.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace cowire::detail {

class core_set;

class core_links {
 public:
  /// `cores` outlives it.
  core_links(std::uint32_t producer, const frame_slice& slice, core_set& cores);

  [[nodiscard]] producer_channel& channel(std::uint32_t core) noexcept {
    return links_[core]->channel;
  }

  /// Pushes a request; who has pushed rings.
  void push(std::uint32_t core, const tx_request& request) noexcept {
    check(links_[core]->channel.requests.try_push(request));
  }
  /// The same, `make()` writing it in place.
  template <class Make>
  void emplace(std::uint32_t core, Make&& make) noexcept {
    check(links_[core]->channel.requests.try_emplace(make));
  }
  void push_all(std::uint32_t core, std::span<const tx_request> requests) noexcept {
    check(links_[core]->channel.requests.push_some(requests) == requests.size());
  }
  void ring(std::uint32_t core) noexcept { links_[core]->bell.ring(); }
  /// Cores that sleep collect completions when somebody needs them. Any thread.
  void ask_for_completions() noexcept {
    for (const auto& one : links_) one->bell.ring();
  }

  /// Whether cores tell the control thread of frames that come back. Any thread.
  void set_waiting(bool waiting) noexcept {
    for (const auto& one : links_) one->channel.waiting.store(waiting, std::memory_order_relaxed);
  }
  /// Any thread.
  [[nodiscard]] bool anything_returned() const noexcept;
  /// Frames that came back so far, taken home or not. Any thread.
  [[nodiscard]] std::uint64_t returned() const noexcept;
  /// Gives each frame that came back to `take`; whether there was any.
  template <class Take>
  bool take_home(Take&& take) noexcept {
    bool any = false;
    for (const auto& one : links_) any |= take_home(one->channel.returned, take);
    return any | take_home(by_kernel_, take);
  }
  /// Control thread: the kernel path is done with a frame.
  void return_by_kernel(frame_index frame) noexcept { check(by_kernel_.try_push(frame)); }

 private:
  struct link {
    link(std::uint32_t producer, const frame_slice& slice, cowire::work_bell& core_bell)
        : channel(producer, slice.first, slice.count), bell(core_bell) {}
    producer_channel channel;
    cowire::work_bell& bell;
  };

  static void check(bool pushed) noexcept { COWIRE_ASSERT(pushed); }
  template <class Take>
  static bool take_home(spsc_ring<frame_index>& from, Take& take) noexcept {
    std::array<frame_index, 64> frames;
    bool any = false;
    while (const auto count = from.pop_some(frames)) {
      any = true;
      for (std::size_t i = 0; i < count; ++i) take(frames[i]);
    }
    return any;
  }

  std::vector<std::unique_ptr<link>> links_;  ///< By core.
  spsc_ring<frame_index> by_kernel_;
};

}  // namespace cowire::detail

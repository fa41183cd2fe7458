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

  /// Whether cores tell the kernel path's thread of frames that come back. Any thread.
  void set_waiting(bool waiting) noexcept {
    for (const auto& one : links_) one->channel.waiting.store(waiting, std::memory_order_relaxed);
  }
  /// Any thread.
  [[nodiscard]] bool anything_returned() const noexcept;
  /// Frames that came back so far, taken home or not. Any thread.
  [[nodiscard]] std::uint64_t returned() const noexcept;
  /// Calls `take(frame, number)` for each frame that came back, with the errno that the kernel path
  /// was refused with, 0 of others; whether there was any.
  template <class Take>
  bool take_home(Take&& take) noexcept {
    bool any = false;
    const auto sent = [&take](frame_index frame) { take(frame, 0); };
    for (const auto& one : links_) any |= take_all(one->channel.returned, sent);
    return any |
           take_all(by_kernel_, [&take](const kernel_return& one) { take(one.frame, one.number); });
  }
  /// Kernel path's thread: it is done with a frame; 0, or the errno it was refused with.
  void return_by_kernel(frame_index frame, int number) noexcept {
    check(by_kernel_.try_push({frame, number}));
  }

 private:
  struct link {
    link(std::uint32_t producer, const frame_slice& slice, cowire::work_bell& core_bell)
        : channel(producer, slice.first, slice.count), bell(core_bell) {}
    producer_channel channel;
    cowire::work_bell& bell;
  };

  struct kernel_return {
    frame_index frame = 0;
    int number = 0;
  };

  static void check(bool pushed) noexcept { COWIRE_ASSERT(pushed); }
  template <class Element, class Take>
  static bool take_all(spsc_ring<Element>& from, const Take& take) noexcept {
    std::array<Element, 64> elements;
    bool any = false;
    while (const auto count = from.pop_some(elements)) {
      any = true;
      for (std::size_t i = 0; i < count; ++i) take(elements[i]);
    }
    return any;
  }

  std::vector<std::unique_ptr<link>> links_;  ///< By core.
  spsc_ring<kernel_return> by_kernel_;
};

}  // namespace cowire::detail

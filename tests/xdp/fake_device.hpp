// SPDX-License-Identifier: Apache-2.0
/// The kernel's side of a tx_queue in plain memory: a device that transmits when told to.
#pragma once

#include <cowire/xdp/tx_queue.hpp>
#include <cowire/xdp/umem.hpp>

#include <atomic>
#include <cstdint>
#include <vector>

namespace cowire::test {

class fake_device {
 public:
  explicit fake_device(std::uint32_t ring_size, std::uint32_t completion_size = 0)
      : descriptors_(ring_size), completions_(completion_size ? completion_size : 2 * ring_size) {}

  [[nodiscard]] tx_queue queue() noexcept {
    tx_queue q;
    q.producer = &producer_;
    q.consumer = &consumer_;
    q.flags = &flags_;
    q.descriptors = descriptors_.data();
    q.size = static_cast<std::uint32_t>(descriptors_.size());
    q.completion_producer = &completion_producer_;
    q.completion_consumer = &completion_consumer_;
    q.completions = completions_.data();
    q.completion_size = static_cast<std::uint32_t>(completions_.size());
    q.kick = [](void* self) noexcept { return static_cast<fake_device*>(self)->kicked(); };
    q.kick_context = this;
    return q;
  }

  /// Takes up to `limit` descriptors off the ring: `sent(descriptor)` for each, then they wait for
  /// complete().
  template <class Sent>
  std::uint32_t transmit(std::uint32_t limit, Sent&& sent) {
    const std::uint32_t ready = std::atomic_ref(producer_).load(std::memory_order_acquire);
    std::uint32_t count = 0;
    for (; consumer_ != ready && count < limit; ++count) {
      const tx_descriptor& d = descriptors_[consumer_ % descriptors_.size()];
      sent(d);
      sent_.push_back(d.address);
      std::atomic_ref(consumer_).store(consumer_ + 1, std::memory_order_release);
    }
    return count;
  }
  std::uint32_t transmit(std::uint32_t limit = ~0u) {
    return transmit(limit, [](const tx_descriptor&) {});
  }

  /// Reports up to `limit` transmitted frames, oldest first, as far as the completion ring has
  /// room.
  std::uint32_t complete(std::uint32_t limit = ~0u) {
    std::uint32_t count = 0;
    while (count < limit && first_sent_ < sent_.size()) {
      const std::uint32_t consumed =
          std::atomic_ref(completion_consumer_).load(std::memory_order_acquire);
      if (completion_producer_ - consumed == completions_.size()) break;
      report(sent_[first_sent_++]);
      ++count;
    }
    if (first_sent_ == sent_.size()) {
      sent_.clear();
      first_sent_ = 0;
    }
    return count;
  }

  /// A completion for any address, also one that is not there.
  void report(std::uint64_t address) {
    completions_[completion_producer_ % completions_.size()] = address;
    std::atomic_ref(completion_producer_)
        .store(completion_producer_ + 1, std::memory_order_release);
  }

  void set_need_wakeup(bool on) noexcept {
    std::atomic_ref(flags_).store(on ? 1 : 0, std::memory_order_relaxed);
  }
  /// What kicks answer: 0 or an errno.
  std::atomic<int> kick_answer{0};
  std::atomic<std::uint64_t> kicks{0};

 private:
  int kicked() noexcept {
    kicks.fetch_add(1, std::memory_order_relaxed);
    return kick_answer.load(std::memory_order_relaxed);
  }

  std::uint32_t producer_ = 0, consumer_ = 0, flags_ = 1;
  std::uint32_t completion_producer_ = 0, completion_consumer_ = 0;
  std::vector<tx_descriptor> descriptors_;
  std::vector<std::uint64_t> completions_;
  std::vector<std::uint64_t> sent_;
  std::size_t first_sent_ = 0;
};

}  // namespace cowire::test

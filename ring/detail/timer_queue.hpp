// SPDX-License-Identifier: Apache-2.0
/// Deadlines of a ring thread: a binary heap that knows where each entry lies, so that a cancelled
/// one leaves at once. Ring thread only. No allocation but the vector's growth.
#pragma once

#include <chrono>
#include <cstddef>
#include <utility>
#include <vector>

namespace cowire::detail {

class timer_entry {
 public:
  using clock = std::chrono::steady_clock;
  timer_entry() = default;
  timer_entry(const timer_entry&) = delete;
  timer_entry& operator=(const timer_entry&) = delete;
  virtual ~timer_entry() = default;
  /// Ring thread; the entry has left the queue.
  virtual void on_expired() noexcept = 0;

 private:
  friend class timer_queue;
  static constexpr std::size_t nowhere = ~std::size_t{0};
  clock::time_point deadline_;
  std::size_t position_ = nowhere;
};

class timer_queue {
 public:
  using clock = timer_entry::clock;

  /// `max()` when empty.
  [[nodiscard]] clock::time_point earliest() const noexcept {
    return heap_.empty() ? clock::time_point::max() : heap_.front()->deadline_;
  }
  void insert(timer_entry& entry, clock::time_point deadline) {
    entry.deadline_ = deadline;
    entry.position_ = heap_.size();
    heap_.push_back(&entry);
    rise(entry.position_);
  }
  /// Nothing happens when the entry is not queued.
  void remove(timer_entry& entry) noexcept {
    const std::size_t position = std::exchange(entry.position_, timer_entry::nowhere);
    if (position == timer_entry::nowhere) return;
    timer_entry* last = heap_.back();
    heap_.pop_back();
    if (last == &entry) return;
    place(last, position);
    rise(position);
    sink(last->position_);
  }
  /// Removes and notifies every entry that is due.
  void expire(clock::time_point now) noexcept {
    while (!heap_.empty() && heap_.front()->deadline_ <= now) {
      timer_entry& due = *heap_.front();
      remove(due);
      due.on_expired();
    }
  }

 private:
  void place(timer_entry* entry, std::size_t position) noexcept {
    heap_[position] = entry;
    entry->position_ = position;
  }
  void rise(std::size_t position) noexcept {
    timer_entry* entry = heap_[position];
    while (position > 0) {
      const std::size_t parent = (position - 1) / 2;
      if (heap_[parent]->deadline_ <= entry->deadline_) break;
      place(heap_[parent], position);
      position = parent;
    }
    place(entry, position);
  }
  void sink(std::size_t position) noexcept {
    timer_entry* entry = heap_[position];
    for (std::size_t child; (child = 2 * position + 1) < heap_.size(); position = child) {
      if (child + 1 < heap_.size() && heap_[child + 1]->deadline_ < heap_[child]->deadline_)
        ++child;
      if (entry->deadline_ <= heap_[child]->deadline_) break;
      place(heap_[child], position);
    }
    place(entry, position);
  }

  std::vector<timer_entry*> heap_;
};

}  // namespace cowire::detail

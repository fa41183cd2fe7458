// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/epoch.hpp>

#include <cowire/base/assert.hpp>
#include <cowire/base/relax_cpu.hpp>

#include <algorithm>
#include <limits>
#include <thread>

namespace cowire {

epoch_domain::reader& epoch_domain::reader::operator=(reader&& other) noexcept {
  if (this != &other) {
    unregister();
    domain_ = std::exchange(other.domain_, nullptr);
    slot_ = std::exchange(other.slot_, nullptr);
  }
  return *this;
}

void epoch_domain::reader::unregister() noexcept {
  if (slot_ == nullptr) return;
  leave();
  slot_->taken.store(false, std::memory_order_release);  // Pairs with register_reader()'s exchange.
  slot_ = nullptr;
}

epoch_domain::~epoch_domain() {
  slot* next = slots_.load(std::memory_order_acquire);
  while (next != nullptr) {
    const std::unique_ptr<slot> own(std::exchange(next, next->next));
    COWIRE_ASSERT(!own->taken.load(std::memory_order_acquire));  // A reader outlives its domain.
  }
  while (!retired_.empty()) free_front();
}

epoch_domain::reader epoch_domain::register_reader() {
  for (slot* s = slots_.load(std::memory_order_acquire); s != nullptr; s = s->next) {
    // Pairs with unregister(): the last owner's leave() is visible to the next one.
    if (!s->taken.exchange(true, std::memory_order_acq_rel)) return {this, s};
  }
  auto fresh = std::make_unique<slot>();
  fresh->next = slots_.load(std::memory_order_relaxed);
  // Release: whoever walks the list finds `next` and the offline announcement. A slot linked too
  // late for the writer's scan belongs to a reader whose enter() has yet to pass its fence.
  while (!slots_.compare_exchange_weak(fresh->next, fresh.get(), std::memory_order_release,
                                       std::memory_order_relaxed)) {
  }
  return {this, fresh.release()};
}

void epoch_domain::retire(void* object, void (*destroy)(void*) noexcept, std::size_t bytes) {
  retired_.push_back({object, destroy, bytes, epoch_.load(std::memory_order_relaxed) + 1});
  bytes_waiting_ += bytes;
}

void epoch_domain::begin_epoch() noexcept {
  const std::uint64_t current = epoch_.load(std::memory_order_relaxed);
  if (retired_.empty() || retired_.back().epoch <= current) return;
  epoch_.store(current + 1, std::memory_order_release);  // Pairs with the load in enter().
  // Unlinking before scanning. Pairs with the fence in come_online().
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

std::uint64_t epoch_domain::oldest_announced() const noexcept {
  std::uint64_t oldest = std::numeric_limits<std::uint64_t>::max();
  for (const slot* s = slots_.load(std::memory_order_acquire); s != nullptr; s = s->next) {
    const std::uint64_t announced = s->announced.load(std::memory_order_acquire);
    if (announced != offline) oldest = std::min(oldest, announced);
  }
  return oldest;
}

void epoch_domain::free_front() noexcept {
  const retired_object front = retired_.front();
  retired_.pop_front();  // First, because destroy() may retire more.
  bytes_waiting_ -= front.bytes;
  ++freed_;
  front.destroy(front.object);
}

std::size_t epoch_domain::reclaim() noexcept {
  if (retired_.empty()) return 0;
  begin_epoch();
  const std::uint64_t oldest = oldest_announced();
  // What destroy() retires meanwhile needs an epoch of its own, hence a later call.
  const std::uint64_t limit = std::min(oldest, epoch_.load(std::memory_order_relaxed));
  std::size_t count = 0;
  for (; !retired_.empty() && retired_.front().epoch <= limit; ++count) free_front();
  return count;
}

bool epoch_domain::synchronize(std::chrono::steady_clock::time_point deadline) noexcept {
  constexpr int spins_before_pause = 100;   // Less than a microsecond: a reader that is awake.
  constexpr int spins_before_yield = 1000;  // Some 10 us: longer than a reader's batch.
  const std::uint64_t until = freed_ + retired_.size();
  for (int spins = 0;; ++spins) {
    reclaim();
    if (freed_ >= until) return true;
    if (spins < spins_before_yield) {
      if (spins >= spins_before_pause) relax_cpu();
      continue;
    }
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::yield();
  }
}

epoch_statistics epoch_domain::statistics() const noexcept {
  return {retired_.size(), bytes_waiting_, freed_, epoch_.load(std::memory_order_relaxed) - 1};
}

}  // namespace cowire

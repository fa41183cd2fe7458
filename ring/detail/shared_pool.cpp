// SPDX-License-Identifier: Apache-2.0
#include <cowire/ring/detail/shared_pool.hpp>

#include <cowire/base/assert.hpp>
#include <cowire/ring/shared_source.hpp>

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>

namespace cowire::detail {
namespace {

constexpr std::size_t cache_line = 64;

constexpr std::size_t rounded(std::size_t size) {
  return (size + cache_line - 1) / cache_line * cache_line;
}

}  // namespace

shared_pool::shared_pool(event_loop& l, const datagram_source::options& layout)
    : datagram_pool(layout),
      loop_(l),
      layout_(layout),
      size_(layout.payload_offset() + layout.payload_capacity),
      stride_(rounded(size_)),
      group_(l.kernel().make_group({}, depth_max)) {}

bool shared_pool::serves(const datagram_source::options& layout) const noexcept {
  return sources_ > 0 && layout.payload_capacity == layout_.payload_capacity &&
         layout.name_capacity == layout_.name_capacity &&
         layout.control_capacity == layout_.control_capacity &&
         reserved_ + layout.buffer_count + depth_max <= id_count;
}

std::shared_ptr<shared_pool> shared_pool::join(event_loop& loop,
                                               const datagram_source::options& layout) {
  auto& all = loop.shared_pools();
  std::shared_ptr<shared_pool> found;
  std::erase_if(all, [&](const std::weak_ptr<shared_pool>& each) {
    auto alive = each.lock();
    if (!alive || alive->sources_ == 0) return true;
    if (!found && alive->serves(layout)) found = std::move(alive);
    return false;
  });
  if (!found) {
    found = std::make_shared<shared_pool>(loop, layout);
    all.push_back(found);
  }
  found->reserve(layout.buffer_count);
  ++found->sources_;
  return found;
}

void shared_pool::reserve(std::size_t count) {
  while (capacity_ < reserved_ + count + depth_) grow();
  reserved_ += count;
  refill();
}

void shared_pool::grow() {
  auto made = std::make_unique<chunk>();
  // Not written to: pages that no datagram ever comes to lie in are never made.
  made->bytes = std::make_unique_for_overwrite<std::byte[]>(stride_ * chunk_size);
  const std::size_t first = capacity_;
  // All that may throw comes before all that would have to be undone.
  group_->reserve(first + chunk_size);
  free_.reserve(first + chunk_size);
  {
    const std::lock_guard lock(mutex_);
    returned_.reserve(first + chunk_size);
  }
  chunks_[first / chunk_size] = std::move(made);
  for (std::size_t id = first; id < first + chunk_size; ++id)
    group_->append(buffer(static_cast<std::uint16_t>(id)));
  capacity_ += chunk_size;
  // Under those that are in use already: new ones are the coldest.
  free_.insert(free_.begin(), chunk_size, 0);
  for (std::size_t i = 0; i < chunk_size; ++i) free_[i] = static_cast<std::uint16_t>(first + i);
}

std::span<std::byte> shared_pool::buffer(std::uint16_t id) const noexcept {
  return {chunks_[id / chunk_size]->bytes.get() + id % chunk_size * stride_, size_};
}

void shared_pool::refill() noexcept {
  while (group_->available() < depth_ && !free_.empty()) group_->provide(pop());
}

std::uint16_t shared_pool::pop() noexcept {
  COWIRE_ASSERT(!free_.empty());
  const std::uint16_t id = free_.back();
  free_.pop_back();
  return id;
}

void shared_pool::hand_to(shared_source& whom, std::uint16_t id) noexcept {
  lease(id);
  holder(id) = &whom;
  refill();
}

void shared_pool::put_back(std::uint16_t id) noexcept {
  free_.push_back(id);
  refill();
}

void shared_pool::returned(std::uint16_t id) noexcept {
  put_back(id);
  if (shared_source* const whose = std::exchange(holder(id), nullptr))
    whose->lease_ended();
  else
    --reserved_;  // The last of a source that has left.
}

void shared_pool::deepen() {
  collect();
  if (depth_ < depth_max) {
    depth_ *= 2;
    reserve(0);
  }
  refill();
}

void shared_pool::give_back(std::uint16_t id) noexcept {
  if (born_.inherited()) return;
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  if (loop_.running_in_this_thread()) return returned(id);
  returned_.push_back(id);
  // The ring thread fetches them whenever it wants for buffers; it is woken for this alone where a
  // source waits.
  if (waiting_ == 0 || announced_) return;
  announced_ = true;
  loop_.post_function([self = shared_from_this()] {
    {
      const std::lock_guard again(self->mutex_);
      self->announced_ = false;
    }
    self->collect();
  });
}

void shared_pool::collect() noexcept {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  for (const std::uint16_t id : returned_) returned(id);
  returned_.clear();
}

void shared_pool::add_waiting(int change) noexcept {
  const std::lock_guard lock(mutex_);
  waiting_ += change;
}

void shared_pool::leave(shared_source& source, std::size_t reserved, std::size_t held) noexcept {
  reserved_ -= reserved - held;
  for (std::size_t i = 0; held > 0 && i < capacity_ / chunk_size; ++i)
    for (shared_source*& each : chunks_[i]->holders)
      if (each == &source) each = nullptr, --held;
  if (--sources_ > 0) return;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  group_.reset();
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/held_back.hpp>
#include <cowire/base/assert.hpp>

namespace cowire::detail {

void held_back::allow() {
  const std::lock_guard lock(guard_);
  if (!requests_) requests_ = std::make_unique<spsc_ring<held_request>>(frames_);
  allowed_.store(true,
                 std::memory_order_release);  // Pairs with the acquires in feed(), may_feed().
}

void held_back::forbid_if_empty() {
  const std::lock_guard lock(guard_);
  if (requests_ && requests_->readable() == 0) allowed_.store(false, std::memory_order_relaxed);
}

void held_back::pass(std::uint32_t core, const tx_request& request) noexcept {
  const std::lock_guard lock(guard_);
  push(core, request);
}

void held_back::hold(std::uint32_t core, const tx_request& request) noexcept {
  const std::lock_guard lock(guard_);
  const bool held = requests_->try_push({core, request});
  COWIRE_ASSERT(held);  // It holds every frame of the slice.
  hand_over();
}

bool held_back::shed_oldest(frame_index& frame) noexcept {
  held_request oldest;
  const std::lock_guard lock(guard_);
  if (!requests_->try_pop(oldest)) return false;
  shed_.add(1);
  frame = oldest.request.frame;
  return true;
}

void held_back::feed() noexcept {
  if (!allowed_.load(std::memory_order_acquire)) return;  // Pairs with allow().
  const std::lock_guard lock(guard_);
  hand_over();
}

bool held_back::may_feed() noexcept {
  if (!allowed_.load(std::memory_order_acquire)) return false;  // Pairs with allow().
  const std::lock_guard lock(guard_);
  return requests_->readable() != 0 && may_hand_over();
}

void held_back::push(std::uint32_t core, const tx_request& request) noexcept {
  links_.push(core, request);
  links_.ring(core);
}

bool held_back::may_hand_over() noexcept {
  // On another thread than the producer's it may be one too many: then the producer is about to
  // come here itself.
  const std::uint64_t on_the_way =
      submitted_.get() - shed_.get() - requests_->readable() - links_.returned();
  return on_the_way < frames_ / 2;
}

void held_back::hand_over() noexcept {
  held_request next;
  do {
    while (may_hand_over() && requests_->try_pop(next)) push(next.core, next.request);
    if (requests_->readable() == 0) return;
    // As in producer::ask_for_wake(): either we see that frames came back, or who returns them sees
    // this.
    links_.set_waiting(true);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    links_.ask_for_completions();
  } while (may_hand_over());
}

}  // namespace cowire::detail

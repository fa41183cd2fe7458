// SPDX-License-Identifier: Apache-2.0
#include <cowire/async/detail/flush_generations.hpp>

namespace cowire::detail {

std::uint64_t flush_generations::close() {
  if (newest_outstanding_ == 0) return newest_ - 1;
  older_outstanding_.push_back(std::exchange(newest_outstanding_, 0));
  return newest_++;
}

void flush_generations::when_over(std::function<void()> then) {
  const std::uint64_t generation = close();
  if (is_over(generation)) return then();
  promises_.push_back({generation, std::move(then)});
}

void flush_generations::settle() {
  while (!older_outstanding_.empty() && older_outstanding_.front() == 0)
    older_outstanding_.pop_front();
  while (!promises_.empty() && is_over(promises_.front().generation)) {
    promises_.front().then();
    promises_.pop_front();
  }
}

}  // namespace cowire::detail

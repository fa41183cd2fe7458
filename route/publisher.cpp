// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/publisher.hpp>

namespace cowire {

const forwarding_table* publisher::store(forwarding_table* table) noexcept {
  if (table != nullptr) table->publication = ++published_;
  const forwarding_table* before =
      current_.load(std::memory_order_relaxed);      // Written by this thread only.
  current_.store(table, std::memory_order_release);  // Pairs with the acquire in current().
  return before;
}

}  // namespace cowire

// SPDX-License-Identifier: Apache-2.0
/// Where the TX cores find the current forwarding table.
///
/// One writer (the compiler's thread) stores, any number of readers load. A reader loads inside its
/// epoch section (epoch.hpp) and may use what it got until it leaves it; it never waits and never
/// retries.
#pragma once

#include <cowire/route/forwarding_table.hpp>

#include <atomic>

namespace cowire {

class publisher {
 public:
  publisher() = default;
  publisher(const publisher&) = delete;
  publisher& operator=(const publisher&) = delete;

  /// The newest version, or null before the first publication. Only inside an epoch section.
  [[nodiscard]] const forwarding_table* current() const noexcept {
    return current_.load(std::memory_order_acquire);  // Pairs with the release in store().
  }

  /// The writer: makes `table` current, numbers it (forwarding_table::publication) and returns the
  /// one before. Everything reachable from `table` was written before this call, and no reader may
  /// see it yet; the old one may be freed only after a grace period. Null: there is no table any
  /// more.
  const forwarding_table* store(forwarding_table* table) noexcept;

 private:
  std::uint64_t published_ = 0;  ///< By the writer.
  alignas(64) std::atomic<const forwarding_table*> current_{nullptr};
};

}  // namespace cowire

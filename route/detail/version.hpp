// SPDX-License-Identifier: Apache-2.0
/// The version that readers see, and the way from one to the next.
///
/// The compiler's thread only.
#pragma once

#include <cowire/route/detail/class_set.hpp>
#include <cowire/route/detail/hop_store.hpp>
#include <cowire/route/epoch.hpp>
#include <cowire/route/forwarding_table.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/publisher.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace cowire::detail {

/// What one publication points into.
struct version_block {
  forwarding_table table;
  std::vector<forwarding_table::class_table> class_tables;
  std::vector<std::uint16_t> class_index;
  hop_store::directory directory;

  [[nodiscard]] std::size_t bytes() const noexcept;
};

class version_store {
 public:
  /// Both outlive it.
  version_store(epoch_domain& epoch, publisher& publish_to)
      : epoch_(epoch), publisher_(publish_to) {}
  /// Readers see no version any more; the caller waits for those that still do.
  ~version_store() { static_cast<void>(publisher_.store(nullptr)); }
  version_store(const version_store&) = delete;
  version_store& operator=(const version_store&) = delete;

  /// Publishes what classes and hops hold now with one atomic store, then retires what it replaced.
  void publish(const mirror_settings& settings, class_set& classes,
               std::shared_ptr<hop_store>& hops);

  /// 0 = none yet.
  [[nodiscard]] std::uint64_t number() const noexcept { return number_; }
  /// Of the current version's own parts.
  [[nodiscard]] std::size_t bytes() const noexcept { return current_ ? current_->bytes() : 0; }

 private:
  epoch_domain& epoch_;
  publisher& publisher_;
  std::unique_ptr<version_block> current_;
  std::uint64_t number_ = 0;
};

}  // namespace cowire::detail

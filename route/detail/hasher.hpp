// SPDX-License-Identifier: Apache-2.0
/// Mixes numbers into one, for hash tables: of no use against somebody who chooses the numbers to
/// collide.
#pragma once

#include <cowire/base/address.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace cowire::detail {

class hasher {
 public:
  void add(std::uint64_t value) noexcept {
    state_ = (state_ ^ value) * 0x9e3779b97f4a7c15u;
    state_ ^= state_ >> 29;
  }
  void add(const std::optional<ip_address>& address) noexcept {
    add(address ? std::hash<ip_address>{}(*address) : 1);
  }
  [[nodiscard]] std::size_t result() const noexcept { return state_; }

 private:
  std::uint64_t state_ = 0;
};

}  // namespace cowire::detail

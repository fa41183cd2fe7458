// SPDX-License-Identifier: Apache-2.0
/// Sets of addresses of one family as intervals: which destinations a walk of a ruleset still
/// speaks of.
///
/// Copies share the intervals until one of them changes. A small set is taken from, or added to, a
/// large one in place; of two large ones both are read once. One thread at a time.
#pragma once

#include <cowire/base/address.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace cowire::detail {

/// An address of either family as a number in host order.
__extension__ using address_number = unsigned __int128;

[[nodiscard]] address_number number_of(const ip_address& address) noexcept;
[[nodiscard]] ip_address address_of(ip_family family, address_number number) noexcept;
[[nodiscard]] address_number highest_number(ip_family family) noexcept;

class address_set {
 public:
  struct interval {
    address_number first = 0, last = 0;  ///< Both inside.
    friend bool operator==(const interval&, const interval&) = default;
  };

  /// Empty.
  address_set() = default;
  explicit address_set(interval one) : address_set(std::vector<interval>{one}) {}
  explicit address_set(const ip_prefix& prefix);
  /// In any order; they may overlap.
  explicit address_set(std::vector<interval> intervals);

  [[nodiscard]] std::span<const interval> intervals() const noexcept;
  [[nodiscard]] std::size_t size() const noexcept { return intervals().size(); }
  [[nodiscard]] bool empty() const noexcept { return size() == 0; }
  [[nodiscard]] bool contains(address_number number) const noexcept;

  [[nodiscard]] address_set intersection(const address_set& with) const;
  void remove(const address_set& what);
  void unite(const address_set& with);
  /// Removes what this has of `what`, and returns it.
  [[nodiscard]] address_set extract(const address_set& what) {
    address_set taken = intersection(what);
    remove(taken);
    return taken;
  }
  friend bool operator==(const address_set& a, const address_set& b) noexcept;

 private:
  using list = std::vector<interval>;
  /// For changes: no other set sees them.
  [[nodiscard]] list& own();
  void remove_one(list& from, const interval& what) const;
  void add_one(list& to, const interval& what) const;
  [[nodiscard]] bool is_much_smaller(const address_set& other) const noexcept {
    return size() * 16 < other.size();
  }

  std::shared_ptr<list> list_;  ///< Sorted, apart from each other; null = none.
};

}  // namespace cowire::detail

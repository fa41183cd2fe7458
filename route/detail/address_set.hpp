// SPDX-License-Identifier: Apache-2.0
/// Sets of addresses of one family as intervals: which destinations a walk of a ruleset still
/// speaks of.
///
/// Copies share the intervals until one of them changes. A small set is taken from, or added to, a
/// large one in place, and moves few of its intervals, as they lie in pieces: ten thousand rules
/// may each take an address from a hundred thousand. Of two large sets both are read once. One
/// thread at a time.
#pragma once

#include <cowire/base/address.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <span>
#include <vector>

namespace cowire::detail {

/// An address of either family as a number in host order.
__extension__ using address_number = unsigned __int128;

[[nodiscard]] address_number number_of(const ip_address& address) noexcept;
[[nodiscard]] ip_address address_of(ip_family family, address_number number) noexcept;
[[nodiscard]] address_number highest_number(ip_family family) noexcept;

struct address_interval {
  address_number first = 0, last = 0;  ///< Both inside.
  friend bool operator==(const address_interval&, const address_interval&) = default;
};

/// Intervals, sorted and apart from each other, in pieces of some hundreds. (A shared_list is for
/// long ones only: here nearly all have one interval, and there is one for each rule of a walk.)
class interval_list {
  using piece = std::vector<address_interval>;

 public:
  class iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = address_interval;
    using difference_type = std::ptrdiff_t;
    using pointer = const address_interval*;
    using reference = const address_interval&;

    iterator() = default;
    reference operator*() const noexcept { return (*pieces_)[piece_][place_]; }
    pointer operator->() const noexcept { return &**this; }
    iterator& operator++() noexcept {
      if (++place_ == (*pieces_)[piece_].size()) {
        ++piece_;
        place_ = 0;
      }
      return *this;
    }
    iterator operator++(int) noexcept {
      const iterator before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const iterator&, const iterator&) = default;

   private:
    friend class interval_list;
    iterator(const std::vector<piece>& pieces, std::size_t piece, std::size_t place)
        : pieces_(&pieces), piece_(piece), place_(place) {}
    const std::vector<piece>* pieces_ = nullptr;
    std::size_t piece_ = 0, place_ = 0;
  };

  interval_list() = default;
  /// Sorted and apart from each other.
  explicit interval_list(std::vector<address_interval> all);

  [[nodiscard]] iterator begin() const noexcept { return {pieces_, 0, 0}; }
  [[nodiscard]] iterator end() const noexcept { return {pieces_, pieces_.size(), 0}; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  /// There is one at least.
  [[nodiscard]] const address_interval& front() const noexcept { return pieces_.front().front(); }
  [[nodiscard]] const address_interval& back() const noexcept { return pieces_.back().back(); }
  /// The first that does not end below `number`.
  [[nodiscard]] iterator first_reaching(address_number number) const noexcept;
  /// `with` for those in [from, to), which keeps the order. Iterators are invalid afterwards.
  void replace(iterator from, iterator to, std::span<const address_interval> with);

 private:
  void settle(std::size_t piece);

  std::vector<piece> pieces_;  ///< None is empty.
  std::size_t size_ = 0;
};

class address_set {
 public:
  using interval = address_interval;

  /// Empty.
  address_set() = default;
  explicit address_set(interval one) : address_set(std::vector<interval>{one}) {}
  explicit address_set(const ip_prefix& prefix);
  /// In any order; they may overlap.
  explicit address_set(std::vector<interval> intervals);

  [[nodiscard]] const interval_list& intervals() const noexcept { return list_ ? *list_ : none_; }
  [[nodiscard]] std::size_t size() const noexcept { return intervals().size(); }
  [[nodiscard]] bool empty() const noexcept { return list_ == nullptr; }
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
  /// For changes: no other set sees them.
  [[nodiscard]] interval_list& own();
  [[nodiscard]] bool is_much_smaller(const address_set& other) const noexcept {
    return size() * 16 < other.size();
  }

  static inline const interval_list none_{};
  std::shared_ptr<interval_list> list_;  ///< Null = none; otherwise there is one at least.
};

}  // namespace cowire::detail

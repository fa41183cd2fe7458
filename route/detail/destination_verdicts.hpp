// SPDX-License-Identifier: Apache-2.0
/// What the output path does to the destinations of one family, in pieces between which it may
/// differ.
///
/// A value; one thread at a time.
#pragma once

#include <cowire/route/detail/address_set.hpp>
#include <cowire/route/output_path.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace cowire::detail {

class destination_verdicts {
 public:
  /// Nothing is touched yet.
  explicit destination_verdicts(const ip_prefix& region)
      : destination_verdicts(address_set(region)) {}
  explicit destination_verdicts(address_set region);

  /// Destinations of which nothing was said so far.
  [[nodiscard]] const address_set& untouched() const noexcept { return untouched_; }
  [[nodiscard]] bool touches_something() const noexcept { return !told_.empty(); }
  /// The destinations among these of which nothing was said yet meet an obstacle.
  void touch(const address_set& where, const output_verdict& obstacle);
  void touch_rest(const output_verdict& obstacle) {
    if (obstacle.reason) touch(address_set(untouched_), obstacle);
  }

  /// The obstacle that was told first of those in this part of the region. Certain if all of it
  /// meets it for certain.
  [[nodiscard]] output_verdict of(const ip_prefix& part) const;
  /// The same without a copy, and certain where it is for some.
  [[nodiscard]] const output_verdict& look_at(const ip_prefix& part) const {
    return obstacle(first_in(part).obstacle);
  }
  /// Whatever is untouched is tracked (output_verdict::tracked), but these.
  void track_all_but(const address_set& where);
  /// Those of the untouched that are tracked.
  [[nodiscard]] const address_set& tracked() const noexcept { return tracked_; }

  /// From now on these destinations are as the other has them, which knows of no others.
  void replace(const address_set& where, const destination_verdicts& with);

  static constexpr std::uint32_t tracked_piece = ~std::uint32_t{0};
  /// From `first` to the next one's; 0 = untouched and not tracked, `tracked_piece` = untouched,
  /// else a number of an obstacle.
  struct piece {
    address_number first = 0;
    std::uint32_t obstacle = 0;
  };
  /// All of the region, in order.
  [[nodiscard]] std::span<const piece> pieces() const;
  [[nodiscard]] const output_verdict& obstacle(std::uint32_t number) const noexcept {
    if (number == tracked_piece) return tracked_answer_;
    return number == 0 ? none_ : told_[number - 1].obstacle;
  }

 private:
  struct found {
    std::uint32_t obstacle = 0;
    bool everywhere = true;
  };
  [[nodiscard]] found first_in(const ip_prefix& part) const;
  struct told {
    address_set where;
    output_verdict obstacle;
  };

  [[nodiscard]] std::uint32_t number_of_obstacle(const output_verdict& obstacle);
  void replace_pieces(const address_set::interval& where, std::span<const piece> with);

  address_number last_;  ///< Of the region.
  address_set untouched_, tracked_;
  std::vector<told> told_;
  output_verdict none_, tracked_answer_;
  mutable std::vector<piece> pieces_;  ///< Empty: to be made.
};

}  // namespace cowire::detail

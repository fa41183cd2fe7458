// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/destination_verdicts.hpp>

#include <algorithm>
#include <iterator>
#include <utility>

namespace cowire::detail {

destination_verdicts::destination_verdicts(address_set region)
    : last_(region.empty() ? 0 : region.intervals().back().last), untouched_(std::move(region)) {
  tracked_answer_.tracked = true;
}

void destination_verdicts::track_all_but(const address_set& where) {
  tracked_ = untouched_;
  tracked_.remove(where);
  pieces_.clear();
}

void destination_verdicts::touch(const address_set& where, const output_verdict& obstacle) {
  address_set hit = untouched_.extract(where);
  if (hit.empty()) return;
  pieces_.clear();
  tracked_.remove(hit);
  if (!told_.empty() && told_.back().obstacle.obstacle == obstacle.obstacle) {
    told_.back().where.unite(hit);
    told_.back().obstacle.certain &= obstacle.certain;
    return;
  }
  told_.push_back({std::move(hit), obstacle});
}

std::span<const destination_verdicts::piece> destination_verdicts::pieces() const {
  if (!pieces_.empty()) return pieces_;
  struct bounded {
    address_set::interval where;
    std::uint32_t obstacle;
  };
  std::vector<bounded> all;
  address_set passing = untouched_;
  passing.remove(tracked_);
  for (const auto& one : passing.intervals()) all.push_back({one, 0});
  for (const auto& one : tracked_.intervals()) all.push_back({one, tracked_piece});
  for (std::size_t i = 0; i < told_.size(); ++i)
    for (const auto& one : told_[i].where.intervals())
      all.push_back({one, static_cast<std::uint32_t>(i + 1)});
  std::ranges::sort(all, {}, [](const bounded& b) { return b.where.first; });
  for (const bounded& one : all) pieces_.push_back({one.where.first, one.obstacle});
  return pieces_;
}

// ---- changes ------------------------------------------------------------------------------------

/// From 1 on. One that no destination meets any more makes room.
std::uint32_t destination_verdicts::number_of_obstacle(const output_verdict& obstacle) {
  auto at = std::ranges::find_if(
      told_, [&](const told& t) { return t.obstacle.obstacle == obstacle.obstacle; });
  if (at == told_.end())
    at = std::ranges::find_if(told_, [](const told& t) { return t.where.empty(); });
  if (at == told_.end()) at = told_.insert(at, told{});
  const bool alone = at->where.empty();
  const bool certain = alone || at->obstacle.certain;
  at->obstacle = obstacle;
  at->obstacle.certain &= certain;
  return static_cast<std::uint32_t>(at - told_.begin()) + 1;
}

void destination_verdicts::replace(const address_set& where, const destination_verdicts& with) {
  static_cast<void>(pieces());
  untouched_.remove(where);
  tracked_.remove(where);
  for (told& one : told_) one.where.remove(where);
  untouched_.unite(with.untouched_);
  tracked_.unite(with.tracked_);
  std::vector<std::uint32_t> numbers;
  for (const told& one : with.told_) {
    numbers.push_back(number_of_obstacle(one.obstacle));
    told_[numbers.back() - 1].where.unite(one.where);
  }
  std::vector<piece> renamed(with.pieces().begin(), with.pieces().end());
  for (piece& one : renamed)
    if (one.obstacle != 0 && one.obstacle != tracked_piece)
      one.obstacle = numbers[one.obstacle - 1];
  for (const auto& interval : where.intervals()) {
    const auto from = std::ranges::lower_bound(renamed, interval.first, {}, &piece::first);
    const auto to = std::ranges::upper_bound(renamed, interval.last, {}, &piece::first);
    replace_pieces(interval, {from, to});
  }
}

/// `with` begins where the interval does.
void destination_verdicts::replace_pieces(const address_set::interval& where,
                                          std::span<const piece> with) {
  const auto low = std::ranges::lower_bound(pieces_, where.first, {}, &piece::first);
  const auto high = std::ranges::upper_bound(pieces_, where.last, {}, &piece::first);
  std::vector<piece> made;
  const auto add = [&](const piece& one) {
    const bool first = made.empty();
    if (first && low != pieces_.begin() && std::prev(low)->obstacle == one.obstacle) return;
    if (first || made.back().obstacle != one.obstacle) made.push_back(one);
  };
  for (const piece& one : with) add(one);
  // What the last piece said goes on behind the interval.
  const bool ends = high == pieces_.end();
  auto behind = high;
  if (where.last != last_ && (ends || high->first != where.last + 1))
    add({where.last + 1, std::prev(high)->obstacle});
  else if (!ends &&
           (made.empty() ? std::prev(low)->obstacle : made.back().obstacle) == high->obstacle)
    ++behind;
  pieces_.insert(pieces_.erase(low, behind), made.begin(), made.end());
}

destination_verdicts::found destination_verdicts::first_in(const ip_prefix& part) const {
  const auto all = pieces();
  const address_number first = number_of(part.address()), last = number_of(part.last());
  auto at = std::ranges::upper_bound(all, first, {}, &piece::first) - 1;
  found answer{at->obstacle, true};
  for (++at; at != all.end() && at->first <= last; ++at) {
    answer.everywhere &= at->obstacle == answer.obstacle;
    if (at->obstacle == 0) continue;
    answer.obstacle = answer.obstacle == 0 ? at->obstacle : std::min(answer.obstacle, at->obstacle);
  }
  return answer;
}

output_verdict destination_verdicts::of(const ip_prefix& part) const {
  const found first = first_in(part);
  output_verdict answer = obstacle(first.obstacle);
  answer.certain &= first.everywhere;
  return answer;
}

}  // namespace cowire::detail

// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/destination_verdicts.hpp>

#include <algorithm>
#include <utility>

namespace cowire::detail {

destination_verdicts::destination_verdicts(const ip_prefix& region)
    : region_(region), untouched_(region) {
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

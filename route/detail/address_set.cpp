// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/address_set.hpp>

#include <algorithm>
#include <array>
#include <utility>

namespace cowire::detail {
namespace {

using interval = address_set::interval;

/// The first that does not end below `number`.
auto first_reaching(auto& in, address_number number) {
  return std::ranges::partition_point(in, [&](const interval& i) { return i.last < number; });
}

/// Sorted; what overlaps or touches becomes one.
void normalise(std::vector<interval>& all) {
  if (!std::ranges::is_sorted(all, {}, &interval::first))
    std::ranges::sort(all, {}, &interval::first);
  std::size_t kept = 0;
  for (const interval& one : all) {
    const bool joins =
        kept > 0 && (one.first <= all[kept - 1].last || one.first - 1 == all[kept - 1].last);
    if (joins)
      all[kept - 1].last = std::max(all[kept - 1].last, one.last);
    else
      all[kept++] = one;
  }
  all.resize(kept);
}

}  // namespace

address_number number_of(const ip_address& address) noexcept {
  address_number number = 0;
  for (std::size_t i = 0; i < address.size(); ++i) number = number << 8 | address.bytes()[i];
  return number;
}

ip_address address_of(ip_family family, address_number number) noexcept {
  std::array<std::uint8_t, 16> bytes{};
  for (std::size_t i = family == ip_family::v4 ? 4 : 16; i-- > 0; number >>= 8)
    bytes[i] = static_cast<std::uint8_t>(number);
  return ip_address::from_bytes(family, bytes.data());
}

address_number highest_number(ip_family family) noexcept {
  return family == ip_family::v4 ? address_number{0xffffffff} : ~address_number{0};
}

address_set::address_set(const ip_prefix& prefix)
    : address_set(interval{number_of(prefix.address()), number_of(prefix.last())}) {}

address_set::address_set(std::vector<interval> intervals) {
  if (intervals.empty()) return;
  normalise(intervals);
  list_ = std::make_shared<list>(std::move(intervals));
}

std::span<const interval> address_set::intervals() const noexcept {
  return list_ ? std::span<const interval>(*list_) : std::span<const interval>();
}

address_set::list& address_set::own() {
  if (!list_)
    list_ = std::make_shared<list>();
  else if (list_.use_count() > 1)
    list_ = std::make_shared<list>(*list_);
  return *list_;
}

bool address_set::contains(address_number number) const noexcept {
  const auto all = intervals();
  const auto at = first_reaching(all, number);
  return at != all.end() && at->first <= number;
}

bool operator==(const address_set& a, const address_set& b) noexcept {
  return a.list_ == b.list_ || std::ranges::equal(a.intervals(), b.intervals());
}

address_set address_set::intersection(const address_set& with) const {
  if (list_ == with.list_) return *this;
  const bool this_is_small = is_much_smaller(with);
  const auto few = this_is_small ? intervals() : with.intervals();
  const auto many = this_is_small ? with.intervals() : intervals();
  std::vector<interval> both;
  auto at = many.begin();
  for (const interval& one : few) {
    if (at != many.end() && at->last < one.first) at = first_reaching(many, one.first);
    for (auto here = at; here != many.end() && here->first <= one.last; ++here) {
      both.push_back({std::max(here->first, one.first), std::min(here->last, one.last)});
      at = here;
    }
  }
  return address_set(std::move(both));
}

void address_set::remove_one(list& from, const interval& what) const {
  auto at = first_reaching(from, what.first);
  if (at == from.end() || at->first > what.last) return;
  std::vector<interval> left;  // At most what stays of the first and of the last.
  auto end = at;
  for (; end != from.end() && end->first <= what.last; ++end) {
    if (end->first < what.first) left.push_back({end->first, what.first - 1});
    if (end->last > what.last) left.push_back({what.last + 1, end->last});
  }
  const auto place = from.erase(at, end);
  from.insert(place, left.begin(), left.end());
}

void address_set::remove(const address_set& what) {
  if (what.empty() || empty()) return;
  if (list_ == what.list_) {
    list_.reset();
    return;
  }
  if (what.is_much_smaller(*this) || what.size() == 1) {
    list& mine = own();
    for (const interval& one : what.intervals()) remove_one(mine, one);
  } else {
    std::vector<interval> left;
    const auto holes = what.intervals();
    auto hole = holes.begin();
    for (interval one : intervals()) {
      while (hole != holes.end() && hole->last < one.first) ++hole;
      bool gone = false;
      for (auto here = hole; here != holes.end() && here->first <= one.last; ++here) {
        if (here->first > one.first) left.push_back({one.first, here->first - 1});
        gone = here->last >= one.last;
        if (gone) break;
        one.first = here->last + 1;
      }
      if (!gone) left.push_back(one);
    }
    list_ = std::make_shared<list>(std::move(left));
  }
  if (list_->empty()) list_.reset();
}

void address_set::add_one(list& to, const interval& what) const {
  interval grown = what;
  // What ends right before it is joined, too.
  auto at = first_reaching(to, what.first == 0 ? 0 : what.first - 1);
  auto end = at;
  for (; end != to.end() && (end->first <= what.last || end->first - 1 == what.last); ++end) {
    grown.first = std::min(grown.first, end->first);
    grown.last = std::max(grown.last, end->last);
  }
  if (end - at == 1) {
    *at = grown;
    return;
  }
  to.insert(to.erase(at, end), grown);
}

void address_set::unite(const address_set& with) {
  if (with.empty() || list_ == with.list_) return;
  if (empty()) {
    list_ = with.list_;
  } else if (with.is_much_smaller(*this) || with.size() == 1) {
    list& mine = own();
    for (const interval& one : with.intervals()) add_one(mine, one);
  } else if (is_much_smaller(with)) {
    address_set larger = with;
    larger.unite(*this);
    *this = std::move(larger);
  } else {
    std::vector<interval> both;
    both.reserve(size() + with.size());
    std::ranges::merge(intervals(), with.intervals(), std::back_inserter(both), {},
                       &interval::first, &interval::first);
    *this = address_set(std::move(both));
  }
}

}  // namespace cowire::detail

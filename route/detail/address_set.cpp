// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/address_set.hpp>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

namespace cowire::detail {
namespace {

using interval = address_set::interval;

constexpr std::size_t piece_size = 256;

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

void remove_one(interval_list& from, const interval& what) {
  const auto at = from.first_reaching(what.first);
  if (at == from.end() || at->first > what.last) return;
  std::array<interval, 2> left;  // What stays of the first and of the last.
  std::size_t stays = 0;
  auto end = at;
  for (; end != from.end() && end->first <= what.last; ++end) {
    if (end->first < what.first) left[stays++] = {end->first, what.first - 1};
    if (end->last > what.last) left[stays++] = {what.last + 1, end->last};
  }
  from.replace(at, end, std::span(left).first(stays));
}

void add_one(interval_list& to, const interval& what) {
  interval grown = what;
  // What ends right before it is joined, too.
  const auto at = to.first_reaching(what.first == 0 ? 0 : what.first - 1);
  auto end = at;
  for (; end != to.end() && (end->first <= what.last || end->first - 1 == what.last); ++end) {
    grown.first = std::min(grown.first, end->first);
    grown.last = std::max(grown.last, end->last);
  }
  to.replace(at, end, std::span(&grown, 1));
}

}  // namespace

// ---- the list -----------------------------------------------------------------------------------

interval_list::interval_list(std::vector<interval> all) : size_(all.size()) {
  if (all.empty()) return;
  pieces_.reserve((all.size() + piece_size - 1) / piece_size);
  if (all.size() <= piece_size) {  // As nearly all are: one for each rule.
    pieces_.push_back(std::move(all));
    return;
  }
  for (std::span<const interval> rest(all); !rest.empty();) {
    const auto some = rest.first(std::min(piece_size, rest.size()));
    pieces_.emplace_back(some.begin(), some.end());
    rest = rest.subspan(some.size());
  }
}

interval_list::iterator interval_list::first_reaching(address_number number) const noexcept {
  const auto ends_below = [&](const interval& i) { return i.last < number; };
  const auto in = std::ranges::partition_point(
      pieces_, [&](const piece& one) { return ends_below(one.back()); });
  if (in == pieces_.end()) return end();
  const auto at = std::ranges::partition_point(*in, ends_below);
  return {pieces_, static_cast<std::size_t>(in - pieces_.begin()),
          static_cast<std::size_t>(at - in->begin())};
}

void interval_list::replace(iterator from, iterator to, std::span<const interval> with) {
  if (pieces_.empty()) {
    *this = interval_list({with.begin(), with.end()});
    return;
  }
  // What is put behind the last goes into its piece.
  if (from.piece_ == pieces_.size())
    from = iterator(pieces_, pieces_.size() - 1, pieces_.back().size());
  piece& first = pieces_[from.piece_];
  const auto place = [](piece& in, std::size_t at) {
    return in.begin() + static_cast<std::ptrdiff_t>(at);
  };
  std::size_t gone = 0;
  if (to.piece_ == from.piece_) {
    gone = to.place_ - from.place_;
    first.erase(place(first, from.place_), place(first, to.place_));
  } else {
    gone = first.size() - from.place_;
    first.resize(from.place_);
    for (std::size_t i = from.piece_ + 1; i < to.piece_; ++i) gone += pieces_[i].size();
    if (to.piece_ < pieces_.size()) {
      gone += to.place_;
      piece& last = pieces_[to.piece_];
      last.erase(last.begin(), place(last, to.place_));
    }
    const auto whole = pieces_.begin() + static_cast<std::ptrdiff_t>(from.piece_) + 1;
    if (to.piece_ > from.piece_ + 1)
      pieces_.erase(whole, pieces_.begin() + static_cast<std::ptrdiff_t>(to.piece_));
  }
  piece& changed = pieces_[from.piece_];
  changed.insert(place(changed, from.place_), with.begin(), with.end());
  size_ += with.size() - gone;
  settle(from.piece_);
}

/// A piece that has become empty goes, one that has become large is divided.
void interval_list::settle(std::size_t at) {
  const auto place = pieces_.begin() + static_cast<std::ptrdiff_t>(at);
  if (place->empty()) {
    pieces_.erase(place);
  } else if (place->size() > 2 * piece_size) {
    const auto half = place->begin() + static_cast<std::ptrdiff_t>(place->size() / 2);
    piece upper(half, place->end());
    place->erase(half, place->end());
    pieces_.insert(place + 1, std::move(upper));
  }
}

// ---- addresses ----------------------------------------------------------------------------------

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
  list_ = std::make_shared<interval_list>(std::move(intervals));
}

interval_list& address_set::own() {
  if (!list_)
    list_ = std::make_shared<interval_list>();
  else if (list_.use_count() > 1)
    list_ = std::make_shared<interval_list>(*list_);
  return *list_;
}

bool address_set::contains(address_number number) const noexcept {
  const auto& all = intervals();
  const auto at = all.first_reaching(number);
  return at != all.end() && at->first <= number;
}

bool operator==(const address_set& a, const address_set& b) noexcept {
  return a.list_ == b.list_ ||
         (a.size() == b.size() &&
          std::equal(a.intervals().begin(), a.intervals().end(), b.intervals().begin()));
}

address_set address_set::intersection(const address_set& with) const {
  if (list_ == with.list_) return *this;
  const bool this_is_small = is_much_smaller(with);
  const auto& few = this_is_small ? intervals() : with.intervals();
  const auto& many = this_is_small ? with.intervals() : intervals();
  std::vector<interval> both;
  auto at = many.begin();
  for (const interval& one : few) {
    if (at != many.end() && at->last < one.first) at = many.first_reaching(one.first);
    for (auto here = at; here != many.end() && here->first <= one.last; ++here) {
      both.push_back({std::max(here->first, one.first), std::min(here->last, one.last)});
      at = here;
    }
  }
  return address_set(std::move(both));
}

void address_set::remove(const address_set& what) {
  if (what.empty() || empty()) return;
  if (list_ == what.list_) {
    list_.reset();
    return;
  }
  if (what.is_much_smaller(*this) || what.size() == 1) {
    interval_list& mine = own();
    for (const interval& one : what.intervals()) remove_one(mine, one);
  } else {
    std::vector<interval> left;
    const auto& holes = what.intervals();
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
    list_ = std::make_shared<interval_list>(std::move(left));
  }
  if (list_->empty()) list_.reset();
}

void address_set::unite(const address_set& with) {
  if (with.empty() || list_ == with.list_) return;
  if (empty()) {
    list_ = with.list_;
  } else if (with.is_much_smaller(*this) || with.size() == 1) {
    interval_list& mine = own();
    for (const interval& one : with.intervals()) add_one(mine, one);
  } else if (is_much_smaller(with)) {
    address_set larger = with;
    larger.unite(*this);
    *this = std::move(larger);
  } else {
    std::vector<interval> both;
    both.reserve(size() + with.size());
    std::merge(intervals().begin(), intervals().end(), with.intervals().begin(),
               with.intervals().end(), std::back_inserter(both),
               [](const interval& a, const interval& b) { return a.first < b.first; });
    *this = address_set(std::move(both));
  }
}

}  // namespace cowire::detail

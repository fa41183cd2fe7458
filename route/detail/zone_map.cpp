// SPDX-License-Identifier: Apache-2.0
#include <cowire/route/detail/zone_map.hpp>

#include <algorithm>
#include <utility>

namespace cowire::detail {
namespace {

/// Divides the address space in halves until nothing is left to tell apart.
class divider {
 public:
  divider(ip_family family, std::span<const zone_piece> pieces)
      : family_(family), bits_(family == ip_family::v4 ? 32 : 128), pieces_(pieces) {}

  [[nodiscard]] std::vector<zone_prefix> run(const ip_prefix& whole, zone_id inherited) && {
    divide(number_of(whole.address()), whole.length(), 0, pieces_.size(), inherited);
    std::ranges::sort(out_);
    return std::move(out_);
  }

 private:
  [[nodiscard]] address_number last_of(address_number base, unsigned length) const {
    const unsigned free = bits_ - length;
    return free >= 128 ? ~address_number{0} : base | ((address_number{1} << free) - 1);
  }

  /// Of the pieces from `from` to `to`, the zone of most addresses; of equals, `inherited`.
  [[nodiscard]] zone_id widest(address_number base, address_number last, std::size_t from,
                               std::size_t to, zone_id inherited) {
    widths_.assign(1, {inherited, 0.0});
    for (std::size_t i = from; i < to; ++i) {
      const address_number first = std::max(base, pieces_[i].first);
      const address_number end = i + 1 < to ? pieces_[i + 1].first - 1 : last;
      auto known = std::ranges::find(widths_, pieces_[i].zone, &std::pair<zone_id, double>::first);
      if (known == widths_.end()) known = widths_.insert(known, {pieces_[i].zone, 0.0});
      known->second += static_cast<double>(end - first) + 1;
    }
    return std::ranges::max_element(widths_, {}, &std::pair<zone_id, double>::second)->first;
  }

  /// The pieces from `from` to `to` are those that the prefix meets.
  void divide(address_number base, unsigned length, std::size_t from, std::size_t to,
              zone_id inherited) {
    const address_number last = last_of(base, length);
    const bool one_zone = std::all_of(pieces_.begin() + static_cast<std::ptrdiff_t>(from),
                                      pieces_.begin() + static_cast<std::ptrdiff_t>(to),
                                      [&](const auto& p) { return p.zone == pieces_[from].zone; });
    const zone_id own = one_zone ? pieces_[from].zone : widest(base, last, from, to, inherited);
    if (own != inherited) out_.push_back({ip_prefix(address_of(family_, base), length), own});
    if (one_zone) return;
    const address_number middle = base | address_number{1} << (bits_ - length - 1);
    const auto begin = pieces_.begin() + static_cast<std::ptrdiff_t>(from),
               end = pieces_.begin() + static_cast<std::ptrdiff_t>(to);
    // The first piece of the upper half is the one that the middle is in.
    const auto above = std::ranges::upper_bound(begin, end, middle, {}, &zone_piece::first) - 1;
    const auto upper = static_cast<std::size_t>(above - pieces_.begin());
    divide(base, length + 1, from, above->first < middle ? upper + 1 : upper, own);
    divide(middle, length + 1, upper, to, own);
  }

  const ip_family family_;
  const unsigned bits_;
  const std::span<const zone_piece> pieces_;
  std::vector<std::pair<zone_id, double>> widths_;
  std::vector<zone_prefix> out_;
};

}  // namespace

std::vector<zone_prefix> prefixes_of(ip_family family, std::span<const zone_piece> pieces) {
  const bool alike =
      std::ranges::all_of(pieces, [&](const auto& p) { return p.zone == pieces.front().zone; });
  if (alike) return {};
  return divider(family, pieces).run(ip_prefix::all(family), 0);
}

std::vector<zone_prefix> prefixes_within(const ip_prefix& whole, zone_id inherited,
                                         std::span<const zone_piece> pieces) {
  return divider(whole.family(), pieces).run(whole, inherited);
}

const zone_prefix* find_around(std::span<const zone_prefix> prefixes, const ip_prefix& inner,
                               unsigned below) {
  while (below-- > 0) {
    const ip_prefix wanted(inner.address(), below);
    const auto found = std::ranges::lower_bound(prefixes, wanted, {}, &zone_prefix::prefix);
    if (found != prefixes.end() && found->prefix == wanted) return &*found;
  }
  return nullptr;
}

std::vector<ip_prefix> prefixes_in(ip_family family, const address_set::interval& interval) {
  const unsigned bits = family == ip_family::v4 ? 32 : 128;
  std::vector<ip_prefix> out;
  for (address_number first = interval.first;;) {
    unsigned free = 0;  // Bits that may be anything.
    const auto last_with = [&](unsigned count) {
      return first | (count >= 128 ? ~address_number{0} : (address_number{1} << count) - 1);
    };
    while (free < bits && (first >> free & 1) == 0 && last_with(free + 1) <= interval.last) ++free;
    out.emplace_back(address_of(family, first), bits - free);
    const address_number last = last_with(free);
    if (last >= interval.last) return out;
    first = last + 1;
  }
}

}  // namespace cowire::detail

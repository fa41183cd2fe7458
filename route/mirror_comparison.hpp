// SPDX-License-Identifier: Apache-2.0
/// What two mirrors do not agree on.
///
/// Made for the two mirrors of a re-dump check or a re-sync, which both go on to follow the kernel
/// while they are compared. Going through a million routes takes long, so that is done a slice at a
/// time; whatever changes meanwhile is noted and looked at again. All else is small, and is
/// compared when the result is asked for:
///
///     mirror_comparison found(live, shadow);
///     while (found.advance(64)) { ...apply() to both, found.note() what either says changed... }
///     found.add_to(changes);
///
/// Learned facts that a dump cannot tell do not count as differences.
///
/// As a mirror: one thread at a time, the one that changes the mirrors. Both outlive it.
#pragma once

#include <cowire/route/mirror.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cowire {

class mirror_comparison {
 public:
  mirror_comparison(const mirror& left, const mirror& right) noexcept
      : left_(left), right_(right) {}

  /// Compares up to `count` prefixes more; true while any are left.
  [[nodiscard]] bool advance(std::size_t count);
  /// Says where one of the mirrors has changed.
  void note(const mirror_changes& changes);

  // The result, as the mirrors are now. Call when advance() has returned false and nothing was
  // noted since.
  /// Adds what a compiler that knows `left` has to know of `right`.
  void add_to(mirror_changes& changes) const;
  /// One line each, for people and logs; empty = equal. What no message tells does not count:
  /// neighbours that the kernel changes without a word, addresses before they are announced, IPv6
  /// routes that a dump leaves out, the weight of a single next hop, whether one is dead where all
  /// without carrier are shown as dead, and the next hops that are an object's.
  [[nodiscard]] std::vector<std::string> describe() const;

 private:
  using place = mirror_changes::prefix;

  [[nodiscard]] bool walk(std::size_t& count);
  [[nodiscard]] std::optional<std::uint32_t> next_table() const;
  [[nodiscard]] bool differs_at(const place& where) const;
  [[nodiscard]] static bool same_link(const netlink::link& a, const netlink::link& b);
  template <class Report>
  void compare(Report&& report) const;

  const mirror &left_, &right_;
  // Where the walk is: behind `last_` in the table `table_`.
  std::size_t family_ = 0;
  std::optional<std::uint32_t> table_;
  std::optional<ip_prefix> last_;
  std::vector<place> changed_;  ///< To be looked at (again).
  std::vector<place> differing_;
};

/// Everything that two mirrors do not agree on, at once.
[[nodiscard]] std::vector<std::string> difference(const mirror& left, const mirror& right);

}  // namespace cowire

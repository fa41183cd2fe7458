// SPDX-License-Identifier: Apache-2.0
/// The second mirror that a re-sync or a re-dump check builds beside the live one, in bounded
/// slices: with a million routes each of its steps takes long, and changes of the live one must not
/// wait for it.
///
///     begin() -> filling -> complete() -> catching_up -> whole -> compare() -> comparing
///                   |                                                             |
///                   +---- abandon() ----> none <-- abandon(), take_over() --- compared
///
/// While the dump runs its objects are taken in as they come. What was announced meanwhile follows,
/// in order; from then on both mirrors are told the same. When the comparison is through, either
/// the shadow is dropped or the live mirror takes it over. What is left over is freed in slices,
/// too.
///
/// The owner calls work() again and again while busy(), with time for everything else in between.
/// Ring thread.
#pragma once

#include <cowire/netlink/message.hpp>
#include <cowire/netlink/monitor.hpp>
#include <cowire/route/mirror.hpp>
#include <cowire/route/mirror_comparison.hpp>

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace cowire::detail {

class shadow_mirror {
 public:
  using clock = std::chrono::steady_clock;
  enum class stage : std::uint8_t { none, filling, catching_up, whole, comparing, compared };

  /// `live` outlives it.
  explicit shadow_mirror(mirror& live) : live_(live) {}

  [[nodiscard]] stage at() const noexcept { return stage_; }
  /// Whether there is something for work() to do.
  [[nodiscard]] bool busy() const noexcept {
    return stage_ == stage::catching_up || stage_ == stage::comparing || !discarded_.empty();
  }
  /// Goes on until `until`, or until there is nothing to do.
  void work(clock::time_point until);

  // What the monitor says.
  /// A dump begins; a shadow that there was is void.
  void begin();
  void on_object(netlink::message&& value, bool from_event);
  void on_restart(const netlink::dump_scope& scope);
  void complete();
  /// The shadow is void; there may be none.
  void abandon();

  // What the live mirror was told once the dump was complete, in the same order.
  void follow(const netlink::message& change, message_origin origin);
  /// What the live mirror says changed in it.
  void note(const mirror_changes& changes);
  /// Something is about to happen that cannot wait in line: catches up at once.
  void catch_up();
  /// Done to the shadow as it was to the live mirror, after catch_up(). Nothing if there is none.
  template <class F>
  void likewise(F&& change) {
    if (stage_ < stage::whole) return;
    mirror_changes changes;
    change(*shadow_, changes);
    note(changes);
  }

  /// At `whole`: begins the comparison.
  void compare();
  /// At `compared`: what the two do not agree on.
  [[nodiscard]] std::vector<std::string> differences() const { return comparison_->describe(); }
  /// At `whole`, if nothing depends on the live mirror yet, or at `compared`: the live one becomes
  /// what the shadow is; `changes` gets what the comparison found, and whether to re-dump buckets.
  void take_over(mirror_changes& changes);

 private:
  [[nodiscard]] bool step();
  void discard() noexcept;

  mirror& live_;
  stage stage_ = stage::none;
  std::unique_ptr<mirror> shadow_;
  /// What it was not told yet.
  std::deque<std::pair<netlink::message, message_origin>> backlog_;
  bool buckets_advised_ = false;  ///< By what followed the dump.
  std::optional<mirror_comparison> comparison_;
  std::vector<std::unique_ptr<mirror>> discarded_;  ///< To be freed bit by bit.
};

}  // namespace cowire::detail

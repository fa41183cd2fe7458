// SPDX-License-Identifier: Apache-2.0
/// Flows of which the kernel's connection tracking has an entry, so that their datagrams may pass
/// it by: written by the control thread (async/detail/flow_tracker.hpp), read by the TX cores.
///
///     places_: hash | index + 1     an open-addressing table, at most half full
///                  |
///     lines_:  key, good until, last sent, reason         one cache line a flow
///
/// A core looks a flow up only where the hop of its datagram says so (tracked_egress). It may send
/// while the time is before `good until`, and notes when it did; otherwise it diverts under
/// `reason`. Nobody sends on the word of a thread that has gone: what is not confirmed in time is
/// not good any more.
///
/// | call                                 | control thread | cores, inside the epoch |
/// |--------------------------------------|----------------|-------------------------|
/// | hash_of, prefetch, find_line, use    |                | yes                     |
/// | size, capacity                       | yes            | yes                     |
/// | all others                           | yes            |                         |
///
/// Memory order. A line is written before its place is stored with release, and read after that was
/// loaded with acquire. A place that was taken out is not reached any more by who enters the epoch
/// after it, so its line is used again only after the grace period (retire_removed()). Removing
/// moves others towards their home, copy first: a core that looks meanwhile may miss one that is
/// there, and then diverts a datagram, which harms nothing. What changes in a line that can be
/// reached is an atomic of its own, and none of them says anything about another.
#pragma once

#include <cowire/base/assert.hpp>
#include <cowire/base/reason.hpp>
#include <cowire/route/epoch.hpp>
#include <cowire/route/forwarding_table.hpp>
#include <cowire/xdp/tx_request.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace cowire {

/// Source address, right-aligned as the destination in a tx_request.
using source_bytes = std::array<std::uint8_t, 16>;

/// The source that a hop writes into the IP header next to the UDP header.
[[nodiscard]] inline source_bytes source_of(const hop& via, ip_family family) noexcept {
  source_bytes out{};
  if (family == ip_family::v4)
    std::memcpy(out.data() + 12, via.header + udp_header_offset - 8, 4);
  else
    std::memcpy(out.data(), via.header + destination_offset - 16, 16);
  return out;
}

/// What a hop adds to a datagram that connection tracking looks at.
struct tracked_way {
  source_bytes source{};
  std::uint8_t outer_flow = 0;  ///< As hop has it.
  [[nodiscard]] static tracked_way of(const hop& via, ip_family family) noexcept {
    return {source_of(via, family), via.is_tracked() ? via.outer_flow : std::uint8_t{0}};
  }
};

/// What connection tracking tells flows apart by, and the outer headers that they are wrapped in.
/// The flow class is no part of it: classes that differ in mark or owner share the kernel's entry,
/// too.
struct tracked_key {
  std::array<std::uint64_t, 5> words{};

  [[nodiscard]] static tracked_key of(const tx_request& request, const tracked_way& way) noexcept {
    tracked_key out;
    std::memcpy(&out.words[0], request.destination.data(), 16);
    std::memcpy(&out.words[2], way.source.data(), 16);
    out.words[4] = std::uint64_t{request.source_port.raw} |
                   std::uint64_t{request.destination_port.raw} << 16 |
                   std::uint64_t{static_cast<std::uint8_t>(request.family)} << 32 |
                   std::uint64_t{way.outer_flow} << 40;
    return out;
  }
  [[nodiscard]] std::uint8_t outer_flow() const noexcept {
    return static_cast<std::uint8_t>(words[4] >> 40);
  }
  [[nodiscard]] ip_family family() const noexcept {
    return static_cast<ip_family>(static_cast<std::uint8_t>(words[4] >> 32));
  }
  [[nodiscard]] ip_address destination() const noexcept { return address_at(0); }
  [[nodiscard]] ip_address source() const noexcept { return address_at(2); }
  [[nodiscard]] be16 source_port() const noexcept {
    return be16{static_cast<std::uint16_t>(words[4])};
  }
  [[nodiscard]] be16 destination_port() const noexcept {
    return be16{static_cast<std::uint16_t>(words[4] >> 16)};
  }
  friend bool operator==(const tracked_key&, const tracked_key&) noexcept = default;

 private:
  [[nodiscard]] ip_address address_at(std::size_t word) const noexcept {
    const std::size_t size = family() == ip_family::v4 ? 4 : 16;
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&words[word]);
    return ip_address::from_bytes(family(), bytes + 16 - size);
  }
};

class tracked_flows {
 public:
  /// Milliseconds of the steady clock.
  using time_ms = std::int64_t;
  using index = std::uint32_t;
  static constexpr index none = 0xffffffff;
  static constexpr std::uint32_t capacity_max = 1u << 20;

  struct alignas(64) line {
    tracked_key key;
    std::atomic<time_ms> good_until{0};
    std::atomic<time_ms> last_sent{0};
    std::atomic<divert_reason> reason{divert_reason::conntrack_new};
  };
  static_assert(sizeof(line) == 64);

  /// Reserves address space only; memory is used as flows come. Throws std::system_error.
  explicit tracked_flows(std::uint32_t capacity);
  ~tracked_flows();
  tracked_flows(const tracked_flows&) = delete;
  tracked_flows& operator=(const tracked_flows&) = delete;

  [[nodiscard]] std::uint32_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] std::uint32_t size() const noexcept {
    return size_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint32_t hash_of(const tracked_key& key) const noexcept;

  // TX cores. -------------------------------------------------------------------------------------

  void prefetch(std::uint32_t hash) const noexcept { __builtin_prefetch(&places_[hash & mask_]); }
  /// The flow's line, which may be another's of the same hash: use() compares. Null: not known.
  [[nodiscard]] line* find_line(const tracked_key& key, std::uint32_t hash) const noexcept {
    const index at = find(key, hash);
    return at == none ? nullptr : &lines_[at];
  }
  /// Whether a datagram of the flow may be sent now: then it counts as sent. Otherwise why not.
  [[nodiscard]] std::optional<divert_reason> use(line* flow, time_ms now) const noexcept {
    if (flow == nullptr)
      return full_.load(std::memory_order_relaxed) ? divert_reason::conntrack_full
                                                   : divert_reason::conntrack_new;
    if (now >= flow->good_until.load(std::memory_order_relaxed))
      return flow->reason.load(std::memory_order_relaxed);
    // Mostly the same as before: then the line stays shared.
    if (flow->last_sent.load(std::memory_order_relaxed) != now)
      flow->last_sent.store(now, std::memory_order_relaxed);
    return std::nullopt;
  }

  // Control thread. -------------------------------------------------------------------------------

  [[nodiscard]] index find(const tracked_key& key) const noexcept {
    return find(key, hash_of(key));
  }
  /// A flow that is not there yet; it is not good. `none`: there is no room, which the cores are
  /// told.
  [[nodiscard]] index insert(const tracked_key& key);
  /// It is not found any more; its number is somebody else's after the grace period.
  void remove(index at);
  /// Hands what was removed to the epoch domain.
  void retire_removed(epoch_domain& epochs);
  [[nodiscard]] line& operator[](index at) noexcept { return lines_[at]; }
  /// All numbers in use are below.
  [[nodiscard]] index end() const noexcept { return next_; }

 private:
  /// Numbers of lines that may be used again. Outlives the table where readers were slow.
  using free_list = std::vector<index>;
  struct removed_lines {
    removed_lines(std::shared_ptr<free_list> home_, free_list lines_) noexcept
        : home(std::move(home_)), lines(std::move(lines_)) {}
    removed_lines(const removed_lines&) = delete;
    removed_lines& operator=(const removed_lines&) = delete;
    std::shared_ptr<free_list> home;
    free_list lines;
    ~removed_lines() { home->insert(home->end(), lines.begin(), lines.end()); }
  };

  [[nodiscard]] index find(const tracked_key& key, std::uint32_t hash) const noexcept {
    for (std::uint32_t i = hash & mask_;; i = (i + 1) & mask_) {
      const std::uint64_t place =
          std::atomic_ref(places_[i]).load(std::memory_order_acquire);  // Pairs with put().
      if (place == 0) return none;
      const auto at = static_cast<index>(place) - 1;
      if (static_cast<std::uint32_t>(place >> 32) == hash && lines_[at].key == key) return at;
    }
  }
  void put(std::uint32_t place, std::uint64_t value) noexcept {
    std::atomic_ref(places_[place]).store(value, std::memory_order_release);
  }

  const std::uint32_t capacity_;
  const std::uint32_t mask_;  ///< Places less one.
  const std::uint64_t seed_;
  std::uint64_t* places_ = nullptr;
  line* lines_ = nullptr;
  std::atomic<bool> full_{false};
  std::atomic<std::uint32_t> size_{0};
  index next_ = 0;  ///< Never used so far.
  const std::shared_ptr<free_list> free_;
  free_list removed_;
};

}  // namespace cowire
